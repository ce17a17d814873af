"""What the folders of an image folder mean: classes, parts (training, test), or nothing.

Pure rules on a tree that `folder_walk` found. Called by `sources.ImageFolderSource`. The rules, in their order, are
those of the table in docs/data.md; where two readings are as likely, the user is asked to set `data.folders`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orchestrator.data.pack.folder_walk import Folder, FoundImage
from orchestrator.data.pack.left_out import LeftOutCounts
from orchestrator.errors import DataError
from orchestrator.text import listed

Meaning = Literal["auto", "classes", "splits", "unlabelled"]
Placed = tuple[FoundImage, str | None]
"""An image and its class; None where it has none."""

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing")
VALIDATION_NAMES = ("val", "valid", "validation", "dev", "eval")
EXTRA_NAMES = ("unlabeled", "unlabelled", "extra")
_STRAY = ("image outside any class folder", "images outside any class folder")
_UNLABELLED = ("image of an unlabelled part", "images of unlabelled parts")
_NO_PART = ("image in a folder that is no part", "images in folders that are no part")


@dataclass(frozen=True, kw_only=True)
class Part:
    """The images of one part; `top` is the folder that their keys begin below."""

    top: Path
    images: Sequence[Placed]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The parts by split (`train` first), whether images carry classes, and what there is to say."""

    parts: Mapping[str, Part]
    is_labelled: bool
    notes: tuple[str, ...] = ()


@dataclass
class _Laying:
    """What the rules work with: the root, the setting, what is left out and the notes so far."""

    root: Path
    meaning: Meaning
    left_out: LeftOutCounts
    notes: list[str] = field(default_factory=list)

    def where(self, folder: Folder) -> str:
        """A folder's path below the root."""
        return os.fspath(folder.path.relative_to(self.root))

    def leave_out(self, reason: tuple[str, str], folder: Folder) -> None:
        """Leave out every image of a folder."""
        if folder.num_images:
            example = os.fspath(folder.first().relative_to(self.root))
            self.left_out.add(*reason, example, folder.num_images)

    def ask(self, question: str) -> DataError:
        """The error that asks what the folders mean."""
        return DataError(
            f"{self.root}: {question}; set data.folders to classes, splits or unlabelled, or rename the folders"
        )


def lay_out(root: Folder, meaning: Meaning, left_out: LeftOutCounts) -> Layout:
    """Decide what the folders below a root mean.

    Raises:
        DataError: They can mean two things; it says which key tells.
    """
    laying = _Laying(root.path, meaning, left_out)
    if meaning == "unlabelled" or not root.num_images:
        return Layout(parts={"train": _unlabelled(root)}, is_labelled=False)
    if meaning == "classes":
        return _labelled(laying, {"train": root})
    root = _descended(laying, root)
    parts = _parts(laying, root)
    if parts is None:
        return _labelled(laying, {"train": root})
    return _labelled(laying, {split: _descended(laying, folder) for split, folder in parts.items()})


def part_of(name: str) -> str | None:
    """The part that a folder's name tells: `train`, `test`, a validation part's own name, or None.

    A word of the name is enough: `train2017`, `seg_test`, `Validation`.
    """
    words = re.split(r"[^a-z]+", name.lower())
    for names, part in ((TRAIN_NAMES, "train"), (TEST_NAMES, "test")):
        if any(word in names for word in words):
            return part
    return next((word for word in words if word in VALIDATION_NAMES), None)


def _descended(laying: _Laying, folder: Folder) -> Folder:
    """The folder whose sub-folders count: an only folder that holds folders is gone through.

    At the root one that is called as a part is not: it is that part.
    """
    start = folder
    while not folder.images and len(folder.filled) == 1 and folder.filled[0].filled:
        if folder.path == laying.root and part_of(folder.filled[0].name):
            break
        folder = folder.filled[0]
    if folder is not start:
        laying.notes.append(
            f"classes are read one level deeper, in {laying.where(folder)}: it is the only folder there; "
            "data.folders=classes takes the top folders as classes"
        )
    return folder


def _parts(laying: _Laying, root: Folder) -> dict[str, Folder] | None:
    """The folder of each split, `train` first; None where the folders are classes."""
    named = [(folder, part_of(folder.name)) for folder in root.filled]
    train = [folder for folder, part in named if part == "train"]
    held_out = [(part, folder) for folder, part in named if part not in ("train", None)]
    others = [folder for folder, part in named if part is None and folder.name.lower() not in EXTRA_NAMES]
    extra = [folder for folder, part in named if part is None and folder.name.lower() in EXTRA_NAMES]
    if laying.meaning == "auto" and not (train or held_out):
        _ask_of_parts_in_classes(laying, others)
        return None
    if laying.meaning == "auto" and _are_classes(laying, train, [folder for _, folder in held_out], others):
        return None
    splits = [part for part, _ in held_out]
    if len(train) != 1 or len(set(splits)) != len(splits):
        names = listed([folder.name for folder, part in named if part]) or "none"
        raise laying.ask(
            f"there must be one training folder, and one folder for each other part; found: {names}"
        )
    for folder in (*others, *extra):
        laying.leave_out(_NO_PART, folder)
    if root.images:
        laying.leave_out(_STRAY, Folder(path=root.path, images=root.images))
    only_one = len(held_out) == 1
    return {"train": train[0], **{"test" if only_one else part: folder for part, folder in held_out if part}}


def _are_classes(
    laying: _Laying, train: Sequence[Folder], held_out: Sequence[Folder], others: Sequence[Folder]
) -> bool:
    """Whether folders with the name of a part are classes that happen to be called so; asks where both may be.

    A part of labelled data holds folders, one a class; a class holds images.
    """
    named = [*train, *held_out]
    if train and not others:
        return False
    if len(train) == 1 and train[0].filled and held_out:
        return False
    hold_images = not any(folder.filled for folder in named)
    if hold_images and not (train and held_out) and (others or len(named) == 1):
        return True
    names = [each.name for each in (*named, *others)]
    if len(names) == 1:
        raise laying.ask(f"the folder {names[0]} can be a class or a part of the data")
    raise laying.ask(f"the folders {listed(names)} can be classes or parts of the data")


def _ask_of_parts_in_classes(laying: _Laying, classes: Sequence[Folder]) -> None:
    """Ask where every class holds its own training and test folders: read together, tested images are trained on."""
    for folder in classes:
        parts = {part_of(each.name) for each in folder.filled}
        if "train" not in parts or len(parts) < 2 or None in parts:
            return
    if classes:
        example = classes[0]
        raise laying.ask(
            f"each class holds folders that are called as parts ({laying.where(example)}: "
            f"{listed([each.name for each in example.filled])}); classes reads them together, "
            "PART/CLASS/IMAGE keeps them apart"
        )


def _labelled(laying: _Laying, folders: Mapping[str, Folder]) -> Layout:
    """The parts with the folders below each as classes, and strays and unlabelled parts left out."""
    train = folders["train"]
    if not train.filled:
        if any(folder.filled for folder in folders.values()):
            laying.notes.append("the training part has no class folders, so the test part's are not used")
        parts = {split: _unlabelled(folder) for split, folder in folders.items()}
        return Layout(parts=parts, is_labelled=False, notes=tuple(laying.notes))
    known = {folder.name for folder in train.filled}
    parts = {}
    for split, folder in folders.items():
        if known & {each.name for each in folder.filled}:
            parts[split] = _with_classes(laying, folder)
        else:
            laying.leave_out(_UNLABELLED, folder)
    _note_empty(laying, folders.values())
    return Layout(parts=parts, is_labelled=True, notes=tuple(laying.notes))


def _with_classes(laying: _Laying, folder: Folder) -> Part:
    """One class a sub-folder; images beside the sub-folders are left out, unless they are the most."""
    strays = Folder(path=folder.path, images=folder.images)
    in_classes = folder.num_images - strays.num_images
    if strays.num_images > in_classes and laying.meaning == "auto":
        raise laying.ask(
            f"{strays.num_images:,} images lie outside any class folder and {in_classes:,} in folders "
            f"({listed([each.name for each in folder.filled])})"
        )
    laying.leave_out(_STRAY, strays)
    images = [(image, each.name) for each in folder.filled for image in each.every()]
    return Part(top=folder.path, images=images)


def _unlabelled(folder: Folder) -> Part:
    return Part(top=folder.path, images=[(image, None) for image in folder.every()])


def _note_empty(laying: _Laying, folders: Iterable[Folder]) -> None:
    """Name the class folders without an image that can be read."""
    empty = [laying.where(each) for part in folders for each in part.folders if not each.num_images]
    if len(empty) == 1:
        laying.notes.append(f"class {empty[0]} has no image that can be read")
    elif empty:
        laying.notes.append(f"classes {listed(empty)} have no image that can be read")
