"""What can be packed: procedural scenes, a folder of images, a folder of idx files, existing shards.

Each source yields (key, members) in an order that depends on its content alone and mixes the classes, so that every
shard is like the others. Keys are names inside a tar and are never used as file names.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import itertools
import json
import multiprocessing
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.config.models import DataConfig
from orchestrator.data.format import BAD_IMAGES, CLASS, LabelInfo, SampleReader, ShardSet
from orchestrator.data.pack.class_notes import class_notes
from orchestrator.data.pack.folder_layout import (
    TEST_NAMES,
    VALIDATION_NAMES,
    Layout,
    Meaning,
    Part,
    lay_out,
)
from orchestrator.data.pack.folder_walk import FoundImage, walk
from orchestrator.data.pack.left_out import LeftOut, LeftOutCounts, left_out_text
from orchestrator.data.pack.write import LoadSample, PackSample
from orchestrator.data.scenes import encode_png, render_scenes
from orchestrator.errors import DataError
from orchestrator.storage import hash_file
from orchestrator.text import counted

TEST_FRACTION = 0.1
HELD_OUT_NAMES = (*TEST_NAMES, *VALIDATION_NAMES)
_SCENES_PER_TASK = 50
_FIRST_TEST_SCENE = 10**9
_UNSAFE = re.compile(r"[^\w/-]")
_IDX_SPLITS = {"train": "train", "t10k": "test"}
_FASHION = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


@dataclass(frozen=True, kw_only=True)
class ScenesSource:
    """The procedural scenes, rendered in `processes` processes; their number does not change a byte."""

    data: DataConfig
    processes: int

    @property
    def name(self) -> str:
        """What it is."""
        return "scenes"

    @property
    def labels(self) -> Mapping[str, LabelInfo]:
        """What the objects are, how their surface looks, how many there are, how far the nearest is."""
        from orchestrator.data.scenes import SCENE_LABELS

        return {
            name: LabelInfo(num_classes=len(classes), class_names=tuple(classes))
            for name, classes in SCENE_LABELS.items()
        }

    @property
    def amounts(self) -> Mapping[str, str]:
        """How far the nearest object is, in metres."""
        from orchestrator.data.scenes import SCENE_AMOUNTS

        return SCENE_AMOUNTS

    @property
    def num_samples(self) -> Mapping[str, int]:
        """Scenes by split."""
        return {"train": self.data.scenes_train_images, "test": self.data.scenes_test_images}

    @property
    def fingerprint(self) -> str:
        """Their settings and the code that renders them."""
        from orchestrator.data.scenes import raycast, scenes, textures

        settings = {
            name: value
            for name, value in self.data.model_dump(mode="json").items()
            if name.startswith("scenes_")
        }
        code = [hash_file(Path(module.__file__ or "")) for module in (scenes, raycast, textures)]
        text = json.dumps([settings, code], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def samples(self, split: str, start: int = 0) -> Iterator[LoadSample]:
        """Scenes by number; those of the test split are numbered from far away, so they are never trained on."""
        first = (_FIRST_TEST_SCENE if split == "test" else 0) + start
        end = first - start + self.num_samples[split]
        tasks = [
            (self.data.scenes_seed, start, min(start + _SCENES_PER_TASK, end), self.data.scenes_image_size_px)
            for start in range(first, end, _SCENES_PER_TASK)
        ]
        if self.processes <= 1 or len(tasks) <= 2:
            yield from map(_loaded, itertools.chain.from_iterable(map(render_scenes, tasks)))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.processes, len(tasks)), mp_context=context) as pool:
            yield from map(_loaded, itertools.chain.from_iterable(pool.map(render_scenes, tasks)))


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """One image of a folder: its key, file and class (None where there are no classes)."""

    key: str
    image: FoundImage
    label: str | None


@dataclass(frozen=True)
class ImageFolderSource:
    """A folder of images: one sub-folder a class, or folders of such for each part, or images alone.

    `meaning` is `data.folders`. Without a test part, one image in ten is held out, chosen by the hash of its key.
    """

    root: Path
    meaning: Meaning = "auto"

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    @property
    def labels(self) -> Mapping[str, LabelInfo]:
        """The sub-folders' names as classes, sorted; none for images without sub-folders."""
        names = tuple(self._numbers)
        return {"class": LabelInfo(num_classes=len(names), class_names=names)} if names else {}

    @property
    def amounts(self) -> Mapping[str, str]:
        """None."""
        return {}

    @property
    def num_samples(self) -> Mapping[str, int]:
        """Images by split."""
        return {split: len(files) for split, files in self.files.items()}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is left out, in one line, and what else there is to say of the folders."""
        left_out = left_out_text(self._found[1])
        return (*([left_out] if left_out else []), *self._layout.notes, *class_notes(self._class_counts))

    @property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes, times, parts and classes: another one is another data set."""
        hashed = hashlib.sha256(str(self.root).encode(errors="surrogateescape"))
        for split, files in self.files.items():
            for file in files:
                image = file.image
                name = image.path.relative_to(self.root)
                line = f"{split}\0{file.label}\0{name}\0{image.size_bytes}\0{image.mtime_ns}\n"
                hashed.update(line.encode(errors="surrogateescape"))
        return hashed.hexdigest()

    def samples(self, split: str, start: int = 0) -> Iterator[LoadSample]:
        """Images as they came, in the order of the hashes of their keys."""
        for file in self.files[split][start:]:
            yield functools.partial(self._load, file)

    def _load(self, file: ImageFile) -> PackSample:
        path = file.image.path
        try:
            members = {file.image.extension: path.read_bytes()}
        except OSError as err:
            raise DataError(f"{path}: cannot be read ({err.strerror or err}); restore it") from err
        if file.label is not None:
            members["cls"] = str(self._numbers[file.label]).encode()
        return file.key, members

    @cached_property
    def files(self) -> dict[str, list[ImageFile]]:
        """The images of each split."""
        files = {split: _image_files(part) for split, part in self._layout.parts.items()}
        if len(files) == 1:
            every = files["train"]
            files = {
                "train": [file for file in every if not is_held_out(file.key)],
                "test": [file for file in every if is_held_out(file.key)],
            }
        return {split: sorted(found, key=lambda file: key_hash(file.key)) for split, found in files.items()}

    @property
    def _layout(self) -> Layout:
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[Layout, tuple[LeftOut, ...]]:
        """What the folders mean, and what in them is not read."""
        left_out = LeftOutCounts()
        return lay_out(walk(self.root, left_out), self.meaning, left_out), left_out.all()

    @cached_property
    def _class_counts(self) -> dict[str, Counter[str]]:
        return {
            split: Counter(file.label for file in files if file.label is not None)
            for split, files in self.files.items()
        }

    @cached_property
    def _numbers(self) -> dict[str, int]:
        names = {name for counts in self._class_counts.values() for name in counts}
        return {name: number for number, name in enumerate(sorted(names))}


@dataclass(frozen=True)
class IdxSource:
    """A folder with the four idx files of MNIST or Fashion-MNIST, gzipped or not."""

    root: Path

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    @property
    def labels(self) -> Mapping[str, LabelInfo]:
        """The class, by number; named for Fashion-MNIST."""
        num_classes = 1 + max(int(labels.max()) for _, labels in self._arrays.values())
        is_fashion = "fashion" in str(self.root).lower() and num_classes == len(_FASHION)
        names = _FASHION if is_fashion else tuple(str(number) for number in range(num_classes))
        return {"class": LabelInfo(num_classes=num_classes, class_names=names)}

    @property
    def amounts(self) -> Mapping[str, str]:
        """None."""
        return {}

    @property
    def num_samples(self) -> Mapping[str, int]:
        """Images by split."""
        return {split: len(labels) for split, (_, labels) in self._arrays.items()}

    @property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and times."""
        hashed = hashlib.sha256(str(self.root).encode(errors="surrogateescape"))
        for path in sorted(self.root.glob("*ubyte*")):
            status = path.stat()
            hashed.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return hashed.hexdigest()

    def samples(self, split: str, start: int = 0) -> Iterator[LoadSample]:
        """Images as PNG, in the files' order, which is mixed already."""
        for number in range(start, self.num_samples[split]):
            yield functools.partial(self._load, split, number)

    def _load(self, split: str, number: int) -> PackSample:
        images_NHW, labels_N = self._arrays[split]
        members = {"png": encode_png(images_NHW[number]), "cls": str(int(labels_N[number])).encode()}
        return f"{split}-{number:08d}", members

    @cached_property
    def _arrays(self) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        found = {}
        for prefix, split in _IDX_SPLITS.items():
            images = read_idx(idx_file(self.root, f"{prefix}-images-idx3-ubyte"), 3)
            labels = read_idx(idx_file(self.root, f"{prefix}-labels-idx1-ubyte"), 1)
            if len(images) != len(labels):
                raise DataError(
                    f"{self.root}: {counted(len(images), f'{split} image')} but "
                    f"{counted(len(labels), 'label')}; fetch them again"
                )
            if not len(images):
                raise DataError(f"{self.root}: the {split} files hold no image; fetch them again")
            found[split] = (images, labels)
        return found


@dataclass(frozen=True)
class ShardSource:
    """The samples of existing shards, packed anew: image, `.cls` and `.json`, as they came, but a class by its number.

    Without a test split, one sample in ten is held out, chosen by the hash of its key. Where keys hold dots, or several
    shards use the same one, they are changed so that the packed names say one thing. Images that are known to be none
    are left out.
    """

    shards: ShardSet

    @property
    def name(self) -> str:
        """Where the shards are."""
        return self.shards.store.uri

    @property
    def labels(self) -> Mapping[str, LabelInfo]:
        """The shards' own labels."""
        return {
            name: replace(info, named=info.named and name != CLASS)
            for name, info in self.shards.labels.items()
        }

    @property
    def amounts(self) -> Mapping[str, str]:
        """The shards' own amounts."""
        return self.shards.amounts

    @property
    def num_samples(self) -> Mapping[str, int]:
        """Samples by split."""
        return {split: len(ids) for split, ids in self._ids.items()}

    @property
    def fingerprint(self) -> str:
        """The digest of the shards."""
        return self.shards.digest

    def samples(self, split: str, start: int = 0) -> Iterator[LoadSample]:
        """Samples shard by shard."""
        rule = self._key_rule
        for sample_id in self._ids[split][start:]:
            yield functools.partial(self._load, sample_id, rule)

    def _load(self, sample_id: int, rule: _KeyRule) -> PackSample:
        shard, member = self._reader.locate(sample_id)
        key, members = self._reader.open(shard).members(member, self.shards.labels)
        return rule.packed(key, self._reader.infos[shard].name), members

    @cached_property
    def _reader(self) -> SampleReader:
        return SampleReader(self.shards)

    @cached_property
    def _key_rule(self) -> _KeyRule:
        """The plainest rule under which no two samples get the same key."""
        shards = [(info.name, self._reader.keys(number)) for number, info in enumerate(self._reader.infos)]
        plain = _KeyRule(dot="_")
        if any(_num_distinct(plain, [shard]) < len(shard[1]) for shard in shards):
            plain = _KeyRule(dot="%2E")
        num_samples = sum(len(keys) for _, keys in shards)
        return plain if _num_distinct(plain, shards) == num_samples else replace(plain, names_shard=True)

    @cached_property
    def _bad_ids(self) -> frozenset[int]:
        """Samples whose image is known to be none."""
        if not any(note.kind in BAD_IMAGES for note in self.shards.manifest.notes):
            return frozenset()
        return frozenset(
            self._reader.first_id(number) + member
            for number in range(len(self._reader.infos))
            for member, _ in self._reader.open(number).bad_images()
        )

    @cached_property
    def _ids(self) -> dict[str, Sequence[int]]:
        first, ids, bad = 0, dict[str, Sequence[int]](), self._bad_ids
        for split, infos in self.shards.splits.items():
            count = sum(info.num_samples for info in infos)
            ids[split] = [number for number in range(first, first + count) if number not in bad]
            first += count
        if len(ids) > 1:
            return ids
        every = [number for numbers in ids.values() for number in numbers]
        held_out = {number for number in every if is_held_out(self._reader.key(number))}
        return {"train": [number for number in every if number not in held_out], "test": sorted(held_out)}


@dataclass(frozen=True, kw_only=True)
class _KeyRule:
    """How keys are packed: without dots, since a key ends at the first one, and with the shard's name where needed."""

    dot: str
    names_shard: bool = False

    def packed(self, key: str, shard: str) -> str:
        """The key of a sample of a shard."""
        folder, slash, base = key.rpartition("/")
        name = f"{folder}{slash}{base.replace('.', self.dot)}"
        return f"{_UNSAFE.sub('_', shard.rpartition('.')[0])}/{name}" if self.names_shard else name


def _num_distinct(rule: _KeyRule, shards: Sequence[tuple[str, Sequence[str]]]) -> int:
    """How many different keys a rule makes of those of shards."""
    hashes = (key_hash(rule.packed(key, name)) for name, keys in shards for key in keys)
    return len(np.unique(np.fromiter(hashes, dtype=np.uint64)))


def _loaded(sample: PackSample) -> LoadSample:
    return lambda: sample


def split_name(name: str, held_out: Sequence[str]) -> str:
    """A held-out part's split: `test` where it is the only one, whatever it is called."""
    return "test" if len(held_out) == 1 else name


def is_held_out(key: str) -> bool:
    """Whether a sample of data without a test part belongs to the test split: a function of its key."""
    return key_hash(key) < TEST_FRACTION * 2**64


def key_hash(key: str) -> int:
    """A 64-bit hash of a key."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8], "big")


def idx_file(root: Path, name: str) -> Path:
    """The idx file of this name, gzipped or not.

    Raises:
        DataError: There is none.
    """
    for spelled in (name, name.replace("-idx", ".idx")):  # both are in use
        for candidate in (root / f"{spelled}.gz", root / spelled):
            if candidate.is_file():
                return candidate
    raise DataError(f"{root}: no {name} or {name}.gz; a folder of idx files needs all four")


def read_idx(path: Path, num_dimensions: int) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes.

    Raises:
        DataError: Another format, or truncated.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"{path}: cannot be read ({err}); fetch it again") from err
    shape = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(num_dimensions)]
    start = 4 + 4 * num_dimensions
    if data[:4] != bytes([0, 0, 8, num_dimensions]) or len(data) - start != int(
        np.prod(shape, dtype=np.int64)
    ):
        raise DataError(f"{path}: not an idx file of bytes in {num_dimensions} dimensions; fetch it again")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def _image_files(part: Part) -> list[ImageFile]:
    """The images of a part, each with a key of its own: its path below the part's folder."""
    found, taken = [], set[str]()
    for image, label in part.images:
        relative = image.path.relative_to(part.top)
        key = _UNSAFE.sub("_", relative.with_suffix("").as_posix()).strip("/")
        while key in taken:
            key += "~"
        taken.add(key)
        found.append(ImageFile(key=key, image=image, label=label))
    return found
