"""Where the samples of a tar shard are, so that a sample is one `pread` and a shard is walked once.

Groups what `tar` finds into samples by key. A key ends at the first dot of a name, as in WebDataset, or at the last one
where the names of a shard only make sense so (`2024.05.00001.jpg`). What is left out or ambiguous is counted in
`notes`. The result is kept as JSON in the cache under the shard's hash.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.format.manifest import DamagedShardError
from orchestrator.data.format.notes import Note, NoteCounter, parse_notes
from orchestrator.data.format.tar import MAX_NAME_BYTES, Member, walk_tar

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
JPEG_ALIASES = ("jfif", "jpe", "jif")
"""Other extensions of JPEG files; inside a shard that we write they are `.jpg`."""
UNREAD_EXTENSIONS = (
    *("bmp", "tif", "tiff", "gif", "heic", "heif", "avif"),
    *("jp2", "jxl", "ppm", "pgm", "dng"),
)
"""Images of formats that are not read."""
LABEL_EXTENSIONS = ("txt", "json", "cls")
"""Read in this order: what `.cls` says stands."""
_FORMAT = 3
_MAX_LINKS = 16

Spans = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The samples of a shard, in order: key, image and labels as (offset, size); (-1, -1) where there is none.

    `damage` says why nothing could be read from byte `damage_offset` on; empty for a sound shard. `notes` counts what
    was left out for other reasons.
    """

    keys: tuple[str, ...]
    extensions: tuple[str, ...]
    images_N2: Spans
    labels_N2: Mapping[str, Spans] = field(default_factory=dict)
    damage: str = ""
    damage_offset: int = 0
    notes: tuple[Note, ...] = ()

    def to_json(self) -> bytes:
        """The file kept in the cache."""
        data: dict[str, Any] = {
            "format": _FORMAT,
            "keys": self.keys,
            "extensions": self.extensions,
            "images": self.images_N2.tolist(),
            "labels": {name: spans.tolist() for name, spans in self.labels_N2.items()},
            "damage": [self.damage, self.damage_offset],
            "notes": [note.to_json() for note in self.notes],
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
            notes=parse_notes(data["notes"]),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    sizes = {len(index.images_N2), len(index.extensions), *(len(spans) for spans in index.labels_N2.values())}
    return index if sizes == {count} else None


def build_index(descriptor: int, where: str) -> ShardIndex:
    """Walk a tar once and group its members into samples, in the order in which their keys first appear.

    A sample without an image is left out. Of a tar that is truncated or damaged after its first sample, those before
    the damage are kept and the damage is noted.

    Raises:
        DamagedShardError: Compressed, not a tar, or nothing before the damage can be read.
    """
    notes, members = NoteCounter(), list[Member]()
    damage: DamagedShardError | None = None
    try:
        for member in walk_tar(descriptor, where, notes):
            members.append(member)
    except DamagedShardError as err:
        damage = err
    named = _named(_resolved(members, notes), notes)
    if damage is not None and named:  # the last sample may have had more members
        named = [entry for entry in named if entry[0] != named[-1][0]]
    index = _indexed(_grouped(named, descriptor, notes), notes)
    if damage is None:
        return index
    if not index.keys:
        raise damage
    return replace(index, damage=damage.reason, damage_offset=damage.offset)


def image_extension(members: Mapping[str, Any]) -> str | None:
    """The extension of a sample's image: a plain one first (`jpg`), else the first that ends in one (`left.jpg`)."""
    plain = next((extension for extension in IMAGE_EXTENSIONS if extension in members), None)
    if plain is not None:
        return plain
    return next((name for name in sorted(members) if name.rpartition(".")[2] in IMAGE_EXTENSIONS), None)


_Named = tuple[str, str, Member]
"""Key, lower-case extension, and the member."""


def _resolved(members: Sequence[Member], notes: NoteCounter) -> list[Member]:
    """The members with each link as the file that it leads to within the shard; others are counted."""
    by_name, found = dict[str, Member](), list[Member]()
    links = any(member.target for member in members)
    if not links:
        return list(members)
    last = {_normal(member.name): member for member in members}
    for member in members:
        target = _followed(member, by_name, last)
        if target is not None:
            member = replace(target, name=member.name)
            by_name[_normal(member.name)] = member
            found.append(member)
        elif _extension(member.name) in (*IMAGE_EXTENSIONS, *LABEL_EXTENSIONS):
            notes.add("dead_link", f"{member.name} -> {member.target}")
    return found


def _followed(member: Member, earlier: Mapping[str, Member], last: Mapping[str, Member]) -> Member | None:
    """The file that a link leads to: an earlier member of that name, else a later one; None when there is none."""
    for _ in range(_MAX_LINKS):
        if not member.target:
            return member
        name = _normal(member.target)
        following = earlier.get(name) or last.get(name)
        if following is None:
            return None
        member = following
    return None


def _named(members: Iterable[Member], notes: NoteCounter) -> list[_Named]:
    """Key and extension of each member; names that are no keys are left out, images among them counted."""
    kept = []
    for member in members:
        name = _normal(member.name)
        reason = _no_key(name)
        if reason is None:
            kept.append((name, member))
        elif reason and _extension(name) in IMAGE_EXTENSIONS:
            notes.add(reason, member.name)
    split = _split_at_first_dot
    if _keys_hold_dots(name for name, _ in kept):
        split = _split_at_last_dot
        notes.add("dotted_keys", next(name for name, _ in kept if _basename(name).count(".") > 1))
    return [(*split(name), member) for name, member in kept]


def _no_key(name: str) -> str | None:
    """Why a name makes no key: a kind of note, or nothing where nobody would miss it; None for a good one."""
    base = _basename(name)
    if base.startswith("._") or name.startswith("__MACOSX/"):
        return "apple"
    if name.startswith("/") or ".." in name.split("/") or len(name) > MAX_NAME_BYTES:
        return "outside"
    if base.startswith("."):
        return "hidden"
    is_plain = "." in base and not base.endswith(".") and not (base.startswith("__") and base.endswith("__"))
    return None if is_plain else ""


def _keys_hold_dots(names: Iterable[str]) -> bool:
    """Whether the names of a shard only make sense when keys end at their last dot.

    What stands between the first and the last dot is a kind of member where it comes back under other keys
    (`a.left.png`, `b.left.png`) and no `.cls` goes with it alone, else part of the key (`2024.05.00001.jpg`).
    """
    keys_of = dict[str, set[str]]()
    extensions_of = dict[tuple[str, str], set[str]]()
    for name in names:
        if _basename(name).count(".") > 1:
            key, after = _split_at_first_dot(name)
            middle, _, last = after.rpartition(".")
            if last in (*IMAGE_EXTENSIONS, *LABEL_EXTENSIONS):
                keys_of.setdefault(middle, set()).add(key)
                extensions_of.setdefault((key, middle), set()).add(last)
    paired = {middle for (_, middle), found in extensions_of.items() if _is_labelled(middle, found)}
    num_keys = len({key for keys in keys_of.values() for key in keys})

    def is_kind(middle: str) -> bool:
        comes_back = len(keys_of[middle]) > 1 if num_keys > 1 else not _has_digit(middle)
        return comes_back and middle not in paired

    return sum(not is_kind(middle) for middle in keys_of) > len(keys_of) / 2


def _is_labelled(middle: str, extensions: set[str]) -> bool:
    """Whether an image has a label of its own; a `.left.json` may also describe a view."""
    if extensions.isdisjoint(IMAGE_EXTENSIONS):
        return False
    return "cls" in extensions or (_has_digit(middle) and not extensions.isdisjoint(LABEL_EXTENSIONS))


def _grouped(named: Iterable[_Named], descriptor: int, notes: NoteCounter) -> dict[str, dict[str, Member]]:
    """Members by key and extension; of several with the same name the last is kept, as when a tar is unpacked."""
    samples = dict[str, dict[str, Member]]()
    for key, extension, member in named:
        sample = samples.setdefault(key, {})
        if extension in sample:
            is_same = _content(descriptor, sample[extension]) == _content(descriptor, member)
            notes.add("same_twice" if is_same else "replaced", member.name)
        sample[extension] = member
    return samples


def _indexed(samples: Mapping[str, Mapping[str, Member]], notes: NoteCounter) -> ShardIndex:
    """The samples that have an image."""
    keys, extensions, images = list[str](), list[str](), list[tuple[int, int]]()
    labels: dict[str, list[tuple[int, int]]] = {name: [] for name in LABEL_EXTENSIONS}
    for key, members in samples.items():
        extension = image_extension(members)
        _note_images(members, extension, notes)
        if extension is None:
            continue
        keys.append(key)
        extensions.append(extension)
        images.append((members[extension].offset, members[extension].size_bytes))
        for name, spans in labels.items():
            member = members.get(name)
            spans.append((-1, -1) if member is None else (member.offset, member.size_bytes))
    labels_N2 = {name: _spans(spans) for name, spans in labels.items()}
    if not len(keys) or labels_N2["txt"].max() < 0:
        del labels_N2["txt"]
    return ShardIndex(
        keys=tuple(keys),
        extensions=tuple(extensions),
        images_N2=_spans(images),
        labels_N2=labels_N2,
        notes=notes.notes(),
    )


def _note_images(members: Mapping[str, Member], extension: str | None, notes: NoteCounter) -> None:
    """Count a sample that has no image, one in a format that is not read, or several."""
    if extension is None:
        unread = next((name for name in members if _extension(f".{name}") in UNREAD_EXTENSIONS), None)
        if unread is not None:
            notes.add("other_format", members[unread].name)
        elif "cls" in members:
            notes.add("label_alone", members["cls"].name)
        return
    is_plain = extension in IMAGE_EXTENSIONS
    others = [name for name in members if (name if is_plain else _extension(f".{name}")) in IMAGE_EXTENSIONS]
    if len(others) > 1:
        notes.add("several_images", f"{members[extension].name} is read")


def _normal(name: str) -> str:
    """A name without `./` and doubled slashes, so that a sample's members go together."""
    is_plain = "./" not in name and "//" not in name
    return name if is_plain or ".." in name.split("/") else posixpath.normpath(name)


def _split_at_first_dot(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", _plain(extension)


def _split_at_last_dot(name: str) -> tuple[str, str]:
    stem, _, extension = name.rpartition(".")
    return stem, _plain(extension)


def _plain(extension: str) -> str:
    """An extension in lower case, `jpg` for the rarer ones of JPEG."""
    extension = extension.lower()
    return "jpg" if extension in JPEG_ALIASES else extension


def _basename(name: str) -> str:
    return name.rpartition("/")[2]


def _extension(name: str) -> str:
    return _basename(name).rpartition(".")[2].lower()


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _content(descriptor: int, member: Member) -> bytes:
    return os.pread(descriptor, member.size_bytes, member.offset)


def _spans(values: Any) -> Spans:
    return np.asarray(values, dtype=np.int64).reshape(-1, 2)
