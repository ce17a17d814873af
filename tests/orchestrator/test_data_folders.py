"""A folder of images: what its folders mean, and that what is not read is told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from image_data import data_config, image_bytes, image_folder, write_tar
from tiny_sweeps import Remembering, tiny_config

from orchestrator.data import pack_dataset, survey_source
from orchestrator.data.pack.class_notes import class_notes
from orchestrator.data.pack.folder_layout import part_of
from orchestrator.data.pack.sources import ImageFolderSource
from orchestrator.errors import DataError, StorageError
from orchestrator.sweep.foresight.plan import describe_plan
from orchestrator.sweep.run.driver import SweepRequest, run_sweep

PIXELS = image_bytes(0)
SPACE = {"masks.num_target_blocks": {"choices": [1, 2]}}


def images_at(root: Path, *folders: str, count: int = 4) -> Path:
    """So many images in each of these folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / folder / f"{index}.png").write_bytes(PIXELS)
    return root


def classes_of(source: ImageFolderSource) -> Sequence[str]:
    return source.labels["class"].class_names if source.labels else ()


@pytest.mark.parametrize(
    ("folders", "classes", "splits"),
    [
        (["cat", "dog"], ["cat", "dog"], ["train", "test"]),
        (["training/cat", "training/dog", "testing/cat"], ["cat", "dog"], ["train", "test"]),
        (["Train/cat", "Train/dog", "Validation/cat"], ["cat", "dog"], ["train", "test"]),
        (["train2017/cat", "train2017/dog", "val2017/dog"], ["cat", "dog"], ["train", "test"]),
        (
            ["train/cat", "train/dog", "valid/cat", "testing/dog"],
            ["cat", "dog"],
            ["train", "test", "valid"],
        ),
        (
            ["seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat"],
            ["cat", "dog"],
            None,
        ),
        (["photos/cat", "photos/dog"], ["cat", "dog"], ["train", "test"]),
        (["data/photos/train/cat", "data/photos/train/dog", "data/photos/dev/cat"], ["cat", "dog"], None),
        (["bus", "car", "train"], ["bus", "car", "train"], ["train", "test"]),
        (["train", "test"], [], ["train", "test"]),
        (["train/cat", "train/dog"], ["cat", "dog"], ["train", "test"]),
        (["cat/young", "cat/old", "dog/young"], ["cat", "dog"], None),
        (["test_tube", "dog"], ["dog", "test_tube"], None),
        (["only"], ["only"], None),
    ],
)
def test_folders_are_read_as_what_they_mean(
    tmp_path: Path, folders: list[str], classes: list[str], splits: list[str] | None
) -> None:
    source = ImageFolderSource(images_at(tmp_path, *folders))
    assert list(classes_of(source)) == classes
    assert sorted(source.num_samples) == sorted(splits or ["train", "test"])
    assert sum(source.num_samples.values()) == 4 * len(folders)


@pytest.mark.parametrize(
    "folders",
    [
        ["train/steam", "train/diesel", "bus/double"],
        ["train", "test", "cat"],
        ["val/cat", "cat", "dog"],
        ["val/cat", "test/cat"],
        ["train/cat", "training/cat"],
        ["train/cat", "test/cat", "testing/cat"],
        ["cat/train", "cat/test", "dog/train", "dog/test"],
    ],
)
def test_folders_that_can_mean_two_things_are_asked_about(tmp_path: Path, folders: list[str]) -> None:
    with pytest.raises(DataError, match=r"set data\.folders to classes, splits or unlabelled"):
        ImageFolderSource(images_at(tmp_path, *folders)).labels  # noqa: B018


@pytest.mark.parametrize(
    ("meaning", "classes", "num_images"),
    [("classes", ["cat", "test", "train"], 12), ("splits", [], 8), ("unlabelled", [], 12)],
)
def test_the_setting_says_what_folders_mean(
    tmp_path: Path, meaning: Any, classes: list[str], num_images: int
) -> None:
    source = ImageFolderSource(images_at(tmp_path, "train", "test", "cat"), meaning)
    assert list(classes_of(source)) == classes
    assert sum(source.num_samples.values()) == num_images


def test_parts_inside_of_classes_are_read_together_where_the_setting_says_so(tmp_path: Path) -> None:
    source = ImageFolderSource(images_at(tmp_path, "cat/train", "cat/test", "dog/train"), "classes")
    assert (list(classes_of(source)), sum(source.num_samples.values())) == (["cat", "dog"], 12)


def test_one_folder_that_can_mean_two_things_is_named_in_the_singular(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder test can be a class or a part of the data"):
        ImageFolderSource(images_at(tmp_path, "test/cat", "test/dog")).labels  # noqa: B018


def test_splits_that_are_asked_for_and_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one training folder.*found: none"):
        ImageFolderSource(images_at(tmp_path, "cat", "dog"), "splits").labels  # noqa: B018


def test_what_a_folder_leaves_out_is_one_line_by_reason_with_an_example(tmp_path: Path) -> None:
    images_at(tmp_path, "cat", "dog")
    for number in range(3):
        (tmp_path / "cat" / f"{number}.tif").write_bytes(PIXELS)
    (tmp_path / "cover.png").write_bytes(PIXELS)
    (tmp_path / "cat" / "gone.jpg").symlink_to("/nowhere/gone.jpg")
    (tmp_path / "dog" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dog" / "up").symlink_to(tmp_path)
    (tmp_path / "dog" / "empty.png").touch()
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    (tmp_path / "backup.tar").write_bytes(b"")
    for litter in (".DS_Store", "Thumbs.db", "cat/.hidden.png"):
        (tmp_path / litter).write_bytes(PIXELS)
    images_at(tmp_path, "__MACOSX/cat")
    assert ImageFolderSource(tmp_path).remarks[0] == (
        "left out: 3 .tif (cat/0.tif), 2 links that lead in a circle (dog/loop.jpg), 1 .tar (backup.tar), "
        "1 empty image file (dog/empty.png), 1 entry that is neither file nor folder (dog/pipe.png), "
        "1 image outside any class folder (cover.png), 1 link that leads nowhere (cat/gone.jpg)"
    )


def test_a_name_that_is_no_text_can_be_told(tmp_path: Path) -> None:
    images_at(tmp_path, "cat", "dog")
    Path(os.fsdecode(os.fsencode(tmp_path / "cat") + b"/\xff\n.bmp")).write_bytes(PIXELS)
    assert ImageFolderSource(tmp_path).remarks[0] == r"left out: 1 .bmp (cat/\xff\n.bmp)"


def test_nothing_left_out_is_nothing_said(tmp_path: Path) -> None:
    assert ImageFolderSource(image_folder(tmp_path)).remarks == ()


def test_linked_classes_and_files_are_followed(tmp_path: Path) -> None:
    everything = images_at(tmp_path / "all", "cat", "dog")
    images_at(tmp_path / "subset", "ant")
    (tmp_path / "subset" / "dog").symlink_to(everything / "dog")
    (tmp_path / "subset" / "ant" / "linked.png").symlink_to(everything / "cat" / "0.png")
    source = ImageFolderSource(tmp_path / "subset")
    assert list(classes_of(source)) == ["ant", "dog"]
    assert sum(source.num_samples.values()) == 9


def test_classes_without_an_image_that_can_be_read_are_named(tmp_path: Path) -> None:
    images_at(tmp_path, "cat", "dog")
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox" / "0.heic").write_bytes(b"x")
    assert "class fox has no image that can be read" in ImageFolderSource(tmp_path).remarks


def test_unlabelled_parts_are_left_out_and_told(tmp_path: Path) -> None:
    images_at(tmp_path, "train/cat", "train/dog", "test", "unlabeled", count=30)
    source = ImageFolderSource(tmp_path)
    assert list(classes_of(source)) == ["cat", "dog"]
    assert sum(source.num_samples.values()) == 60
    assert source.num_samples["test"] > 0
    assert "30 images of unlabelled parts (test/0.png)" in source.remarks[0]
    assert "30 images in folders that are no part (unlabeled/0.png)" in source.remarks[0]


def test_strays_that_outnumber_the_classes_are_asked_about(tmp_path: Path) -> None:
    images_at(tmp_path, "old", ".", count=3)
    (tmp_path / "more.png").write_bytes(PIXELS)
    with pytest.raises(DataError, match=r"4 images lie outside any class folder and 3 in folders \(old\)"):
        ImageFolderSource(tmp_path).labels  # noqa: B018
    assert sum(ImageFolderSource(tmp_path, "unlabelled").num_samples.values()) == 7


def test_a_level_that_is_gone_through_is_told(tmp_path: Path) -> None:
    note = ImageFolderSource(images_at(tmp_path, "dataset/cat", "dataset/dog", count=40)).remarks
    assert note[0].startswith("classes are read one level deeper, in dataset")


def test_a_jpeg_under_a_seldom_extension_is_packed_as_jpg(tmp_path: Path) -> None:
    images_at(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "camera.JFIF").write_bytes(image_bytes(1, format="JPEG"))
    source = ImageFolderSource(tmp_path)
    members = dict(load() for split in source.num_samples for load in source.samples(split))
    assert sorted(members["cat/camera"]) == ["cls", "jpg"]


@pytest.mark.parametrize(
    ("counts", "notes"),
    [
        ({"train": {"a": 3}, "test": {"a": 1}}, ["only one class (a): nothing can be ranked"]),
        ({"train": {"a": 3, "b": 1}, "test": {"a": 1, "b": 1}}, ["class b has fewer than 2 training images"]),
        ({"train": {"a": 3, "b": 3}, "test": {"a": 1}}, ["the test part has no image of b"]),
        ({"train": {"a": 3}, "test": {"a": 1, "b": 1}}, ["the train part has no image of b"]),
        ({"train": {"a": 3, "b": 3}, "test": {}}, ["the test part has no image at all"]),
        ({"train": {}, "test": {}}, []),
        ({"train": {"a": 2, "b": 3}, "test": {"a": 1, "b": 1}}, []),
        ({"train": {"a\nb": 2, "c": 2}, "test": {"c": 1}}, [r"the test part has no image of a\nb"]),
    ],
)
def test_classes_that_cannot_be_learned_or_tested_are_named(
    counts: dict[str, dict[str, int]], notes: list[str]
) -> None:
    found = class_notes(counts)
    assert len(found) == len(notes)
    assert all(found[index].startswith(note) for index, note in enumerate(notes))


@pytest.mark.parametrize(
    ("name", "part"),
    [("TRAIN", "train"), ("val2017", "val"), ("seg_test", "test"), ("trained", None), ("evaluate", None)],
)
def test_a_part_is_told_by_a_word_of_its_name(name: str, part: str | None) -> None:
    assert part_of(name) == part


def test_images_in_class_folders_are_meant_where_a_tar_lies_beside_them(tmp_path: Path) -> None:
    images_at(tmp_path / "images", "cat", "dog")
    (tmp_path / "images" / "backup.tar.gz").write_bytes(b"")
    survey = survey_source(data_config(tmp_path / "images", tmp_path / "cache"))
    assert survey.num_classes == {"class": 2}
    assert survey.remarks[0] == "left out: 1 .gz (backup.tar.gz)"


def test_images_beside_shards_are_told(tmp_path: Path) -> None:
    write_tar(tmp_path / "set" / "a.tar", [("0.png", PIXELS), ("0.cls", b"0")])
    (tmp_path / "set" / "preview.png").write_bytes(PIXELS)
    survey = survey_source(data_config(tmp_path / "set", tmp_path / "cache"))
    assert survey.kind == "tars"
    assert survey.remarks == ("left out: 1 image beside the shards (preview.png)",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(PIXELS), "is a file where a folder is meant"),
        (lambda path: path.symlink_to("/nowhere"), "is a link to /nowhere, which is not there"),
    ],
)
def test_what_stands_where_a_folder_is_meant_is_said(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=message):
        survey_source(data_config(tmp_path / "photos", tmp_path / "cache"))


def test_a_link_in_a_circle_where_a_folder_is_meant_is_said(tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to("photos")
    with pytest.raises(StorageError, match=r"photos: cannot be followed.*mend the link"):
        survey_source(data_config(tmp_path / "photos", tmp_path / "cache"))


def one_class(folder: Path, *, packed: bool) -> Any:
    source = images_at(folder / "images", "only", count=40)
    if packed:
        pack_dataset(str(source), str(folder / "shards"))
    return tiny_config(
        folder, data__source=str(folder / ("shards" if packed else "images")), sweep__space=SPACE
    )


@pytest.mark.parametrize("packed", [False, True])
def test_one_class_is_refused_before_anything_is_spent(tmp_path: Path, packed: bool) -> None:
    config = one_class(tmp_path, packed=packed)
    assert "only one class (only): nothing can be ranked" in describe_plan(config).notes[0]
    with pytest.raises(DataError, match=r"only one class \(only\): nothing can be ranked"):
        run_sweep(SweepRequest(config=config, observer=Remembering(), sweep_id="s"))
    assert not (tmp_path / "cache" / "packed").exists()


def test_a_part_without_images_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    source = images_at(tmp_path / "images", "train/cat", "train/dog", "dev/cat", "eval/cat")
    config = tiny_config(tmp_path, data__source=str(source), sweep__space=SPACE)
    with pytest.raises(DataError, match=r"no images in the part 'test' \(data.test_split\).*dev \(4\)"):
        run_sweep(SweepRequest(config=config, observer=Remembering(), sweep_id="s"))


def test_a_sweep_says_at_its_start_what_it_found_and_left_out(tmp_path: Path) -> None:
    source = images_at(tmp_path / "images", "only", count=9)
    (source / "only" / "0.bmp").write_bytes(PIXELS)
    config, observer = tiny_config(tmp_path, data__source=str(source), sweep__space=SPACE), Remembering()
    with pytest.raises(DataError):
        run_sweep(SweepRequest(config=config, observer=observer, sweep_id="s"))
    assert observer.messages[:2] == [
        survey_source(config).text(),
        "left out: 1 .bmp (only/0.bmp)",
    ]
