"""Checking shards: against their manifest where there is one, each by itself otherwise.

Sizes, hashes, samples, what is lost and, on demand, every image and label. Always reads what is at the source.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.config.models import DataConfig, RunConfig
from orchestrator.data.format import DamagedShardError, Note, OpenShard, ShardInfo, ShardSet, build_index
from orchestrator.data.pack.prepare import SCENES, Located, describe_source, locate_source
from orchestrator.data.pack.survey import survey_source
from orchestrator.data.pack.write import Progress
from orchestrator.data.read import UndecodableError, decode_rgb
from orchestrator.errors import DataError, NotFoundError
from orchestrator.storage import hash_file
from orchestrator.text import counted


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
    notes: tuple[Note, ...] = ()
    """What is known beside the faults: nothing by which samples are lost now."""
    has_manifest: bool = True
    copy_uri: str = ""
    """Where the packed copy is that was checked, since the source itself holds no shards."""


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
        notes=shards.manifest.notes,
    )


def verify_source(
    config: RunConfig, *, decode: bool = False, progress: Progress | None = None
) -> Verification:
    """Check `data.source` itself: packed shards against their manifest, shards without one each by itself.

    What earlier runs have made of shards without a manifest, a description or a packed copy in the cache folder, is
    compared too.

    Raises:
        DataError: The source is missing, or holds no shards.
        StorageError: It cannot be reached.
    """
    survey = survey_source(config)
    found = None if config.data.source == SCENES else locate_source(config.data, config.storage)
    if found is not None and found.tars:
        return _verify_foreign(found, survey.shards, config.data, decode=decode, progress=progress)
    if survey.shards is None:
        raise DataError(f"{survey.text()}; pack them with `orchestrator shards pack`")
    verification = verify_shards(survey.shards, decode=decode, progress=progress)
    is_copy = found is None or not found.is_packed
    return replace(verification, copy_uri=survey.shards.uri) if is_copy else verification


def _verify_foreign(
    found: Located, made: ShardSet | None, data: DataConfig, *, decode: bool, progress: Progress | None
) -> Verification:
    fresh = describe_source(found, data, progress)
    infos, notes = fresh.manifest.shards, fresh.manifest.notes
    faults = [ShardFault(shard=found.store.uri, reason=note.text()) for note in notes if note.is_lost]
    if decode:
        faults += [
            fault for fault in verify_shards(fresh, decode=True, progress=progress).faults if fault.key
        ]
    if made is not None and made.store.uri == found.store.uri:
        now = {info.name: info.sha256 for info in infos}
        faults += [
            ShardFault(shard=info.name, reason="is not what it was when it was read first: fetch it again")
            for info in made.manifest.shards
            if now.get(info.name) != info.sha256
        ]
    elif made is not None:
        of_copy = verify_shards(made, decode=decode, progress=progress).faults
        faults += [replace(fault, shard=f"{made.uri}/{fault.shard}") for fault in of_copy]
    return Verification(
        num_shards=len(found.tars),
        num_samples=sum(info.num_samples for info in infos),
        faults=tuple(faults),
        notes=tuple(note for note in notes if not note.is_lost),
        has_manifest=False,
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
            faults.append(
                f"{counted(len(opened.index.keys), 'sample')} where the manifest says {info.num_samples}"
            )
        found_faults = [
            ShardFault(shard=info.name, reason=reason, offset=opened.index.damage_offset) for reason in faults
        ]
        found_faults += [
            ShardFault(shard=info.name, reason=note.text()) for note in opened.index.notes if note.is_lost
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
