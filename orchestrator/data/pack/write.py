"""Writing WebDataset shards: what a source yields goes into tar files, and a manifest is written last.

Packing the same source twice gives the same bytes, whatever the number of workers and however often it was killed:
members carry no times or owners, and their order is fixed. Images are written as they came unless told otherwise.
Several shards are filled, written and uploaded side by side. What is finished is noted beside the shards, so packing
goes on where it was killed. Called by `prepare` for data that is not packed yet and by `orchestrator shards pack`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from orchestrator.data.format import MANIFEST_NAME, LabelInfo, Manifest, Note, ShardInfo, parse_manifest
from orchestrator.data.pack.reencode import Reencode, reencoded
from orchestrator.errors import DataError, NotFoundError
from orchestrator.storage import Store
from orchestrator.text import counted

Progress = Callable[[str], None]
PackSample = tuple[str, dict[str, bytes]]
"""A key, and the bytes of each member by extension."""
LoadSample = Callable[[], PackSample]

DEFAULT_SHARD_SIZE_MB = 64.0
DEFAULT_SHARD_SAMPLES = 1000
FINISHED = "packing"
"""The folder of the notes on finished shards, there until the manifest is written."""
_MAX_MEMORY_BYTES = 2**30
_PROGRESS_EVERY_S = 5.0
_BLOCK_BYTES = 512


class OtherPackingError(DataError):
    """Something else was being packed at a place, and is not finished."""


class PackSource(Protocol):
    """Something to pack."""

    @property
    def name(self) -> str:
        """What it is, for messages."""

    @property
    def fingerprint(self) -> str:
        """A hash of the content, or of what tells that it changed; another one cannot go on where this one stopped."""

    @property
    def labels(self) -> Mapping[str, LabelInfo]:
        """The labels that every sample carries."""

    @property
    def amounts(self) -> Mapping[str, str]:
        """Units of the real numbers that every sample carries, by name."""

    @property
    def num_samples(self) -> Mapping[str, int]:
        """Samples by split; `train` first."""

    def samples(self, split: str, start: int = 0) -> Iterator[LoadSample]:
        """The samples of a split from the one at `start` on, always in the same order, well mixed.

        Each is read when it is called, from any thread.
        """


@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """How shards are cut and images written: at most so many megabytes and samples a shard."""

    shard_size_mb: float = DEFAULT_SHARD_SIZE_MB
    shard_samples: int = DEFAULT_SHARD_SAMPLES
    reencode: Reencode | None = None
    workers: int | None = None
    """Threads that read, re-encode and write; None is one a core."""


def pack(
    source: PackSource,
    store: Store,
    settings: PackSettings = PackSettings(),
    *,
    progress: Progress | None = None,
    notes: Sequence[Note] = (),
) -> Manifest:
    """Write a source as shards, and the manifest when all are there; goes on after the shards that are finished.

    `notes`, which say what of the source is not packed, are kept in the manifest.

    Raises:
        DataError: There is a manifest already, or there is nothing to pack.
        OtherPackingError: Another source, or this one otherwise, was being packed here.
        StorageError: The store cannot be written.
    """
    is_packed, is_noted = store.exists(MANIFEST_NAME), bool(store.list(f"{FINISHED}/"))
    if is_packed and not is_noted:
        raise DataError(f"{store.uri}: there are packed shards already; remove them or choose another place")
    if not any(source.num_samples.values()):
        raise DataError(f"{source.name}: there is nothing to pack; check the source")
    for place in (store, store.child(FINISHED)):
        place.clean()
    finished = _Finished(store, _plan_hash(source, settings))
    if is_packed:  # killed after the manifest: what is left is to remove the notes
        finished.forget()
        return parse_manifest(store.read(MANIFEST_NAME), f"{store.uri}/{MANIFEST_NAME}")
    told = _Told(progress, f"packing {source.name}", sum(source.num_samples.values()))
    workers = settings.workers or os.cpu_count() or 1
    with (
        ThreadPoolExecutor(workers, "pack-read") as readers,
        ThreadPoolExecutor(workers, "pack-write") as writers,
    ):
        packing = _Packing(source, store, settings, finished, told, readers=readers, writers=writers)
        try:
            shards = [shard for split in source.num_samples for shard in packing.split(split)]
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            writers.shutdown(wait=True, cancel_futures=True)
            raise
    manifest = Manifest(
        shards=tuple(shards), labels=dict(source.labels), amounts=dict(source.amounts), notes=tuple(notes)
    )
    store.write(MANIFEST_NAME, manifest.dump())
    finished.forget()
    return manifest


class _Packing:
    """Cuts a source into shards and has them written side by side."""

    def __init__(
        self,
        source: PackSource,
        store: Store,
        settings: PackSettings,
        finished: _Finished,
        told: _Told,
        *,
        readers: ThreadPoolExecutor,
        writers: ThreadPoolExecutor,
    ) -> None:
        self._source, self._store, self._settings = source, store, settings
        self._finished, self._told, self._readers, self._writers = finished, told, readers, writers
        self._limit_bytes = max(1, int(settings.shard_size_mb * 1e6))
        self._samples_ahead = 4 * (settings.workers or os.cpu_count() or 1)
        self._shards_ahead = max(
            1, min(settings.workers or os.cpu_count() or 1, _MAX_MEMORY_BYTES // self._limit_bytes)
        )

    def split(self, split: str) -> list[ShardInfo]:
        """The shards of a split, finished ones as they are."""
        shards: list[Future[ShardInfo]] = []
        samples: _Peekable | None = None
        start, total = 0, self._source.num_samples[split]
        while start < total:
            name = f"{split}-{len(shards):06d}.tar"
            info = self._finished.shards.get(name)
            if info is not None:
                samples, count, future = None, info.num_samples, Future[ShardInfo]()
                future.set_result(info)
                self._told.more(count)
            else:
                samples = samples or _Peekable(self._loaded(split, start))
                batch = list(_take(samples, self._limit_bytes, self._settings.shard_samples))
                count, future = len(batch), self._writers.submit(self._write, batch, name, split)
            shards.append(future)
            start += count
            running = [shard for shard in shards if not shard.done()]
            if len(running) > self._shards_ahead:
                running[0].result()
        return [shard.result() for shard in shards]

    def _loaded(self, split: str, start: int) -> Iterator[PackSample]:
        """Samples in order, a few of them being read ahead."""
        loads, ahead = self._source.samples(split, start), deque[Future[PackSample]]()
        for load in loads:
            ahead.append(self._readers.submit(self._load, load))
            if len(ahead) > self._samples_ahead:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _load(self, load: LoadSample) -> PackSample:
        key, members = load()
        self._told.more(1)
        return key, reencoded(members, self._settings.reencode)

    def _write(self, samples: Sequence[PackSample], name: str, split: str) -> ShardInfo:
        data = tar_bytes(samples)
        self._store.write(name, data)
        info = ShardInfo(
            name=name,
            split=split,
            num_samples=len(samples),
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        self._finished.add(info)
        return info


class _Finished:
    """Which shards are finished: one small object for each beside them, until the manifest is written."""

    def __init__(self, store: Store, plan: str) -> None:
        self._store, self._plan = store, plan
        self.shards: dict[str, ShardInfo] = {}
        for found in store.list(f"{FINISHED}/"):
            entry = self._read(found.key)
            if entry is None:
                continue
            if entry["plan"] != plan:
                raise OtherPackingError(
                    f"{store.uri}: another source, or this one with other settings, was being packed here; finish "
                    "that, remove what is there, or choose another place"
                )
            info = ShardInfo(**entry["shard"])
            if _is_there(store, info):
                self.shards[info.name] = info

    def add(self, info: ShardInfo) -> None:
        """Note a shard that is written."""
        text = json.dumps({"plan": self._plan, "shard": asdict(info)}).encode()
        self._store.write(f"{FINISHED}/{info.name}.json", text)

    def forget(self) -> None:
        """Remove the notes: the manifest says all."""
        for found in self._store.list(f"{FINISHED}/"):
            self._store.delete(found.key)

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            entry: dict[str, Any] = json.loads(self._store.read(key))
        except (NotFoundError, ValueError):
            return None
        return entry if isinstance(entry, dict) and {"plan", "shard"} <= entry.keys() else None


def _is_there(store: Store, info: ShardInfo) -> bool:
    try:
        return store.info(info.name).size_bytes == info.size_bytes
    except NotFoundError:
        return False


def _plan_hash(source: PackSource, settings: PackSettings) -> str:
    """What decides every byte that is packed: another plan cannot go on from the shards of this one."""
    decisive = {name: value for name, value in asdict(settings).items() if name != "workers"}
    return hashlib.sha256(json.dumps([source.fingerprint, decisive], sort_keys=True).encode()).hexdigest()


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


def tar_bytes(samples: Sequence[PackSample]) -> bytes:
    """A tar whose bytes depend on the samples alone."""
    webdataset, out = secure_webdataset(), io.BytesIO()
    with webdataset.TarWriter(out, user="", group="", mode=0o444, encoder=False, mtime=0) as writer:
        for key, members in samples:
            writer.write({"__key__": key, **members})
    return out.getvalue()


class _Told:
    """Tells how far the packing is, every few seconds; used by several threads."""

    def __init__(self, progress: Progress | None, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._count = progress, what, total, 0
        self._lock = threading.Lock()
        self._next_s = time.monotonic() + 1.0
        if progress is not None:
            progress(f"{what}: {counted(total, 'image')}")

    def more(self, count: int) -> None:
        with self._lock:
            self._count += count
            now_s = time.monotonic()
            if self._progress is not None and now_s >= self._next_s:
                self._progress(f"{self._what}: {self._count:,} of {counted(self._total, 'image')}")
                self._next_s = now_s + _PROGRESS_EVERY_S
