"""The manifest of a shard set: which shards each split has, how many samples, their hashes, and the labels.

Owns the JSON format and its checks. A shard set exists when its manifest does: it is written last. The digest names
the content, wherever it lies, so the same shards in a folder and in a bucket have the same digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchestrator.data.format.notes import Note, parse_notes
from orchestrator.errors import DataError

MANIFEST_NAME = "manifest.json"
_AMOUNT = "amount"
_FORMAT = 1
_NO_CONTENT = ("base_uri", "notes", "digest")
_SHA256 = re.compile(r"[0-9a-f]{64}")


Damage = tuple[str, str, str, int]
"""What a `DamagedShardError` is made of: where, reason, remedy, offset."""


class DamagedShardError(DataError):
    """One shard is missing, truncated, or not what its manifest says; the others may be sound.

    `offset` is the byte from which nothing can be read, where it is known.
    """

    def __init__(self, where: str, reason: str, remedy: str, offset: int = 0) -> None:
        super().__init__(where, reason, remedy, offset)
        self.where, self.reason, self.remedy, self.offset = where, reason, remedy, offset

    def __str__(self) -> str:
        """What, where and what to do."""
        return f"{self.where}: {self.reason}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One tar file: its key below the shard set's URI, and what it must hold."""

    name: str
    split: str
    num_samples: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class LabelInfo:
    """A label that every sample carries: an integer from 0 to `num_classes - 1`.

    Where it is `named`, the samples carry the name of the class, and the integer is its place in `class_names`.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    named: bool = False

    def class_of(self, value: int | float | str | None) -> int | None:
        """The class that a value beside an image stands for; None where it stands for none."""
        if self.named:
            return self._numbers.get(str(value))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if isinstance(value, int) and 0 <= value < self.num_classes else None

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.class_names)}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A shard set's content. `base_uri` is where the shards are when it is not where the manifest is.

    `amounts` names the real numbers that every sample carries beside its labels, each with its unit. `notes` says what
    of the source is not in it; they are no part of the content.
    """

    shards: tuple[ShardInfo, ...]
    labels: Mapping[str, LabelInfo] = field(default_factory=dict)
    amounts: Mapping[str, str] = field(default_factory=dict)
    base_uri: str | None = None
    notes: tuple[Note, ...] = ()

    @property
    def splits(self) -> dict[str, tuple[ShardInfo, ...]]:
        """Shards by split, in manifest order."""
        names = dict.fromkeys(shard.split for shard in self.shards)
        return {name: tuple(shard for shard in self.shards if shard.split == name) for name in names}

    def num_samples(self, split: str) -> int:
        """Samples of a split; 0 when there is no such split."""
        return sum(shard.num_samples for shard in self.shards if shard.split == split)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content: shards, counts, hashes and labels, not the place."""
        body = {key: value for key, value in self.to_json().items() if key not in _NO_CONTENT}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain data, without its digest."""
        splits: dict[str, list[dict[str, Any]]] = {}
        for shard in self.shards:
            entry = {name: getattr(shard, name) for name in ("name", "num_samples", "size_bytes", "sha256")}
            splits.setdefault(shard.split, []).append(entry)
        labels: dict[str, dict[str, Any]] = {
            name: {"kind": "class", "num_classes": info.num_classes, "class_names": list(info.class_names)}
            | ({"named": True} if info.named else {})
            for name, info in sorted(self.labels.items())
        }
        labels |= {name: {"kind": _AMOUNT, "unit": unit} for name, unit in sorted(self.amounts.items())}
        data: dict[str, Any] = {"format": _FORMAT, "splits": splits, "labels": labels}
        if self.base_uri is not None:
            data["base_uri"] = self.base_uri
        if self.notes:
            data["notes"] = [note.to_json() for note in self.notes]
        return data

    def dump(self) -> bytes:
        """The file's content."""
        return json.dumps({**self.to_json(), "digest": self.digest}, indent=1).encode() + b"\n"


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Read a manifest's text.

    Raises:
        DataError: Not a manifest, of another format, or its digest does not fit its content.
    """
    try:
        data = json.loads(text)
        if data["format"] != _FORMAT:
            raise DataError(
                f"{where}: manifest format {data['format']}, this version reads {_FORMAT}; pack again"
            )
        shards = tuple(
            _parse_shard(entry, split) for split, entries in data["splits"].items() for entry in entries
        )
        entries = data["labels"].items()
        manifest = Manifest(
            shards=shards,
            labels={name: _parse_label(entry) for name, entry in entries if entry["kind"] != _AMOUNT},
            amounts={name: str(entry["unit"]) for name, entry in entries if entry["kind"] == _AMOUNT},
            base_uri=data.get("base_uri"),
            notes=parse_notes(data.get("notes", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise DataError(
            f"{where}: not a shard manifest ({type(err).__name__}: {err}); pack the data again"
        ) from err
    if not shards:
        raise DataError(f"{where}: the manifest lists no shards; pack the data again")
    if data.get("digest") != manifest.digest:
        raise DataError(f"{where}: the digest does not fit the content, the manifest was altered; pack again")
    return manifest


def _parse_shard(entry: Mapping[str, Any], split: str) -> ShardInfo:
    shard = ShardInfo(
        name=str(entry["name"]),
        split=split,
        num_samples=int(entry["num_samples"]),
        size_bytes=int(entry["size_bytes"]),
        sha256=str(entry["sha256"]),
    )
    if not _SHA256.fullmatch(shard.sha256) or shard.num_samples < 0 or shard.size_bytes < 0:
        raise ValueError(f"shard {shard.name[:80]!r} has an impossible size, count or hash")
    return shard


def _parse_label(entry: Mapping[str, Any]) -> LabelInfo:
    info = LabelInfo(
        num_classes=int(entry["num_classes"]),
        class_names=tuple(str(name) for name in entry["class_names"]),
        named=bool(entry.get("named", False)),
    )
    if info.num_classes < 1 or len(info.class_names) not in (0, info.num_classes):
        raise ValueError("a label needs at least one class, and a name for each or none")
    return info
