"""Shards that somebody else wrote: found by name, indexed once, described by a manifest in the cache.

Reads what `webdataset` reads: tar files of `key.jpg|png|webp` with `.cls` or `.json` beside it, several extensions a
sample, brace patterns. Nothing is copied or changed; only plain tar files are taken, never `pipe:` and its kin.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.data.cache import Cache, hash_descriptor
from orchestrator.data.index import build_index
from orchestrator.data.manifest import LabelInfo, Manifest, ShardInfo
from orchestrator.data.pack import Progress
from orchestrator.data.shardset import OpenShard
from orchestrator.data.sources import HELD_OUT_NAMES, key_hash, split_name
from orchestrator.errors import DataError
from orchestrator.storage import Store

MAX_SHARDS = 1_000_000
MIN_SHARDS_TO_SPLIT = 10
MAX_CLASSES = 100_000
_LABELLED_FRACTION = 0.99
_NAME_CHARACTERS = 16
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


@dataclass
class _LabelCounts:
    """What values a label takes over all samples."""

    num_samples: int = 0
    values: Counter[int] = field(default_factory=Counter)


def split_pattern(uri: str) -> tuple[str, list[str] | None]:
    """A URI that names tar files: the folder, and the names below it; names are None where it names a folder.

    `dir/part-{000..099}.tar` names a hundred, `dir/a.tar` one.

    Raises:
        DataError: A pattern that cannot be expanded.
    """
    if not uri.endswith(".tar"):
        return uri.rstrip("/"), None
    plain = uri.partition("{")[0]
    folder, slash, _ = plain.rpartition("/")
    if not slash:
        folder, rest = ".", uri
    else:
        rest = uri[len(folder) + 1 :]
    return folder or "/", expand_braces(rest)


def expand_braces(pattern: str) -> list[str]:
    """`a{00..02}` -> a00, a01, a02; `{x,y}` -> x, y; several multiply. Each name once.

    Raises:
        DataError: More than a million names, or braces that do not match.
    """
    names = [pattern]
    while any("{" in name for name in names):
        if len(names) > MAX_SHARDS:
            raise DataError(f"{pattern}: names more than {MAX_SHARDS:,} shards; give a folder instead")
        names = list(itertools.islice(itertools.chain.from_iterable(map(_expand_one, names)), MAX_SHARDS + 1))
    if any("}" in name for name in names) or len(names) > MAX_SHARDS:
        raise DataError(f"{pattern}: cannot be expanded; write `name-{{000..099}}.tar`")
    return list(dict.fromkeys(names))


def find_tars(store: Store, names: Sequence[str] | None) -> list[str]:
    """The keys of the tar files: those named, else all below the store.

    Raises:
        DataError: A named one is missing, or only compressed ones are there.
    """
    listed = {info.key for info in store.list()}
    if names is not None:
        missing = [name for name in names if name not in listed]
        if missing:
            raise DataError(
                f"{store.uri}: {len(missing)} of {len(names)} shards are missing, the first is {missing[0]}; "
                "name only shards that are there"
            )
        return list(names)
    tars = sorted(key for key in listed if key.endswith(".tar"))
    compressed = next((key for key in sorted(listed) if key.endswith(_COMPRESSED)), None)
    if not tars and compressed is not None:
        raise DataError(
            f"{store.uri}/{compressed}: compressed shards cannot be read by offset; unpack them to .tar"
        )
    return tars


def describe_tars(store: Store, keys: Sequence[str], cache: Cache, progress: Progress | None) -> Manifest:
    """Read every shard once: count, hash, index (kept in the cache) and the labels it carries.

    Raises:
        DataError: A shard is damaged, or none holds an image.
    """
    shards: list[ShardInfo] = []
    counts: dict[str, _LabelCounts] = {}
    splits = assign_splits(keys)
    for number, key in enumerate(keys):
        if progress is not None and number % 50 == 0:
            progress(f"indexing {store.uri}: {number:,} of {len(keys):,} shards")
        info, opened = _describe(store, key, splits[key], cache)
        shards.append(info)
        _count_labels(opened, counts)
    if not any(shard.num_samples for shard in shards):
        raise DataError(
            f"{store.uri}: {len(keys)} tar files, but no .jpg, .png or .webp in them; check the source"
        )
    shards.sort(key=lambda shard: (shard.split != "train", shard.split, shard.name))
    num_samples = sum(shard.num_samples for shard in shards)
    return Manifest(shards=tuple(shards), labels=_labels(counts, num_samples), base_uri=store.uri)


def assign_splits(keys: Sequence[str]) -> dict[str, str]:
    """The split of each shard by the words of its name: `train`, `val`, `test`, ...; `train` without any.

    Where nothing is held out and there are ten shards or more, one in ten is, chosen by the hashes of their names.
    """
    found = {}
    for key in keys:
        words = re.split(r"[^a-z]+", key.lower())
        found[key] = next(
            (name for name in HELD_OUT_NAMES if name in words and "train" not in words), "train"
        )
    held_out = sorted(set(found.values()) - {"train"})
    if held_out:
        return {key: name if name == "train" else split_name(name, held_out) for key, name in found.items()}
    if len(keys) >= MIN_SHARDS_TO_SPLIT:
        for key in sorted(keys, key=key_hash)[: len(keys) // 10]:
            found[key] = "test"
    return found


def _expand_one(name: str) -> Iterator[str]:
    match = _BRACES.search(name)
    if match is None:
        if "{" in name:
            raise DataError(f"{name}: cannot be expanded; write `name-{{000..099}}.tar`")
        return iter([name])
    bounds = _RANGE.fullmatch(match.group(1))
    parts: Iterator[str]
    if bounds is None:
        parts = iter(match.group(1).split(","))
    else:
        first, last = bounds.groups()
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        parts = (str(value).zfill(width) for value in range(int(first), int(last) + 1))
    return (name[: match.start()] + part + name[match.end() :] for part in parts)


def _describe(store: Store, key: str, split: str, cache: Cache) -> tuple[ShardInfo, OpenShard]:
    where = f"{store.uri}/{key}"
    path = store.local_path(key)
    if path is None:
        descriptor, sha256 = cache.adopt_shard(store, key)
    else:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        sha256 = hash_descriptor(descriptor)
    try:
        index = build_index(descriptor, where)
    except BaseException:
        os.close(descriptor)
        raise
    cache.write_index(sha256, index.to_json())
    size_bytes = os.fstat(descriptor).st_size
    info = ShardInfo(name=key, split=split, num_samples=len(index.keys), size_bytes=size_bytes, sha256=sha256)
    return info, OpenShard(descriptor, index, info)


def _count_labels(opened: OpenShard, counts: dict[str, _LabelCounts]) -> None:
    for member in range(len(opened.index.keys)):
        try:
            labels = opened.labels(member)
        except DataError:  # a damaged label: the sample is put into quarantine when a probe reads it
            continue
        has_class_file = opened.index.labels_N2["cls"][member, 0] >= 0
        for name, value in labels.items():
            if has_class_file and name != "class":
                continue
            entry = counts.setdefault(name, _LabelCounts())
            entry.num_samples += 1
            if len(entry.values) <= MAX_CLASSES:
                entry.values[value] += 1


def _labels(counts: dict[str, _LabelCounts], num_samples: int) -> dict[str, LabelInfo]:
    """The labels that nearly every sample carries and that look like classes.

    Numbers that hardly repeat (an identifier, a width) are left out.
    """
    found = {}
    for name, entry in sorted(counts.items()):
        low, high, distinct = min(entry.values), max(entry.values), len(entry.values)
        is_class = low >= 0 and high < MAX_CLASSES and 2 <= distinct <= max(2, num_samples // 2)
        if is_class and entry.num_samples >= _LABELLED_FRACTION * num_samples:
            names = tuple(str(value) for value in range(high + 1))
            found[name] = LabelInfo(num_classes=high + 1, class_names=names)
    return found


def described_name(store: Store, keys: Sequence[str]) -> str:
    """Names the description of these shards in the cache folder."""
    return f"foreign-{source_hash(store, keys)[:_NAME_CHARACTERS]}"


def source_hash(store: Store, keys: Sequence[str]) -> str:
    """A hash of the shards' places, sizes and etags: another one needs another manifest."""
    infos = {info.key: info for info in store.list()}
    hashed = hashlib.sha256(store.uri.encode())
    for key in keys:
        hashed.update(f"{key}\0{infos[key].size_bytes}\0{infos[key].etag}\n".encode())
    return hashed.hexdigest()
