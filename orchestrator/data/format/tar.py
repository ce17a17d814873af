"""The members of a tar file, by reading its headers: nothing is unpacked.

Reads ustar, GNU and pax headers; every header's checksum is verified. What follows an end marker is read too, since
several tars may lie in one file (`cat a.tar b.tar`); the end marker must be there, so that a truncated tar is noticed.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.data.format.manifest import DamagedShardError
from orchestrator.data.format.notes import NoteCounter

MAX_MEMBER_BYTES = 256 * 2**20
MAX_NAME_BYTES = 4096
_BLOCK_BYTES = 512
_ZEROS_BYTES = 2**16
_FETCH = "fetch or pack it again"
_REGULAR = (b"0", b"\0", b"7")
_HARD_LINK, _SYMBOLIC_LINK = b"1", b"2"
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_LONG_NAME, _LONG_TARGET, _PAX, _PAX_GLOBAL, _SPARSE = b"L", b"K", b"x", b"g", b"S"
_PAX_SPARSE = "GNU.sparse."
_SPARSE_GOES_ON_AT = {True: 482, False: 504}
"""Where a block says that another one with parts of a sparse file follows: in the header, and in those that follow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A regular file of a tar: where its bytes are. A link has a `target`, the name of a member, and no bytes."""

    name: str
    offset: int
    size_bytes: int
    target: str = ""


def walk_tar(descriptor: int, where: str, notes: NoteCounter | None = None) -> Iterator[Member]:
    """The regular files and links of an open tar; members that cannot be read are counted in `notes`.

    Raises:
        DamagedShardError: Truncated, damaged, compressed or not a tar.
    """
    notes = NoteCounter() if notes is None else notes
    end = os.fstat(descriptor).st_size
    position, override = 0, dict[str, str]()
    while True:
        header = os.pread(descriptor, _BLOCK_BYTES, position)
        if header == bytes(_BLOCK_BYTES):
            following = _after_end_marker(descriptor, position, notes)
            if following is None:
                return
            position, override = following, {}
            continue
        kind, name, size = _parse_header(header, where, position)
        data_start = position + _BLOCK_BYTES
        if kind in (_LONG_NAME, _LONG_TARGET, _PAX):
            text = _read_small(descriptor, data_start, size, where)
            override |= _parse_extension(kind, text, where, position)
        elif kind != _PAX_GLOBAL:
            if kind == _SPARSE:
                data_start = _after_sparse_headers(descriptor, header, data_start)
            size = 0 if kind in _WITHOUT_DATA else int(override.get("size", size))
            _check_size(size, data_start, end, where, position)
            member = Member(
                name=override.get("path", name),
                offset=data_start,
                size_bytes=size,
                target=_target(kind, header, override),
            )
            reason = _unread(kind, member, override)
            if reason is None:
                yield member
            elif reason:
                notes.add(reason, override.get(f"{_PAX_SPARSE}name", member.name))
            override = {}
        position = data_start + -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
        if position > end:
            raise DamagedShardError(where, f"truncated at byte {end} of at least {position}", _FETCH, end)


def _after_end_marker(descriptor: int, position: int, notes: NoteCounter) -> int | None:
    """Where the next tar in the same file begins after a block of zeros; None when there is none."""
    while block := os.pread(descriptor, _ZEROS_BYTES, position):
        num_zeros = len(block) - len(block.lstrip(b"\0"))
        position += num_zeros if num_zeros == len(block) else num_zeros // _BLOCK_BYTES * _BLOCK_BYTES
        if num_zeros < len(block):
            is_header = _is_sound(os.pread(descriptor, _BLOCK_BYTES, position))
            notes.add("concatenated" if is_header else "after_end", f"byte {position:,}")
            return position if is_header else None
    return None


def _unread(kind: bytes, member: Member, override: Mapping[str, str]) -> str | None:
    """Why a member is not read: a kind of note, or nothing for folders and devices; None for one that is."""
    if member.target:
        return None
    if kind == _SPARSE or any(key.startswith(_PAX_SPARSE) for key in override):
        return "sparse"
    if kind not in _REGULAR or member.name.endswith("/"):
        return ""
    return None if member.size_bytes <= MAX_MEMBER_BYTES else "too_large"


def _target(kind: bytes, header: bytes, override: Mapping[str, str]) -> str:
    """The member that a link leads to: a hard one names it, a symbolic one names a place beside itself."""
    if kind not in (_HARD_LINK, _SYMBOLIC_LINK):
        return ""
    target = override.get("linkpath", _text(header[157:257]))
    if kind == _SYMBOLIC_LINK and not target.startswith("/"):
        folder = posixpath.dirname(override.get("path", _text(header[:100])))
        target = posixpath.normpath(posixpath.join(folder, target))
    return target or "(nothing)"


def _after_sparse_headers(descriptor: int, header: bytes, position: int) -> int:
    """Where the data of a sparse member begins."""
    block, is_first = header, True
    while len(block) == _BLOCK_BYTES and block[_SPARSE_GOES_ON_AT[is_first]]:
        block, is_first = os.pread(descriptor, _BLOCK_BYTES, position), False
        position += _BLOCK_BYTES
    return position


def _parse_header(header: bytes, where: str, position: int) -> tuple[bytes, str, int]:
    """Kind, name and size of a header block whose checksum fits."""
    if position and len(header) < _BLOCK_BYTES:
        end = position + len(header)
        raise DamagedShardError(where, f"ends at byte {end} without the end marker, truncated", _FETCH, end)
    if not _is_sound(header):
        remedy = "shards are plain, uncompressed tar files" if position == 0 else _FETCH
        what = "empty, no tar" if not header else f"no tar header at byte {position}"
        raise DamagedShardError(where, what, remedy, position)
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


def _is_sound(header: bytes) -> bool:
    """Whether a block is a header with its checksum; some old writers summed signed bytes."""
    try:
        checksum = _number(header[148:156])
    except (ValueError, IndexError):
        return False
    others = header[:148] + header[156:]
    total = sum(others) + 256
    return checksum == total or checksum == total - 256 * sum(byte > 127 for byte in others)


def _parse_extension(kind: bytes, data: bytes, where: str, position: int) -> dict[str, str]:
    """What a GNU long name or a pax header says about the next member."""
    if kind in (_LONG_NAME, _LONG_TARGET):
        return {"path" if kind == _LONG_NAME else "linkpath": _text(data)}
    found, rest = dict[str, str](), data.rstrip(b"\0")
    while rest:
        length_text, _, _ = rest.partition(b" ")
        if not length_text.isdigit() or not len(length_text) < int(length_text) <= len(rest):
            raise DamagedShardError(where, "a damaged pax header", _FETCH, position)
        record, rest = rest[len(length_text) + 1 : int(length_text) - 1], rest[int(length_text) :]
        name, _, value = record.partition(b"=")
        found[name.decode(errors="replace")] = value.decode(errors="backslashreplace")
    if not found.get("size", "0").isdigit():
        raise DamagedShardError(where, "a damaged pax header", _FETCH, position)
    return found


def _read_small(descriptor: int, start: int, size: int, where: str) -> bytes:
    if size > 16 * MAX_NAME_BYTES:
        raise DamagedShardError(where, f"a member's name takes {size} bytes", _FETCH, start)
    return os.pread(descriptor, size, start)


def _check_size(size: int, data_start: int, end: int, where: str, position: int) -> None:
    """Refuse a member that is too large to be read and cannot be in the file at all."""
    if size > MAX_MEMBER_BYTES and data_start + size > end:
        limit_mb = MAX_MEMBER_BYTES // 2**20
        remedy = f"members are at most {limit_mb} MB"
        raise DamagedShardError(where, f"a member of {size} bytes at byte {position}", remedy, position)


def _number(field_bytes: bytes) -> int:
    """A header's number: octal, or binary as GNU tar writes large ones."""
    if field_bytes[0] & 0x80:
        return int.from_bytes(bytes([field_bytes[0] & 0x7F]) + field_bytes[1:], "big")
    return int(field_bytes.strip(b" \0") or b"0", 8)


def _text(field_bytes: bytes) -> str:
    """A name; bytes that are no UTF-8 stay apart from one another."""
    return field_bytes.split(b"\0", 1)[0].decode(errors="backslashreplace")
