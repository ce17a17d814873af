"""Shards that somebody else wrote: found by name, indexed once, described by a manifest in the cache.

Reads what `webdataset` reads: tar files of `key.jpg|png|webp` with `.cls` or `.json` beside it, several extensions a
sample, brace patterns, and patterns of a shell. What cannot be used is counted in the manifest's notes. Nothing is
copied or changed; only plain tar files are taken, never `pipe:` and its kin.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.data.format import (
    Cache,
    DamagedShardError,
    LabelCount,
    Manifest,
    Note,
    NoteCounter,
    OpenShard,
    ShardInfo,
    build_index,
    hash_descriptor,
)
from orchestrator.data.pack.sources import HELD_OUT_NAMES, key_hash, split_name
from orchestrator.data.pack.write import Progress
from orchestrator.errors import DataError
from orchestrator.storage import Store
from orchestrator.text import counted

MAX_SHARDS = 1_000_000
MIN_SHARDS_TO_SPLIT = 10
GLOB = re.compile(r"[*?]|\[[^\]]+\]")
COMPRESSED = tuple(
    [".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.lz4"]
)
_RULES = 2
"""Raised when shards are read by other rules: what was described by earlier ones is described again."""
_NAME_CHARACTERS = 16
_SPECIAL = re.compile(r"[{*?\[]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def split_pattern(uri: str) -> tuple[str, list[str] | None]:
    """A URI that names tar files: the folder, and the names below it; names are None where it names a folder.

    `dir/part-{000..099}.tar` names a hundred, `dir/a.tar` one, `dir/*.tar` those that `find_tars` finds.

    Raises:
        DataError: A pattern that cannot be expanded.
    """
    is_local = "://" not in uri
    if not uri.lower().endswith(".tar") and (
        not {"*", "{"} & set(uri) or (is_local and Path(uri).expanduser().exists())
    ):
        return uri.rstrip("/") or uri, None
    if is_local and Path(uri).expanduser().is_dir():
        return uri, None
    is_one = is_local and Path(uri).expanduser().is_file()
    plain = uri if is_one else uri[: match.start()] if (match := _SPECIAL.search(uri)) else uri
    folder, slash, _ = plain.rpartition("/")
    if not slash:
        folder, rest = ".", uri
    else:
        rest = uri[len(folder) + 1 :]
    return folder or "/", [rest] if is_one else expand_braces(rest)


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
    if any("}" in name for name in names) or not 0 < len(names) <= MAX_SHARDS:
        raise DataError(f"{pattern}: cannot be expanded; write `name-{{000..099}}.tar`")
    return list(dict.fromkeys(names))


def find_tars(store: Store, names: Sequence[str] | None) -> list[str]:
    """The keys of the tar files: those named, else all below the store. A name may be a pattern with `*`, `?`, `[ab]`.

    Raises:
        DataError: A named one is missing, nothing fits a pattern, or only compressed ones are there.
    """
    listed = [info.key for info in store.list()]
    tars = sorted(key for key in listed if key.lower().endswith(".tar") and not _is_hidden(key))
    if names is not None:
        return _named_tars(store, names, frozenset(listed), tars)
    compressed = next((key for key in sorted(listed) if key.endswith(COMPRESSED)), None)
    if not tars and compressed is not None:
        raise DataError(
            f"{store.uri}/{compressed}: compressed shards cannot be read by offset; unpack them to .tar"
        )
    return tars


def _named_tars(store: Store, names: Sequence[str], listed: frozenset[str], tars: Sequence[str]) -> list[str]:
    patterns = [name for name in names if name not in listed and GLOB.search(name)]
    missing = [name for name in names if name not in listed and name not in patterns]
    if missing:
        is_tar = missing[0].lower().endswith(".tar")
        raise DataError(
            f"{store.uri}: {_missing_text(missing, len(names))}"
            + ("; name only shards that are there" if is_tar else "; name .tar files, or give a folder")
        )
    found = [name for name in names if name in listed]
    for pattern in patterns:
        fitting = [key for key in tars if _glob_pattern(pattern).fullmatch(key)]
        if not fitting:
            there = f"{counted(len(tars), '.tar file')}, the first is {tars[0]}" if tars else "no .tar file"
            are = "are" if len(tars) > 1 else "is"
            raise DataError(
                f"{store.uri}/{pattern}: no shard fits this pattern; below {store.uri} there {are} {there}: write the "
                "folder, or a range like `name-{000..099}.tar`"
            )
        found += fitting
    return list(dict.fromkeys(found))


def _missing_text(missing: Sequence[str], num_named: int) -> str:
    if num_named == 1:
        return f"there is no shard {missing[0]}"
    are = "are" if len(missing) > 1 else "is"
    return f"{len(missing):,} of {num_named:,} shards {are} missing, the first is {missing[0]}"


def _is_hidden(key: str) -> bool:
    """Whether a file is one of those that macOS lays beside each file."""
    return key.rpartition("/")[2].startswith("._")


def _glob_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of a shell: `*` and `?` stay within a folder, `**` does not."""
    parts = re.split(r"(\*\*/?|\*|\?|\[[^\]/]+\])", pattern)
    known = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    translated = [
        known.get(part)
        or (f"[{part[1:-1].replace('!', '^', 1)}]" if part.startswith("[") else re.escape(part))
        for part in parts
    ]
    return re.compile("".join(translated), re.DOTALL)


def listing_notes(store: Store, keys: Sequence[str]) -> tuple[Note, ...]:
    """Shards of a folder that are not read: compressed ones, links to nothing."""
    notes = NoteCounter()
    tars = frozenset(keys)
    for info in store.list():
        key = info.key
        compressed = next((ending for ending in COMPRESSED if key.endswith(ending)), None)
        if compressed is not None:
            is_copy = f"{key.removesuffix(compressed)}.tar" in tars
            notes.add("compressed_copy" if is_copy else "compressed", key)
    place = store.local_path("x")
    if place is not None:
        _note_links(place.parent, notes)
    return notes.notes()


def _note_links(root: Path, notes: NoteCounter) -> None:
    """Count links below a local folder that lead to nothing, and linked folders that hold shards."""
    for folder, folders, names in os.walk(root):
        for path in (Path(folder, name) for name in sorted((*folders, *names))):
            if not path.is_symlink():
                continue
            if path.suffix.lower() == ".tar" and not os.path.exists(path):
                notes.add("broken_link", path.relative_to(root).as_posix())
            elif path.is_dir() and next(path.rglob("*.tar"), None) is not None:
                notes.add("linked_folder", path.relative_to(root).as_posix())


def describe_tars(
    store: Store,
    keys: Sequence[str],
    cache: Cache,
    progress: Progress | None,
    *,
    beside: Sequence[Note] = (),
) -> Manifest:
    """Read every shard once: count, hash, index (kept in the cache), the labels it carries, and what it lacks.

    Shards of which nothing can be read are left out and noted, as is what was found `beside` them.

    Raises:
        DataError: No shard holds an image.
    """
    shards: list[ShardInfo] = []
    labels, notes = LabelCount(), NoteCounter()
    splits = assign_splits(keys)
    for number, key in enumerate(keys):
        if progress is not None and number % 50 == 0:
            progress(f"indexing {store.uri}: {number:,} of {counted(len(keys), 'shard')}")
        try:
            info, opened = _describe(store, key, splits[key], cache)
        except DamagedShardError as err:
            notes.add("unreadable", f"{key}: {err.reason}")
            continue
        if info.num_samples:
            shards.append(info)
        describe_shard(opened, labels, notes)
    num_samples = sum(shard.num_samples for shard in shards)
    if not num_samples:
        known = "".join(f"\n  {note.text()}" for note in notes.notes())
        files = counted(len(keys), "tar file")
        raise DataError(
            f"{store.uri}: {files}, but no .jpg, .png or .webp that can be read in them; check the source{known}"
        )
    shards.sort(key=lambda shard: (shard.split != "train", shard.split, shard.name))
    found, label_notes = labels.result()
    every = NoteCounter((*notes.notes(), *beside, *label_notes)).notes()
    return Manifest(shards=tuple(shards), labels=found, base_uri=store.uri, notes=every)


def describe_shard(opened: OpenShard, labels: LabelCount, notes: NoteCounter) -> None:
    """Count what one shard holds: its labels, and what is known to be lost or unusual in it."""
    index, shard = opened.index, opened.info.name
    if index.damage:
        notes.add("cut", f"{shard}: {index.damage}")
    notes.add_all(index.notes, shard)
    if not index.keys and not index.notes:
        notes.add("no_images", shard)
    for member, kind in opened.bad_images():
        notes.add(kind, f"{shard}: {index.keys[member]}.{index.extensions[member]}")
    for member, key in enumerate(index.keys):
        labels.add(opened.label_members(member), opened.info.split, f"{shard}: {key}")


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
        descriptor = open_local(path, where)
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


def open_local(path: Path, where: str) -> int:
    """A file descriptor of a local shard.

    Raises:
        DamagedShardError: It cannot be opened.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        reason = f"cannot be opened ({err.strerror or err})"
        raise DamagedShardError(where, reason, "check that it is there and may be read") from err


def described_name(store: Store, keys: Sequence[str], beside: Sequence[Note] = ()) -> str:
    """Names the description of these shards in the cache folder; other rules of reading make another one."""
    return f"foreign-{source_hash(store, keys, beside)[:_NAME_CHARACTERS]}"


def source_hash(store: Store, keys: Sequence[str], beside: Sequence[Note]) -> str:
    """A hash of the shards' places, sizes, etags and of what lies beside them: another one needs another manifest."""
    infos = {info.key: info for info in store.list()}
    hashed = hashlib.sha256(f"{_RULES}\0{store.uri}\0{beside}".encode(errors="surrogateescape"))
    for key in keys:
        hashed.update(f"{key}\0{infos[key].size_bytes}\0{infos[key].etag}\n".encode(errors="surrogateescape"))
    return hashed.hexdigest()
