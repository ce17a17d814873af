"""What to say of the classes of a labelled source before anything is spent on it: pure functions of counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.data.pack.left_out import printable
from orchestrator.text import listed

_FEW_IMAGES = 2


def class_notes(counts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Sentences on classes that cannot be learned or tested, from images by split and class; `train` is a split."""
    counts = {
        split: {printable(name): number for name, number in of_split.items()}
        for split, of_split in counts.items()
    }
    names = sorted({name for of_split in counts.values() for name in of_split})
    if not names:
        return ()
    if len(names) == 1:
        return (f"only one class ({names[0]}): nothing can be ranked",)
    train, notes = counts.get("train", {}), []
    few = [name for name in names if 0 < train.get(name, 0) < _FEW_IMAGES]
    if few:
        notes.append(f"{_classes(few)} fewer than {_FEW_IMAGES} training images: probes cannot learn them")
    for split, of_split in counts.items():
        lacking = [name for name in names if not of_split.get(name)]
        if lacking and of_split:
            notes.append(f"the {split} part has no image of {listed(lacking)}")
        elif lacking:
            notes.append(f"the {split} part has no image at all")
    return tuple(notes)


def _classes(names: Sequence[str]) -> str:
    """`class a has` or `classes a, b have`."""
    return f"class {names[0]} has" if len(names) == 1 else f"classes {listed(names)} have"
