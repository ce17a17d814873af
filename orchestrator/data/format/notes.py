"""What is known of a source beside its samples: what is left out of it, what is read otherwise than a user may think.

Each kind has its words and its remedy here. `lost` marks those by which samples of the source are missing: nothing goes
on over them unless it is allowed (`--allow-loss`, `data.allow_loss`), and then the manifest keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import DataError

_MAX_FIRST = 200


@dataclass(frozen=True, kw_only=True)
class _Words:
    """How a kind is told: for one, for several, and what to do about it."""

    one: str
    many: str
    remedy: str = ""
    lost: bool = False


def _lost(one: str, many: str, remedy: str) -> _Words:
    return _Words(one=one, many=many, remedy=remedy, lost=True)


_WORDS: Mapping[str, _Words] = {
    "unreadable": _lost(
        "shard cannot be read",
        "shards cannot be read",
        "fetch them again; shards are plain, uncompressed tar files",
    ),
    "cut": _lost(
        "shard is cut short or damaged; what follows the damage is lost",
        "shards are cut short or damaged; what follows the damage is lost",
        "fetch or pack them again",
    ),
    "after_end": _lost(
        "shard has bytes after its end marker that are no tar",
        "shards have bytes after their end marker that are no tar",
        "fetch or pack them again",
    ),
    "replaced": _lost(
        "member has the name of an earlier one and other content; the last is read",
        "members have the name of an earlier one and other content; the last is read",
        "give each sample a key of its own",
    ),
    "dead_link": _lost(
        "link leads to nothing in its shard",
        "links lead to nothing in their shards",
        "pack with `tar --dereference --hard-dereference`",
    ),
    "sparse": _lost(
        "sparse member is not read", "sparse members are not read", "pack without `tar --sparse`"
    ),
    "too_large": _lost(
        "member is larger than is read (256 MB)",
        "members are larger than is read (256 MB)",
        "shrink the images",
    ),
    "hidden": _lost(
        "image has a name that begins with a dot",
        "images have names that begin with a dot",
        "a key cannot begin with a dot: rename them",
    ),
    "other_format": _lost(
        "image is of a format that is not read",
        "images are of a format that is not read",
        "convert to JPEG, PNG or WebP",
    ),
    "empty_image": _lost("image is empty", "images are empty", "restore them, or take them out"),
    "no_image": _lost(
        "member is named as an image and holds none",
        "members are named as images and hold none",
        "restore them, or take them out",
    ),
    "compressed": _lost(
        "compressed shard is left out",
        "compressed shards are left out",
        "shards are read by offset: unpack them to .tar",
    ),
    "broken_link": _lost(
        "shard is a link to nothing", "shards are links to nothing", "restore what they lead to"
    ),
    "linked_folder": _lost(
        "linked folder with shards is not followed",
        "linked folders with shards are not followed",
        "give the folder that the link leads to, or move its shards",
    ),
    "compressed_copy": _Words(
        one="compressed shard lies beside its .tar and is left out",
        many="compressed shards lie beside their .tar and are left out",
    ),
    "outside": _Words(
        one="image has a name that leads out of the shard and is left out",
        many="images have names that lead out of the shard and are left out",
        remedy="pack with relative names without `..`",
    ),
    "same_twice": _Words(
        one="member is there more than once with the same content; one is read",
        many="members are there more than once with the same content; one of each is read",
    ),
    "concatenated": _Words(
        one="shard goes on after an end marker (several tars in one file) and is read to its end",
        many="shards go on after an end marker (several tars in one file) and are read to their end",
    ),
    "dotted_keys": _Words(
        one="shard has keys with dots in them: they are taken to end at the last dot",
        many="shards have keys with dots in them: they are taken to end at the last dot",
    ),
    "several_images": _Words(
        one="sample holds several images; one is read",
        many="samples hold several images; one of each is read",
    ),
    "apple": _Words(
        one="resource file of macOS (._NAME) is passed over",
        many="resource files of macOS (._NAME) are passed over",
    ),
    "no_images": _Words(one="tar file holds no image", many="tar files hold no image"),
    "label_alone": _Words(one="label has no image", many="labels have no image"),
    "label_missing": _Words(one="sample has no label", many="samples have no label"),
    "label_unlabelled": _Words(
        one="sample is labelled -1, which means unlabelled",
        many="samples are labelled -1, which means unlabelled",
    ),
    "label_empty": _Words(one="label is empty", many="labels are empty", remedy="write the class"),
    "label_number": _Words(
        one="label is no whole number from 0 on",
        many="labels are no whole number from 0 on",
        remedy="write the number or the name of the class",
    ),
    "label_damaged": _Words(
        one="label cannot be read",
        many="labels cannot be read",
        remedy="write .cls as text, .json as an object",
    ),
    "label_absent": _Words(
        one="sample has a .json or .txt without a label",
        many="samples have a .json or .txt without a label",
        remedy="a .json holds whole numbers, or a name under class, label, category or target",
    ),
    "label_mixed": _Words(
        one="label holds numbers and names; all are taken as names of classes",
        many="labels hold numbers and names; all are taken as names of classes",
    ),
    "label_unused": _Words(one="label is not used", many="labels are not used"),
}


@dataclass(frozen=True, kw_only=True)
class Note:
    """How many there are of a kind, and the first of them."""

    kind: str
    count: int
    first: str

    @property
    def is_lost(self) -> bool:
        """Whether samples of the source are missing by it."""
        return self.kind in _WORDS and _WORDS[self.kind].lost

    @property
    def is_of_labels(self) -> bool:
        """Whether it says why a label is not used, or not by all samples."""
        return self.kind.startswith("label_")

    def text(self) -> str:
        """In one line: the count, what, the first, and the remedy."""
        words = _WORDS.get(self.kind, _Words(one=self.kind, many=self.kind))
        head = f"{self.count:,} {words.one if self.count == 1 else words.many}"
        which = "" if self.count == 1 else "the first: "
        return f"{head} ({which}{self.first})" + (f"; {words.remedy}" if words.remedy else "")

    def to_json(self) -> dict[str, Any]:
        """As it stands in manifests and indices."""
        return {"kind": self.kind, "count": self.count, "first": self.first}


class NoteCounter:
    """Counts by kind and keeps the first of each."""

    def __init__(self, notes: Iterable[Note] = ()) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}
        for note in notes:
            self.add(note.kind, note.first, note.count)

    def add(self, kind: str, first: str, count: int = 1) -> None:
        """Count one more, or so many."""
        self._counts[kind] = self._counts.get(kind, 0) + count
        self._first.setdefault(kind, first[:_MAX_FIRST])

    def add_all(self, notes: Iterable[Note], where: str) -> None:
        """Add the notes on one part, say a shard, whose name goes before what was first."""
        for note in notes:
            self.add(note.kind, f"{where}: {note.first}" if note.first else where, note.count)

    def notes(self) -> tuple[Note, ...]:
        """What was counted: losses first."""
        found = [
            Note(kind=kind, count=count, first=self._first[kind]) for kind, count in self._counts.items()
        ]
        return tuple(sorted(found, key=lambda note: not note.is_lost))


def parse_notes(entries: Iterable[Mapping[str, Any]]) -> tuple[Note, ...]:
    """Notes of a manifest or an index."""
    return tuple(
        Note(kind=str(entry["kind"]), count=int(entry["count"]), first=str(entry["first"]))
        for entry in entries
    )


def check_losses(source: str, notes: Sequence[Note], *, allow_loss: bool) -> None:
    """Refuse a source of which samples are lost, unless that is allowed.

    Raises:
        DataError: Each kind of loss with its count and its first.
    """
    lost = [note.text() for note in notes if note.is_lost]
    if lost and not allow_loss:
        raise DataError(
            "\n  ".join([f"{source}: samples are lost:", *lost])
            + "\nmend the source, or go on without them: `shards pack --allow-loss`, or data.allow_loss=true for a run"
        )
