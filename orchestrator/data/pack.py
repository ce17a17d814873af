"""Writing WebDataset shards: what a source yields goes into tar files, and a manifest is written last.

Packing the same source twice gives the same bytes: members carry no times or owners, and their order is fixed. Images
are written as they came. Called by `prepare` for data that is not packed yet and by `orchestrator shards pack`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from orchestrator.data.cache import hash_file
from orchestrator.data.manifest import MANIFEST_NAME, LabelInfo, Manifest, ShardInfo
from orchestrator.errors import DataError
from orchestrator.storage import Store, atomic_file

Progress = Callable[[str], None]
PackSample = tuple[str, dict[str, bytes]]
"""A key, and the bytes of each member by extension."""

DEFAULT_SHARD_SIZE_MB = 64.0
_PROGRESS_EVERY_S = 5.0
_BLOCK_BYTES = 512


class PackSource(Protocol):
    """Something to pack."""

    @property
    def name(self) -> str:
        """What it is, for messages."""

    @property
    def labels(self) -> Mapping[str, LabelInfo]:
        """The labels that every sample carries."""

    @property
    def num_samples(self) -> Mapping[str, int]:
        """Samples by split; `train` first."""

    def samples(self, split: str) -> Iterator[PackSample]:
        """The samples of a split, always in the same order, well mixed."""


def pack(
    source: PackSource,
    store: Store,
    *,
    shard_size_mb: float = DEFAULT_SHARD_SIZE_MB,
    shard_samples: int = 1000,
    progress: Progress | None = None,
) -> Manifest:
    """Write a source as shards of at most `shard_size_mb` and `shard_samples`, and the manifest when all are there.

    Raises:
        DataError: There is a manifest already, or nothing to pack.
        StorageError: The store cannot be written.
    """
    if store.exists(MANIFEST_NAME):
        raise DataError(f"{store.uri}: there are packed shards already; remove them or choose another place")
    if not any(source.num_samples.values()):
        raise DataError(f"{source.name}: there is nothing to pack; check the source")
    told = _Told(progress, f"packing {source.name}", sum(source.num_samples.values()))
    limit_bytes = max(1, int(shard_size_mb * 1e6))
    shards: list[ShardInfo] = []
    for split in source.num_samples:
        samples = _Peekable(source.samples(split))
        number = 0
        while samples:
            batch = _take(samples, limit_bytes, shard_samples)
            shards.append(_write_shard(batch, store, split, number, told))
            number += 1
    manifest = Manifest(shards=tuple(shards), labels=dict(source.labels))
    store.write(MANIFEST_NAME, manifest.dump())
    return manifest


def secure_webdataset() -> Any:
    """The webdataset library with its switches against running code from data set before it is imported.

    Raises:
        DataError: Somebody imported it before without them.
    """
    os.environ["WDS_SECURE"] = "1"
    os.environ["WDS_PYTORCH_WEIGHTS_ONLY"] = "1"
    import webdataset
    import webdataset.utils

    if not webdataset.utils.enforce_security:
        raise DataError(
            "webdataset was imported without WDS_SECURE=1; set it in the environment before Python starts"
        )
    return webdataset


class _Peekable:
    """An iterator that knows whether anything is left."""

    def __init__(self, samples: Iterator[PackSample]) -> None:
        self._samples = samples
        self.next: PackSample | None = next(samples, None)

    def __bool__(self) -> bool:
        return self.next is not None

    def pop(self) -> PackSample:
        assert self.next is not None
        sample, self.next = self.next, next(self._samples, None)
        return sample


def _take(samples: _Peekable, limit_bytes: int, limit_samples: int) -> Iterator[PackSample]:
    """The samples of the next shard: at least one, then as many as fit."""
    size, count = 0, 0
    while samples.next is not None and count < limit_samples:
        size += sum(
            _BLOCK_BYTES + -(-len(data) // _BLOCK_BYTES) * _BLOCK_BYTES for data in samples.next[1].values()
        )
        if count and size > limit_bytes:
            return
        count += 1
        yield samples.pop()


def _write_shard(
    samples: Iterator[PackSample], store: Store, split: str, number: int, told: _Told
) -> ShardInfo:
    name = f"{split}-{number:06d}.tar"
    target = store.local_path(name)
    if target is not None:
        with atomic_file(target) as temporary:
            count = _write_tar(samples, temporary, told)
        return _shard_info(target, name, split, count)
    with tempfile.TemporaryDirectory(prefix="orchestrator-pack-") as folder:
        path = Path(folder, name)
        count = _write_tar(samples, path, told)
        store.upload(path, name)
        return _shard_info(path, name, split, count)


def _write_tar(samples: Iterator[PackSample], path: Path, told: _Told) -> int:
    """Write a tar whose bytes depend on the samples alone; returns how many there were."""
    count, webdataset = 0, secure_webdataset()
    with (
        path.open("wb") as file,
        webdataset.TarWriter(file, user="", group="", mode=0o444, encoder=False, mtime=0) as writer,
    ):
        for key, members in samples:
            writer.write({"__key__": key, **members})
            count += 1
            told.one_more()
    return count


def _shard_info(path: Path, name: str, split: str, num_samples: int) -> ShardInfo:
    return ShardInfo(
        name=name,
        split=split,
        num_samples=num_samples,
        size_bytes=path.stat().st_size,
        sha256=hash_file(path),
    )


class _Told:
    """Tells how far the packing is, every few seconds."""

    def __init__(self, progress: Progress | None, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._count = progress, what, total, 0
        self._next_s = time.monotonic() + 1.0
        if progress is not None:
            progress(f"{what}: {total:,} images")

    def one_more(self) -> None:
        self._count += 1
        now_s = time.monotonic()
        if self._progress is not None and now_s >= self._next_s:
            self._progress(f"{self._what}: {self._count:,} of {self._total:,} images")
            self._next_s = now_s + _PROGRESS_EVERY_S
