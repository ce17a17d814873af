from __future__ import annotations

import gzip
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_data import data_config, image_bytes, image_folder, write_tar
from PIL import Image

from orchestrator.data import (
    PackSettings,
    Reencode,
    load_images,
    open_shards,
    pack_dataset,
    prepare_data,
    verify_shards,
)
from orchestrator.data.pack.foreign import assign_splits, expand_braces, split_pattern
from orchestrator.data.pack.sources import ImageFolderSource
from orchestrator.data.pack.write import pack
from orchestrator.errors import DataError, StorageError
from orchestrator.storage import LocalStore


def write_idx(folder: Path, *, compressed: bool) -> dict[str, np.ndarray]:
    """Four idx files of 30 + 10 images of 12 px."""
    folder.mkdir(parents=True)
    images = {}
    for prefix, count in (("train", 30), ("t10k", 10)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 12, 12), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        images[prefix] = pixels
        for kind, array in (("images", pixels), ("labels", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            path = folder / f"{prefix}-{kind}-idx{array.ndim}-ubyte"
            content = header + array.tobytes()
            if compressed:
                path = path.with_name(path.name + ".gz")
                content = gzip.compress(content)
            path.write_bytes(content)
    return images


def tree_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images")
    for name in ("a", "b"):
        pack_dataset(str(folder), str(tmp_path / name), settings=PackSettings(shard_size_mb=0.02))
        for path in folder.rglob("*.png"):
            path.touch()
    assert tree_bytes(tmp_path / "a") == tree_bytes(tmp_path / "b")
    assert len(tree_bytes(tmp_path / "a")) > 4


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_number_of_workers_does_not_change_a_byte(tmp_path: Path, workers: int) -> None:
    folder = image_folder(tmp_path / "images")
    settings = PackSettings(shard_size_mb=0.02, workers=workers)
    pack_dataset(str(folder), str(tmp_path / "a"), settings=PackSettings(shard_size_mb=0.02))
    pack_dataset(str(folder), str(tmp_path / "b"), settings=settings)
    assert tree_bytes(tmp_path / "a") == tree_bytes(tmp_path / "b")


@dataclass(frozen=True)
class FailingStore(LocalStore):
    """Refuses shards after the first few, and forgets one that it had taken."""

    log: str = ""

    def write(self, key: str, data: bytes) -> None:
        if key.endswith("3.tar"):
            raise StorageError("the disk is full")
        with open(self.log, "a") as log:
            log.write(f"{key}\n")
        super().write(key, data)


def test_packing_goes_on_after_the_shards_that_are_finished(tmp_path: Path) -> None:
    source = ImageFolderSource(image_folder(tmp_path / "images"))
    settings = PackSettings(shard_size_mb=0.02)
    failing = FailingStore(str(tmp_path / "a"), log=str(tmp_path / "log"))
    with pytest.raises(StorageError, match="disk is full"):
        pack(source, failing, settings)
    finished = {path.name for path in (tmp_path / "a").glob("*.tar")}
    assert len(finished) >= 3
    (tmp_path / "a" / "train-000001.tar").unlink()
    (tmp_path / "a" / ".orchestrator-tmp-123").write_bytes(b"half")
    times = {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in finished - {"train-000001.tar"}}
    pack(source, LocalStore(str(tmp_path / "a")), settings)
    assert times == {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in times}
    pack(source, LocalStore(str(tmp_path / "b")), settings)
    assert tree_bytes(tmp_path / "a") == tree_bytes(tmp_path / "b")


def test_packing_does_not_go_on_from_another_source_or_other_settings(tmp_path: Path) -> None:
    source = ImageFolderSource(image_folder(tmp_path / "images"))
    with pytest.raises(StorageError):
        pack(
            source,
            FailingStore(str(tmp_path / "a"), log=str(tmp_path / "log")),
            PackSettings(shard_size_mb=0.02),
        )
    with pytest.raises(DataError, match="other settings"):
        pack(source, LocalStore(str(tmp_path / "a")), PackSettings(shard_size_mb=0.03))


def test_images_are_re_encoded_and_shrunk_when_told_so(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", images=2)
    (folder / "ant" / "wide.png").write_bytes(image_bytes(7, size=(90, 60)))
    (folder / "ant" / "broken.png").write_bytes(b"no image")
    settings = PackSettings(reencode=Reencode(shorter_side_px=30, quality=95))
    pack_dataset(str(folder), str(tmp_path / "out"), settings=settings)
    sizes = {}
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    sizes[member.name] = Image.open(tar.extractfile(member)).size
                elif member.name.endswith(".png"):
                    assert tar.extractfile(member).read() == b"no image"
    assert sizes.pop("ant/wide.jpg") == (45, 30)
    assert set(sizes.values()) == {(24, 24)}
    assert len(sizes) == 6


def test_images_are_stored_as_they_came_without_times_or_owners(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", images=3)
    (folder / "ant" / "extra.JPG").write_bytes(image_bytes(7, format="JPEG"))
    pack_dataset(str(folder), str(tmp_path / "out"))
    stored = {}
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
                stored[member.name] = tar.extractfile(member).read()
    assert stored["ant/extra.jpg"] == (folder / "ant" / "extra.JPG").read_bytes()
    assert stored["bee/001.png"] == (folder / "bee" / "001.png").read_bytes()
    assert stored["bee/001.cls"] == b"1"


def test_a_folder_without_a_test_part_gets_one_and_keeps_its_classes_mixed(tmp_path: Path) -> None:
    image_folder(tmp_path / "images", images=60)
    manifest = pack_dataset(
        str(tmp_path / "images"), str(tmp_path / "out"), settings=PackSettings(shard_size_mb=0.05)
    )
    assert manifest.labels["class"].class_names == ("ant", "bee", "cat")
    assert manifest.num_samples("train") + manifest.num_samples("test") == 180
    assert 8 <= manifest.num_samples("test") <= 30
    first = next(shard for shard in manifest.shards if shard.split == "train")
    with tarfile.open(tmp_path / "out" / first.name) as tar:
        labels = {tar.extractfile(member).read() for member in tar if member.name.endswith(".cls")}
    assert labels == {b"0", b"1", b"2"}


@pytest.mark.parametrize("name", ["test", "val", "Validation"])
def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    image_folder(tmp_path / "images" / "train", images=5)
    image_folder(tmp_path / "images" / name, images=2, first=500)
    manifest = pack_dataset(str(tmp_path / "images"), str(tmp_path / "out"))
    assert {split: manifest.num_samples(split) for split in manifest.splits} == {"train": 15, "test": 6}


def test_images_without_classes_have_no_labels(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(image_bytes(number))
    config = data_config(tmp_path, tmp_path / "cache")
    shards = prepare_data(config)
    assert shards.labels == {}
    assert load_images(shards, "train", 100, image_size_px=16).labels == {}


def test_file_names_that_give_one_key_stay_apart(tmp_path: Path) -> None:
    for name in ("a.b.png", "a_b.png", "a_b.jpg", "ü ö.png"):
        format = "JPEG" if name.endswith("jpg") else "PNG"
        (tmp_path / name).write_bytes(image_bytes(0, format=format))
    manifest = pack_dataset(str(tmp_path), str(tmp_path / "out"))
    assert sum(shard.num_samples for shard in manifest.shards) == 4
    assert (
        verify_shards(open_shards(str(tmp_path / "out"), data_config("x", tmp_path / "c").data, None)).faults
        == ()
    )


@pytest.mark.parametrize("compressed", [True, False])
def test_idx_files_are_packed(tmp_path: Path, compressed: bool) -> None:
    images = write_idx(tmp_path / "fashion-mnist", compressed=compressed)
    shards = prepare_data(data_config(tmp_path / "fashion-mnist", tmp_path / "cache"))
    assert shards.labels["class"].class_names[9] == "ankle boot"
    found = load_images(shards, "test", 100, image_size_px=12)
    assert np.array_equal(found.images_uint8_NCHW[:, 0].numpy(), images["t10k"])
    assert found.labels["class"].tolist() == list(range(10))


def test_damaged_idx_files_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "idx", compressed=False)
    path = tmp_path / "idx" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="not an idx file"):
        prepare_data(data_config(tmp_path / "idx", tmp_path / "cache"))
    path.unlink()
    with pytest.raises(DataError, match="needs all four"):
        prepare_data(data_config(tmp_path / "idx", tmp_path / "cache"))


def test_a_place_with_packed_shards_is_not_packed_over(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", images=2)
    pack_dataset(str(folder), str(tmp_path / "out"))
    before = tree_bytes(tmp_path / "out")
    with pytest.raises(DataError, match="packed shards already"):
        pack_dataset(str(folder), str(tmp_path / "out"))
    assert tree_bytes(tmp_path / "out") == before


def foreign_shards(root: Path, split: str, shards: int, *, labelled: str = "cls") -> None:
    for shard in range(shards):
        members = []
        for number in range(6):
            key = f"{split}_{shard}_{number}"
            members.append((f"{key}.jpg", image_bytes(100 * shard + number, format="JPEG")))
            if labelled == "cls":
                members.append((f"{key}.cls", str(number % 3).encode()))
            else:
                text = {"shape": number % 3, "id": 7000 * shard + number, "name": "x", "is_new": True}
                members.append((f"{key}.json", json.dumps(text).encode()))
        write_tar(root / f"{split}-{shard:03d}.tar", members)


def test_a_foreign_webdataset_is_read_in_place(tmp_path: Path) -> None:
    foreign_shards(tmp_path / "wds", "imagenet-train", 3)
    foreign_shards(tmp_path / "wds", "imagenet-val", 1)
    shards = prepare_data(data_config(tmp_path / "wds", tmp_path / "cache"))
    assert {split: shards.manifest.num_samples(split) for split in shards.splits} == {"train": 18, "test": 6}
    assert shards.labels["class"].num_classes == 3
    assert shards.store.uri == str(tmp_path / "wds")
    assert load_images(shards, "test", 9, image_size_px=16).labels["class"].tolist() == [0, 1, 2, 0, 1, 2]
    assert sorted(path.name for path in (tmp_path / "wds").iterdir())[-1] == "imagenet-val-000.tar"


def test_brace_patterns_name_shards(tmp_path: Path) -> None:
    foreign_shards(tmp_path / "wds", "x-train", 4)
    foreign_shards(tmp_path / "wds", "x-test", 2)
    pattern = f"{tmp_path}/wds/x-{{train-00{{0..2}},test-001}}.tar"
    shards = prepare_data(data_config(pattern, tmp_path / "cache"))
    assert [info.name for info in shards.manifest.shards] == [
        "x-train-000.tar",
        "x-train-001.tar",
        "x-train-002.tar",
        "x-test-001.tar",
    ]
    with pytest.raises(DataError, match="missing"):
        prepare_data(data_config(f"{tmp_path}/wds/x-train-{{000..009}}.tar", tmp_path / "cache"))


def test_integers_of_json_that_repeat_are_labels(tmp_path: Path) -> None:
    foreign_shards(tmp_path / "wds", "train", 3, labelled="json")
    foreign_shards(tmp_path / "wds", "test", 1, labelled="json")
    shards = prepare_data(data_config(tmp_path / "wds", tmp_path / "cache"))
    assert {name: info.num_classes for name, info in shards.labels.items()} == {"shape": 3}


def test_few_foreign_shards_without_a_test_part_are_packed_anew(tmp_path: Path) -> None:
    foreign_shards(tmp_path / "wds", "part", 9)
    shards = prepare_data(data_config(tmp_path / "wds", tmp_path / "cache"))
    counts = {split: shards.manifest.num_samples(split) for split in shards.splits}
    assert sum(counts.values()) == 54
    assert 1 <= counts["test"] <= 15
    assert verify_shards(shards, decode=True).faults == ()


def test_compressed_foreign_shards_are_named(tmp_path: Path) -> None:
    (tmp_path / "wds").mkdir()
    (tmp_path / "wds" / "a.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="unpack"):
        prepare_data(data_config(tmp_path / "wds", tmp_path / "cache"))


def test_a_tenth_of_many_unnamed_shards_is_held_out() -> None:
    splits = assign_splits([f"{number:05d}.tar" for number in range(200)])
    assert list(splits.values()).count("test") == 20
    assert splits == assign_splits(sorted(splits, reverse=True))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a{8..11}.tar", ["a8.tar", "a9.tar", "a10.tar", "a11.tar"]),
        ("a{08..11}.tar", ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]),
        ("{x,y}{0..1}.tar", ["x0.tar", "x1.tar", "y0.tar", "y1.tar"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern: str, expected: list[str]) -> None:
    assert expand_braces(pattern) == expected


@pytest.mark.parametrize("pattern", ["a{0..9", "a}b", "{0..9999999}", "{a,b" * 3, "a{9..0}"])
def test_impossible_braces_are_refused(pattern: str) -> None:
    with pytest.raises(DataError):
        expand_braces(pattern)


@given(st.integers(0, 30), st.integers(0, 30))
def test_a_range_has_every_number_once(first: int, more: int) -> None:
    names = expand_braces(f"s-{{{first:04d}..{first + more:04d}}}.tar")
    assert names == [f"s-{number:04d}.tar" for number in range(first, first + more + 1)]


def test_a_pattern_is_split_at_its_last_plain_folder() -> None:
    assert split_pattern("s3://b/x/{train,val}/a-{0..1}.tar")[0] == "s3://b/x"
    assert split_pattern("dir/a.tar") == ("dir", ["a.tar"])
    assert split_pattern("a.tar") == (".", ["a.tar"])
    assert split_pattern("s3://b/x/") == ("s3://b/x", None)


def test_packing_that_was_killed_after_the_manifest_is_ended_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ImageFolderSource(image_folder(tmp_path / "images", images=10))
    store = LocalStore(str(tmp_path / "out"))
    monkeypatch.setattr("orchestrator.data.pack.write._Finished.forget", lambda self: None)
    manifest = pack(source, store)
    monkeypatch.undo()
    assert store.list("packing/")
    assert pack(source, store) == manifest
    assert not store.list("packing/")
    with pytest.raises(DataError, match="packed shards already"):
        pack(source, store)


@pytest.mark.parametrize("are_notes_left", [False, True])
def test_a_source_whose_packing_was_killed_before_the_rename_is_taken_as_it_is(
    tmp_path: Path, are_notes_left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = data_config(image_folder(tmp_path / "images", images=10), tmp_path / "cache")
    if are_notes_left:
        monkeypatch.setattr("orchestrator.data.pack.write._Finished.forget", lambda self: None)
    shards = prepare_data(config)
    monkeypatch.undo()
    folder = Path(shards.uri)
    folder.rename(folder.with_name(f"{folder.name}.part"))
    again = prepare_data(config)
    assert (again.uri, again.digest) == (shards.uri, shards.digest)
    assert not (folder / "packing").exists()
