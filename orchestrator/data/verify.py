"""Checking a shard set against its manifest: sizes, hashes, samples, labels and, on demand, every image."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.data.decode import UndecodableError, decode_rgb
from orchestrator.data.index import build_index
from orchestrator.data.manifest import DamagedShardError, ShardInfo
from orchestrator.data.pack import Progress
from orchestrator.data.shardset import OpenShard, ShardSet
from orchestrator.errors import DataError, NotFoundError
from orchestrator.storage import hash_file


@dataclass(frozen=True, kw_only=True)
class ShardFault:
    """One thing that is wrong: with a shard, or with a sample of it when `key` is set."""

    shard: str
    reason: str
    key: str = ""
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked, and what was found."""

    num_shards: int
    num_samples: int
    faults: tuple[ShardFault, ...]


def verify_shards(
    shards: ShardSet, *, decode: bool = False, progress: Progress | None = None
) -> Verification:
    """Read every shard afresh from its store, not from the cache, and compare it with the manifest.

    `decode` also decodes every image and reads every label.

    Raises:
        StorageError: The store cannot be reached.
    """
    faults: list[ShardFault] = []
    for number, info in enumerate(shards.manifest.shards):
        if progress is not None:
            progress(
                f"verifying {shards.store.uri}: {info.name}, {number + 1:,} of {len(shards.manifest.shards):,}"
            )
        faults += _verify_one(shards, info, decode=decode)
    return Verification(
        num_shards=len(shards.manifest.shards),
        num_samples=sum(info.num_samples for info in shards.manifest.shards),
        faults=tuple(faults),
    )


def _verify_one(shards: ShardSet, info: ShardInfo, *, decode: bool) -> list[ShardFault]:
    path = shards.store.local_path(info.name)
    with shards.cache.scratch() if path is None else contextlib.nullcontext() as folder:
        try:
            if folder is not None:
                path = folder / "shard.tar"
                found = shards.store.download(info.name, path)
            else:
                assert path is not None
                found = hash_file(path)
            found_bytes = path.stat().st_size
        except (NotFoundError, FileNotFoundError):
            return [ShardFault(shard=info.name, reason="missing")]
        faults = []
        if found_bytes != info.size_bytes:
            faults.append(f"{found_bytes:,} bytes where the manifest says {info.size_bytes:,}")
        elif found != info.sha256:
            faults.append(f"sha256 {found[:12]} where the manifest says {info.sha256[:12]}")
        try:
            opened = _open(path, info)
        except DamagedShardError as err:
            return [ShardFault(shard=info.name, reason=reason) for reason in [*faults, err.reason]]
        if opened.index.damage:
            faults.append(opened.index.damage)
        if len(opened.index.keys) != info.num_samples:
            faults.append(f"{len(opened.index.keys)} samples where the manifest says {info.num_samples}")
        found_faults = [
            ShardFault(shard=info.name, reason=reason, offset=opened.index.damage_offset) for reason in faults
        ]
        return found_faults + (_verify_samples(shards, opened) if decode else [])


def _open(path: Path, info: ShardInfo) -> OpenShard:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return OpenShard(descriptor, build_index(descriptor, info.name), info)
    except BaseException:
        os.close(descriptor)
        raise


def _verify_samples(shards: ShardSet, opened: OpenShard) -> list[ShardFault]:
    faults = []
    for member in range(len(opened.index.keys)):
        try:
            sample = opened.sample(member)
            decode_rgb(sample.image)  # all of it: a crop would pass over damage that lies outside
            opened.checked_labels(member, shards.labels)
            opened.checked_amounts(member, shards.amounts)
        except (UndecodableError, DataError) as err:
            offset = int(opened.index.images_N2[member, 0])
            key = opened.index.keys[member]
            faults.append(ShardFault(shard=opened.info.name, reason=str(err), key=key, offset=offset))
    return faults
