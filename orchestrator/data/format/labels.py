"""The labels beside images: how `.cls`, `.json` and `.txt` are read, and which of them can tell classes apart.

A label is a whole number from 0 on (`3`, `3.0`), or the name of a class. -1 means unlabelled, as is usual. What is not
used is counted with its reason.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.data.format.manifest import LabelInfo
from orchestrator.data.format.notes import Note, NoteCounter

CLASS = "class"
MAX_CLASSES = 100_000
_UNLABELLED = -1
_NAMED = (CLASS, "label", "category", "target")
"""Texts under these names of a `.json` are names of classes; others may be captions, licences or addresses."""
_MAX_LABEL_BYTES = 2**20
_MAX_NAME_CHARACTERS = 200
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LACKING_FRACTION, _LACKING_SAMPLES, _LACKING_SMALL = 0.01, 16, 10

Value = int | float | str


def parse_values(extension: str, text: bytes) -> dict[str, Value]:
    """The values that a label member holds, by the label's name; an empty `.cls` holds an empty text.

    Raises:
        ValueError: No text, no JSON, or too long.
    """
    if len(text) > _MAX_LABEL_BYTES:
        raise ValueError("too long")
    if extension == "json":
        values = json.loads(text)
        values = values if isinstance(values, dict) else {CLASS: values}
        return {name: value for name, value in values.items() if _is_value(name, value)}
    return {CLASS: _parse_text(text.decode("utf-8-sig").strip())}


def _is_value(name: str, value: object) -> bool:
    if type(value) is str:
        return name in _NAMED and len(value) <= _MAX_NAME_CHARACTERS
    return type(value) is float or (type(value) is int and abs(value) < 2**31)


def _parse_text(text: str) -> Value:
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if len(text) > _MAX_NAME_CHARACTERS or "\n" in text or "\0" in text:
        raise ValueError("no name of a class")
    return text


@dataclass
class _Tally:
    """What values one label takes over all samples."""

    numbers: Counter[int] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    """Samples by split."""
    may_be_captions: bool = True
    """Whether all values come from `.txt` members, which nobody need have meant as labels."""
    refused: NoteCounter = field(default_factory=NoteCounter)

    def add(self, value: Value, split: str, where: str) -> None:
        """Count a sample's value."""
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**31:
            value = int(value)
        if value == _UNLABELLED:
            self.refused.add("label_unlabelled", where)
        elif value == "":
            self.refused.add("label_empty", where)
        elif isinstance(value, float) or (isinstance(value, int) and value < 0):
            self.refused.add("label_number", f"{where}: {value}")
        else:
            counts: Counter[int] | Counter[str] = self.numbers if isinstance(value, int) else self.names
            if len(counts) <= MAX_CLASSES:
                counts[value] += 1  # type: ignore[index]
            self.labelled[split] += 1


class LabelCount:
    """Counts the labels of all samples of a source, then says which can be used."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._samples: Counter[str] = Counter()
        self._damaged = NoteCounter()

    def add(self, members: Mapping[str, bytes], split: str, where: str) -> None:
        """Count the label members of one sample, by extension; `where` names it."""
        self._samples[split] += 1
        values: dict[str, Value] = {}
        is_caption, is_read = True, False
        for extension, text in members.items():
            try:
                found = parse_values(extension, text)
            except (ValueError, RecursionError):
                if extension != "txt":
                    self._damaged.add("label_damaged", f"{where}.{extension}")
                    continue
                found = {}
            is_read = True
            values = found if extension == "cls" else values | found
            is_caption = extension == "txt" or (is_caption and CLASS not in found)
        if is_read and not values:
            self._damaged.add("label_absent", where)
        if CLASS not in values:
            self._damaged.add("label_missing", where)
        for name, value in values.items():
            tally = self._tallies.setdefault(name, _Tally())
            tally.may_be_captions &= name == CLASS and is_caption
            tally.add(value, split, where)

    def result(self) -> tuple[dict[str, LabelInfo], tuple[Note, ...]]:
        """The labels that nearly every sample carries and that look like classes, and why others are not used."""
        reasons = {name: self._unusable(tally) for name, tally in sorted(self._tallies.items())}
        found = {name: _label_info(self._tallies[name]) for name, reason in reasons.items() if not reason}
        silent = {"label_absent"} if found else set()
        silent |= set() if CLASS in self._tallies else {"label_missing"}
        notes = NoteCounter(note for note in self._damaged.notes() if note.kind not in silent)
        for name, reason in reasons.items():
            tally = self._tallies[name]
            if found and reason and (name not in _NAMED or tally.may_be_captions):
                continue  # other things than labels stand in .json and .txt too
            for note in tally.refused.notes():
                notes.add(note.kind, f"{note.first} ({name})", note.count)
            if reason:
                notes.add("label_unused", f"{name}: {reason}")
            elif tally.numbers and tally.names:
                notes.add("label_mixed", name)
        return found, notes.notes()

    def _unusable(self, tally: _Tally) -> str:
        """Why a label is not used; empty when it is."""
        num_samples, labelled = sum(self._samples.values()), tally.labelled.total()
        distinct = len(tally.numbers) + len(tally.names)
        lacking = num_samples - labelled
        if lacking > _may_lack(num_samples):
            return f"{lacking:,} of {num_samples:,} samples have no class"
        for split, count in self._samples.items():
            if tally.labelled[split] < count / 2:
                return f"{count - tally.labelled[split]:,} of {count:,} samples of {split} have no class"
        if distinct == 1:
            return f"all samples have the same, {next(iter(tally.numbers or tally.names))}"
        if distinct > max(2, num_samples // 2):
            return f"{distinct:,} values in {num_samples:,} samples: no classes"
        if max(tally.numbers, default=0) >= MAX_CLASSES:
            return f"the number {max(tally.numbers):,}, at most {MAX_CLASSES - 1:,} is a class"
        return ""


def _may_lack(num_samples: int) -> int:
    """How many samples may be without a label that is used: what probes bear, and one in ten of few."""
    return max(int(_LACKING_FRACTION * num_samples), min(_LACKING_SAMPLES, num_samples // _LACKING_SMALL))


def _label_info(tally: _Tally) -> LabelInfo:
    if not tally.names:
        num_classes = max(tally.numbers) + 1
        return LabelInfo(
            num_classes=num_classes, class_names=tuple(str(value) for value in range(num_classes))
        )
    names = tuple(sorted({*tally.names, *(str(number) for number in tally.numbers)}))
    return LabelInfo(num_classes=len(names), class_names=names, named=True)
