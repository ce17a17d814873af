"""Where the members of a tar shard are, so that a sample is one `pread` and a shard is walked once.

Reads headers only and unpacks nothing: regular files alone, names only as keys, sizes bounded, every header's checksum
verified, the end marker required, so that a truncated tar is noticed rather than read as a shorter one. The walk's
result is kept as JSON in the cache under the shard's hash.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.manifest import DamagedShardError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
LABEL_EXTENSIONS = ("json", "cls")
"""Read in this order: what `.cls` says stands."""
MAX_MEMBER_BYTES = 256 * 2**20
MAX_NAME_BYTES = 4096
_BLOCK_BYTES = 512
_FETCH, _PACK = "fetch or pack it again", "pack the data again"
_FORMAT = 2
_REGULAR = (b"0", b"\0")
_LONG_NAME, _PAX, _PAX_GLOBAL = b"L", b"x", b"g"
_SPLIT_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)

Spans = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One regular file of a tar: where its bytes are."""

    name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The samples of a shard, in order: key, image and labels as (offset, size); (-1, -1) where there is none.

    `damage` says why nothing could be read from byte `damage_offset` on; empty for a sound shard.
    """

    keys: tuple[str, ...]
    extensions: tuple[str, ...]
    images_N2: Spans
    labels_N2: Mapping[str, Spans] = field(default_factory=dict)
    damage: str = ""
    damage_offset: int = 0

    def to_json(self) -> bytes:
        """The file kept in the cache."""
        data: dict[str, Any] = {
            "format": _FORMAT,
            "keys": self.keys,
            "extensions": self.extensions,
            "images": self.images_N2.tolist(),
            "labels": {name: spans.tolist() for name, spans in self.labels_N2.items()},
            "damage": [self.damage, self.damage_offset],
        }
        return json.dumps(data, separators=(",", ":")).encode()


def parse_index(text: bytes) -> ShardIndex | None:
    """Read a kept index; None when it is of another format or damaged."""
    try:
        data = json.loads(text)
        if data["format"] != _FORMAT:
            return None
        count = len(data["keys"])
        index = ShardIndex(
            keys=tuple(data["keys"]),
            extensions=tuple(data["extensions"]),
            images_N2=_spans(data["images"]),
            labels_N2={name: _spans(spans) for name, spans in data["labels"].items()},
            damage=str(data["damage"][0]),
            damage_offset=int(data["damage"][1]),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    sizes = {len(index.images_N2), len(index.extensions), *(len(spans) for spans in index.labels_N2.values())}
    return index if sizes == {count} else None


def build_index(descriptor: int, where: str) -> ShardIndex:
    """Walk a tar once and group its members into samples.

    A sample is a run of members with the same key, as in WebDataset; one without an image is left out. Of a tar that
    is truncated or damaged after its first sample, those before the damage are kept and the damage is noted.

    Raises:
        DamagedShardError: Compressed, not a tar, or nothing before the damage can be read.
    """
    keys: list[str] = []
    extensions: list[str] = []
    images: list[tuple[int, int]] = []
    labels: dict[str, list[tuple[int, int]]] = {name: [] for name in LABEL_EXTENSIONS}
    damage, damage_offset = "", 0
    try:
        for key, members in group_members(walk_tar(descriptor, where), where):
            extension = image_extension(members)
            if extension is None:
                continue
            keys.append(key)
            extensions.append(extension)
            images.append((members[extension].offset, members[extension].size_bytes))
            for name, spans in labels.items():
                member = members.get(name)
                spans.append((-1, -1) if member is None else (member.offset, member.size_bytes))
    except DamagedShardError as err:
        if not keys:
            raise
        damage, damage_offset = err.reason, err.offset
    return ShardIndex(
        keys=tuple(keys),
        extensions=tuple(extensions),
        images_N2=_spans(images),
        labels_N2={name: _spans(spans) for name, spans in labels.items()},
        damage=damage,
        damage_offset=damage_offset,
    )


def image_extension(members: Mapping[str, Any]) -> str | None:
    """The extension of a sample's image: a plain one first (`jpg`), else the first that ends in one (`left.jpg`)."""
    plain = next((extension for extension in IMAGE_EXTENSIONS if extension in members), None)
    if plain is not None:
        return plain
    return next((name for name in sorted(members) if name.rpartition(".")[2] in IMAGE_EXTENSIONS), None)


def group_members(members: Iterator[Member], where: str) -> Iterator[tuple[str, dict[str, Member]]]:
    """Runs of members with the same key, by lower-case extension; names that are no keys are left out."""
    current, sample = "", dict[str, Member]()
    for member in members:
        match = _SPLIT_NAME.fullmatch(member.name)
        if match is None or member.name.startswith("__") or _is_unsafe(member.name):
            continue
        key, extension = match.group(1), match.group(2).lower()
        if sample and key != current:
            yield current, sample
            sample = {}
        if extension in sample:
            raise DamagedShardError(
                where, f"two members named {member.name[:120]!r} in one sample", _PACK, member.offset
            )
        current = key
        sample[extension] = member
    if sample:
        yield current, sample


def walk_tar(descriptor: int, where: str) -> Iterator[Member]:
    """The regular files of an open tar, by reading its headers.

    Raises:
        DamagedShardError: Truncated, damaged, compressed or not a tar.
    """
    end = os.fstat(descriptor).st_size
    position, override = 0, dict[str, str]()
    while True:
        header = os.pread(descriptor, _BLOCK_BYTES, position)
        if header == bytes(_BLOCK_BYTES):
            return
        kind, name, size = _parse_header(header, where, position)
        data_start = position + _BLOCK_BYTES
        if kind in (_LONG_NAME, _PAX):
            text = _read_small(descriptor, data_start, size, where)
            override |= _parse_extension(kind, text, where, position)
        elif kind != _PAX_GLOBAL:
            size = int(override.get("size", size))
            if kind in _REGULAR and not name.endswith("/") and "GNU.sparse.major" not in override:
                _check_size(size, where, position)
                yield Member(name=override.get("path", name), offset=data_start, size_bytes=size)
            override = {}
        position = data_start + -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
        if position > end:
            raise DamagedShardError(where, f"truncated at byte {end} of at least {position}", _FETCH, end)


def _parse_header(header: bytes, where: str, position: int) -> tuple[bytes, str, int]:
    """Kind, name and size of a header block whose checksum fits."""
    if position and len(header) < _BLOCK_BYTES:
        end = position + len(header)
        raise DamagedShardError(where, f"ends at byte {end} without the end marker, truncated", _FETCH, end)
    try:
        checksum = _number(header[148:156])
        is_sound = checksum == sum(header[:148]) + 256 + sum(header[156:])
    except (ValueError, IndexError):
        is_sound = False
    if not is_sound:
        remedy = "shards are plain, uncompressed tar files" if position == 0 else _FETCH
        raise DamagedShardError(where, f"no tar header at byte {position}", remedy, position)
    try:
        size = _number(header[124:136])
    except ValueError:
        size = -1
    if size < 0:
        raise DamagedShardError(where, f"a member of impossible size at byte {position}", _FETCH, position)
    name, prefix = _text(header[:100]), _text(header[345:500]) if header[257:262] == b"ustar" else ""
    if header[257:265] == b"ustar  \0":  # the old GNU format keeps times where others keep the prefix
        prefix = ""
    return header[156:157], f"{prefix}/{name}" if prefix else name, size


def _parse_extension(kind: bytes, data: bytes, where: str, position: int) -> dict[str, str]:
    """What a GNU long name or a pax header says about the next member."""
    if kind == _LONG_NAME:
        return {"path": _text(data)}
    found, rest = dict[str, str](), data.rstrip(b"\0")
    while rest:
        length_text, _, _ = rest.partition(b" ")
        if not length_text.isdigit() or not len(length_text) < int(length_text) <= len(rest):
            raise DamagedShardError(where, "a damaged pax header", _FETCH, position)
        record, rest = rest[len(length_text) + 1 : int(length_text) - 1], rest[int(length_text) :]
        name, _, value = record.partition(b"=")
        found[name.decode(errors="replace")] = value.decode(errors="replace")
    if not found.get("size", "0").isdigit():
        raise DamagedShardError(where, "a damaged pax header", _FETCH, position)
    return found


def _read_small(descriptor: int, start: int, size: int, where: str) -> bytes:
    if size > 16 * MAX_NAME_BYTES:
        raise DamagedShardError(where, f"a member's name takes {size} bytes", _FETCH, start)
    return os.pread(descriptor, size, start)


def _check_size(size: int, where: str, position: int) -> None:
    if size > MAX_MEMBER_BYTES:
        limit_mb = MAX_MEMBER_BYTES // 2**20
        remedy = f"members are at most {limit_mb} MB"
        raise DamagedShardError(where, f"a member of {size} bytes at byte {position}", remedy, position)


def _number(field_bytes: bytes) -> int:
    """A header's number: octal, or binary as GNU tar writes large ones."""
    if field_bytes[0] & 0x80:
        return int.from_bytes(bytes([field_bytes[0] & 0x7F]) + field_bytes[1:], "big")
    return int(field_bytes.strip(b" \0") or b"0", 8)


def _text(field_bytes: bytes) -> str:
    return field_bytes.split(b"\0", 1)[0].decode(errors="replace")


def _is_unsafe(name: str) -> bool:
    parts = name.split("/")
    return name.startswith("/") or ".." in parts or len(name) > MAX_NAME_BYTES or "\0" in name


def _spans(values: Any) -> Spans:
    return np.asarray(values, dtype=np.int64).reshape(-1, 2)
