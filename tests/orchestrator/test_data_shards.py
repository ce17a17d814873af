"""Shards as others write them: what is read right, and what is told of the rest."""

from __future__ import annotations

import gzip
import re
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import Outcome, run_command
from hypothesis import given, settings
from hypothesis import strategies as st
from image_data import data_config, image_bytes, image_folder, write_tar
from test_data_index import index_of

from orchestrator.data import Note, load_images, open_shards, pack_dataset, prepare_data
from orchestrator.data.format.index import ShardIndex
from orchestrator.data.format.labels import LabelCount
from orchestrator.data.format.manifest import LabelInfo
from orchestrator.data.pack.foreign import find_tars, split_pattern
from orchestrator.errors import DataError
from orchestrator.storage import open_store
from orchestrator.sweep.run.labels import check_labels

Members = list[tuple[str, bytes]]
IMAGE = image_bytes(0)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*arguments: str) -> Outcome:
        return run_command(monkeypatch, capsys, "shards", *arguments)

    return call


def samples(count: int, name: str = "{:05d}", *, first: int = 0) -> Members:
    """Images with a class of three beside each."""
    return [
        member
        for number in range(first, first + count)
        for member in (
            (f"{name.format(number)}.png", image_bytes(number)),
            (f"{name.format(number)}.cls", str(number % 3).encode()),
        )
    ]


def kinds(notes: Sequence[Note]) -> dict[str, tuple[int, str]]:
    return {note.kind: (note.count, note.first) for note in notes}


def texts(path: Path, index: ShardIndex, label: str = "cls") -> list[bytes]:
    content = path.read_bytes()
    return [
        content[offset : offset + size] for offset, size in index.labels_N2[label].tolist() if offset >= 0
    ]


@pytest.mark.parametrize(
    "name", ["2024.05.{:05d}", "img.{:04d}", "a/v1.5_{}", "cam{0}.rf.0a{0}", "9.{}/x.{}", "T{:02d}.30.00"]
)
def test_keys_with_dots_are_read_whole(tmp_path: Path, name: str) -> None:
    members = samples(6, name if name.count("{}") < 2 else "9.0/x.{}")
    index = index_of(write_tar(tmp_path / "s.tar", members))
    assert list(index.keys) == [path.removesuffix(".png") for path, _ in members[::2]]
    assert texts(tmp_path / "s.tar", index) == [b"0", b"1", b"2"] * 2
    assert kinds(index.notes) == {"dotted_keys": (1, members[0][0])}


@pytest.mark.parametrize(
    ("views", "extension", "noted"),
    [
        (("left.png", "right.png"), "left.png", True),
        (("png", "seg.png"), "png", False),
        (("0.png", "1.png"), "0.png", True),
    ],
)
def test_members_of_several_kinds_stay_one_sample(
    tmp_path: Path, views: tuple[str, ...], extension: str, noted: bool
) -> None:
    members = [(f"{key}.{kind}", IMAGE) for key in "abc" for kind in (*views, "cls")]
    index = index_of(write_tar(tmp_path / "s.tar", members))
    assert (index.keys, set(index.extensions)) == (("a", "b", "c"), {extension})
    assert [note.count for note in index.notes if note.kind == "several_images"] == [3] * noted


def test_labels_that_do_not_follow_their_images_are_found(tmp_path: Path) -> None:
    members = samples(6)
    path = write_tar(tmp_path / "s.tar", [*members[::2], *members[1::2]])
    index = index_of(path)
    assert (len(index.keys), index.notes) == (6, ())
    assert texts(path, index) == [b"0", b"1", b"2"] * 2


KEYS = st.text("ab.1", min_size=1, max_size=6).filter(lambda key: key[0] != "." and key[-1] != ".")


@settings(max_examples=40, deadline=None)
@given(keys=st.sets(KEYS, min_size=2, max_size=6), folder=st.sampled_from(["", "./", "d.1/"]), data=st.data())
def test_a_shard_in_any_order_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str], folder: str, data: st.DataObject
) -> None:
    written = {f"{folder}x.{key}": f"{number}".encode() for number, key in enumerate(sorted(keys))}
    members = [(f"{key}.{kind}", text) for key, text in written.items() for kind in ("png", "cls")]
    path = write_tar(tmp_path_factory.mktemp("any") / "s.tar", data.draw(st.permutations(members)))
    index, content = index_of(path), path.read_bytes()
    found = {
        key: (content[image : image + size], content[label : label + length])
        for key, (image, size), (label, length) in zip(
            index.keys, index.images_N2.tolist(), index.labels_N2["cls"].tolist(), strict=True
        )
    }
    assert found == {key.removeprefix("./"): (text, text) for key, text in written.items()}


def add_link(tar: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.LNKTYPE) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    tar.addfile(info)


def test_links_within_a_shard_are_followed_and_others_are_noted(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "s.tar", [("d/a.png", b"1"), ("n" * 120 + ".png", b"2")], format=tarfile.GNU_FORMAT
    )
    with tarfile.open(path, "a", format=tarfile.GNU_FORMAT) as tar:
        add_link(tar, "b.png", "d/a.png")
        add_link(tar, "d/c.png", "../b.png", tarfile.SYMTYPE)
        add_link(tar, "l" * 130 + ".png", "n" * 120 + ".png")
        add_link(tar, "gone.png", "/elsewhere/x.png", tarfile.SYMTYPE)
    index, content = index_of(path), path.read_bytes()
    assert index.keys == ("d/a", "n" * 120, "b", "d/c", "l" * 130)
    assert [content[offset : offset + 1] for offset, _ in index.images_N2.tolist()] == [
        b"1",
        b"2",
        b"1",
        b"1",
        b"2",
    ]
    assert kinds(index.notes) == {"dead_link": (1, "gone.png -> /elsewhere/x.png")}


def test_tars_that_were_put_one_after_another_are_read_to_the_end(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / f"{n}.tar", samples(3, first=3 * n)) for n in (0, 1))
    both = tmp_path / "both.tar"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    index = index_of(both)
    assert index.keys == tuple(f"{number:05d}" for number in range(6))
    assert list(kinds(index.notes)) == ["concatenated"]
    both.write_bytes(first.read_bytes() + b"<html>" * 200)
    assert (len(index_of(both).keys), list(kinds(index_of(both).notes))) == (3, ["after_end"])


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_sparse_members_are_noted_and_those_after_them_are_read(tmp_path: Path, format: str) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        for place in range(0, 400, 8):
            file.seek(place * 65536)
            file.write(b"x" * 4096)
    (tmp_path / "b.png").write_bytes(IMAGE)
    arguments = ["tar", "--sparse", f"--format={format}", "-cf", "s.tar", "a.png", "b.png"]
    subprocess.run(arguments, cwd=tmp_path, check=True)
    index = index_of(tmp_path / "s.tar")
    assert (index.keys, kinds(index.notes)) == (("b",), {"sparse": (1, "a.png")})


def test_what_is_no_sample_is_counted_by_kind(tmp_path: Path) -> None:
    members = [
        ("./a.PNG", IMAGE),
        ("./._a.PNG", b"apple"),
        (".b.png", IMAGE),
        ("c.tiff", b"II*"),
        ("d.cls", b"1"),
        ("README", b"text"),
        ("folder/e.png", IMAGE),
        ("__0001.png", IMAGE),
        ("f.jfif", IMAGE),
    ]
    index = index_of(write_tar(tmp_path / "s.tar", members))
    assert index.keys == ("a", "folder/e", "__0001", "f")
    assert kinds(index.notes) == {
        "hidden": (1, ".b.png"),
        "other_format": (1, "c.tiff"),
        "apple": (1, "./._a.PNG"),
        "label_alone": (1, "d.cls"),
    }


def test_a_truncated_shard_is_told_by_every_command_and_packed_only_when_that_is_allowed(run, tmp_path):
    shard = write_tar(tmp_path / "s/train-000.tar", samples(20))
    shard.write_bytes(shard.read_bytes()[:20_000])
    told = r"1 shard is cut short or damaged; what follows the damage is lost (train-000.tar: truncated at byte 20000"
    for command in (["verify", f"{tmp_path}/s"], ["pack", f"{tmp_path}/s", f"{tmp_path}/p"]):
        done = run(*command)
        assert (done.code, told in done.out + done.err) == (3, True)
    assert not (tmp_path / "p").exists()
    done = run("pack", f"{tmp_path}/s", f"{tmp_path}/p", "--allow-loss")
    assert (done.code, told in done.out) == (0, True)
    assert told in run("ls", f"{tmp_path}/p").out
    notes = open_shards(f"{tmp_path}/p", data_config("x", tmp_path / "c").data, None).manifest.notes
    assert [(note.kind, note.is_lost) for note in notes] == [("cut", True)]
    assert run("verify", f"{tmp_path}/p").code == 0


@pytest.mark.parametrize(
    ("spoiled", "kind"),
    [(b"", "empty_image"), (b"<html>not found</html>", "no_image"), (b"GIF89a", "no_image")],
)
def test_images_that_are_none_are_told_and_left_out_when_that_is_allowed(
    tmp_path: Path, spoiled: bytes, kind: str
) -> None:
    members = [*samples(20), ("bad.jpg", spoiled), ("bad.cls", b"1")]
    write_tar(tmp_path / "s/train.tar", members)
    with pytest.raises(DataError, match=r"train\.tar: bad\.jpg"):
        pack_dataset(f"{tmp_path}/s", f"{tmp_path}/p", data=data_config("x", tmp_path / "c").data)
    allowed = data_config("x", tmp_path / "c", allow_loss=True).data
    manifest = pack_dataset(f"{tmp_path}/s", f"{tmp_path}/p", data=allowed)
    assert sum(info.num_samples for info in manifest.shards) == 20
    assert kinds(manifest.notes) == {kind: (1, "train.tar: bad.jpg")}


def test_shards_that_cannot_be_read_are_all_told_at_once(tmp_path: Path) -> None:
    write_tar(tmp_path / "s/train-000.tar", samples(20))
    (tmp_path / "s/train-001.tar").write_bytes(gzip.compress(b"x" * 2000))
    (tmp_path / "s/train-002.tar").write_bytes(b"")
    (tmp_path / "s/train-003.tar").symlink_to("nowhere.tar")
    (tmp_path / "s/train-004.tar.zst").write_bytes(b"")
    write_tar(tmp_path / "else/train-005.tar", samples(2))
    (tmp_path / "s/linked").symlink_to(tmp_path / "else")
    (tmp_path / "s/train-000.tar.gz").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        prepare_data(data_config(tmp_path / "s", tmp_path / "c"))
    text = str(caught.value)
    assert "2 shards cannot be read (the first: train-001.tar: no tar header" in text
    assert (
        "1 compressed shard is left out (train-004.tar.zst); shards are read by offset: unpack them" in text
    )
    assert "1 shard is a link to nothing (train-003.tar)" in text
    assert "1 linked folder with shards is not followed (linked)" in text
    shards = prepare_data(data_config(tmp_path / "s", tmp_path / "c", allow_loss=True))
    assert sum(info.num_samples for info in shards.manifest.shards) == 20
    assert kinds(shards.manifest.notes)["compressed_copy"] == (1, "train-000.tar.gz")
    with pytest.raises(DataError, match="samples are lost"):
        prepare_data(data_config(tmp_path / "s", tmp_path / "c"))


def test_verify_looks_at_the_source_and_not_at_what_was_made_of_it(run, tmp_path):
    shard = write_tar(tmp_path / "s/all.tar", samples(20))
    prepare_data(data_config(tmp_path / "s", tmp_path / "cache/orchestrator"))
    assert run("verify", f"{tmp_path}/s").code == 0
    content = bytearray(shard.read_bytes())
    content[5 * 512 : 5 * 512 + 400] = bytes(400)  # a header in the middle
    shard.write_bytes(content)
    done = run("verify", f"{tmp_path}/s")
    assert (done.code, "all.tar: " in done.out) == (3, True)


def test_verify_says_when_it_looks_at_a_packed_copy(run, tmp_path):
    (tmp_path / "cache").mkdir()
    folder = image_folder(tmp_path / "images", images=4)
    assert run("verify", str(folder)).code == 3
    shards = prepare_data(data_config(folder, tmp_path / "cache/orchestrator"))
    done = run("verify", str(folder))
    assert (done.code, f"this is the packed copy at {shards.uri}" in done.out) == (0, True)


def test_keys_that_several_shards_use_are_packed_apart(tmp_path: Path) -> None:
    for shard in ("x", "y"):
        write_tar(tmp_path / f"s/{shard}.tar", samples(10, "k.{}"))
    shards = prepare_data(data_config(tmp_path / "s", tmp_path / "c"))
    keys = {key for split in shards.splits for key in load_images(shards, split, 99, image_size_px=8).keys}
    assert keys == {f"{shard}/k_{number}" for shard in "xy" for number in range(10)}


def labels_of(values: Sequence[str], extension: str = "cls") -> tuple[dict[str, LabelInfo], tuple[Note, ...]]:
    count = LabelCount()
    for number, value in enumerate(values):
        count.add({extension: value.encode()}, "train", f"k{number}")
    return count.result()


@pytest.mark.parametrize(
    ("values", "classes", "told"),
    [
        (["0.0", "1.0", "2.0"] * 20, ("0", "1", "2"), {}),
        (["dog", "cat", " fox\n"] * 20, ("cat", "dog", "fox"), {}),
        (["-1", *["0", "1"] * 30], ("0", "1"), {"label_unlabelled": (1, "k0 (class)")}),
        (["", *["0", "1"] * 30], ("0", "1"), {"label_empty": (1, "k0 (class)")}),
        (["a", "1"] * 20, ("1", "a"), {"label_mixed": (1, "class")}),
        (["7"] * 9, None, {"label_unused": (1, "class: all samples have the same, 7")}),
        (["-1", "0", "1"] * 5, None, {"label_unlabelled": (5, "k0 (class)")}),
        (["0.5", "1.5"] * 5, None, {"label_number": (10, "k0: 0.5 (class)")}),
        (
            [str(n) for n in range(20)],
            None,
            {"label_unused": (1, "class: 20 values in 20 samples: no classes")},
        ),
    ],
)
def test_a_label_becomes_classes_or_says_why_not(
    values: list[str], classes: tuple[str, ...] | None, told: dict[str, tuple[int, str]]
) -> None:
    labels, notes = labels_of(values)
    assert (labels["class"].class_names if labels else None) == classes
    assert told.items() <= kinds(notes).items()
    assert ("label_unused" in kinds(notes)) == (classes is None)


def test_names_in_json_and_txt_become_classes_and_captions_do_not() -> None:
    names = ["cat", "dog"] * 5
    for extension, text in (("json", '{{"label": "{}", "url": "x"}}'), ("txt", "{}")):
        labels, notes = labels_of([text.format(name) for name in names], extension)
        (info,) = labels.values()
        assert (info.class_names, info.named, notes) == (("cat", "dog"), True, ())
    count = LabelCount()
    for number in range(10):
        caption = f"a photo of {number}".encode()
        count.add({"txt": caption, "json": b'{"shape": %d}' % (number % 2)}, "train", "k")
    labels, notes = count.result()
    assert (list(labels), notes) == (["shape"], ())


def test_samples_without_a_label_are_counted_with_the_first() -> None:
    labels, notes = labels_of(['{"caption": "x"}', '{"label": [1]}'], "json")
    assert (labels, kinds(notes)) == ({}, {"label_absent": (2, "k0")})
    count = LabelCount()
    for number in range(30):
        count.add({"cls": str(number % 2).encode()} if number % 3 else {}, "train", f"k{number}")
    labels, notes = count.result()
    told = {"label_missing": (10, "k0"), "label_unused": (1, "class: 10 of 30 samples have no class")}
    assert (labels, kinds(notes)) == ({}, told)


@pytest.mark.parametrize(("extension", "text"), [("cls", b"\x00\xff"), ("json", b"{oops")])
def test_a_label_that_cannot_be_read_is_told_once_and_not_as_one_that_is_absent(extension, text) -> None:
    count = LabelCount()
    count.add({extension: text}, "train", "k")
    assert kinds(count.result()[1]) == {"label_damaged": (1, f"k.{extension}")}


def test_a_sweep_is_refused_before_anything_is_spent_where_samples_are_lost(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shard = write_tar(tmp_path / "s/train.tar", samples(20))
    shard.write_bytes(shard.read_bytes()[:20_000])
    space = "sweep: {space: {masks.target_scale: {choices: [[0.08, 0.12], [0.15, 0.2]]}}}"
    (tmp_path / "masks.yaml").write_text(f"name: lossy\ndata: {{source: {tmp_path}/s}}\n{space}\n")
    done = run_command(monkeypatch, capsys, "sweep", "masks.yaml")
    assert done.code == 3
    assert "1 shard is cut short" in done.err
    assert "data.allow_loss=true" in done.err
    assert "starting Ray" not in done.out + done.err


def test_classes_by_name_are_read_in_place_and_packed_as_numbers(tmp_path: Path) -> None:
    for part in ("train", "test"):
        named = [
            (f"{n}.{kind}", IMAGE if kind == "png" else name.encode())
            for n, name in enumerate(["fox", "cat"] * 3)
            for kind in ("png", "cls")
        ]
        write_tar(tmp_path / f"s/{part}.tar", named)
    here = prepare_data(data_config(tmp_path / "s", tmp_path / "c"))
    assert load_images(here, "test", 9, image_size_px=8).labels["class"].tolist() == [1, 0] * 3
    pack_dataset(f"{tmp_path}/s", f"{tmp_path}/p", data=data_config("x", tmp_path / "c").data)
    packed = prepare_data(data_config(tmp_path / "p", tmp_path / "c"))
    assert packed.labels["class"] == LabelInfo(num_classes=2, class_names=("cat", "fox"))
    assert load_images(packed, "test", 9, image_size_px=8).labels["class"].tolist() == [1, 0] * 3


def test_a_sweep_without_usable_labels_says_why_and_does_not_ask_for_what_was_given(tmp_path: Path) -> None:
    config = data_config(tmp_path, tmp_path / "c").model_copy(deep=True)
    config = config.model_copy(
        update={"sweep": config.sweep.model_copy(update={"space": {"train.seed": object()}})}
    )
    with pytest.raises(
        DataError, match=r"10 labels are no whole number from 0 on \(the first: k0: 0.5"
    ) as caught:
        check_labels(config, {}, labels_of(["0.5", "1.5"] * 5)[1])
    assert "give a folder" not in str(caught.value)


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_patterns_of_a_shell_name_shards(tmp_path: Path, where: str, request: pytest.FixtureRequest) -> None:
    uri = str(tmp_path / "s") if where == "folder" else request.getfixturevalue("s3_bucket")
    store = open_store(uri)
    for name in ("a-1.tar", "a-2.tar", "b/a-3.tar", "c.txt", "._a-1.tar"):
        store.write(name, b"")
    for pattern, expected in (
        ("*.tar", ["a-1.tar", "a-2.tar"]),
        ("a-?.tar", ["a-1.tar", "a-2.tar"]),
        ("**/*-[13].tar", ["a-1.tar", "b/a-3.tar"]),
        ("a-*", ["a-1.tar", "a-2.tar"]),
        ("{b,d}/*.tar", ["b/a-3.tar"]),
    ):
        folder, names = split_pattern(f"{uri}/{pattern}")
        if pattern.startswith("{"):
            names = names[:1]
        assert find_tars(open_store(folder), names) == expected
    with pytest.raises(
        DataError, match=r"no shard fits this pattern.*3 \.tar files, the first is a-1\.tar.*\{000"
    ):
        prepare_data(data_config(f"{uri}/z-*.tar", tmp_path / "c"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["b.tar"], "there is no shard b.tar"),
        (["a.tar", "b.tar"], "1 of 2 shards is missing, the first is b.tar"),
        (["a.tar", "b.tar", "c.tar"], "2 of 3 shards are missing, the first is b.tar"),
        (["z-*.tar"], "there is 1 .tar file, the first is a.tar"),
    ],
)
def test_shards_that_are_not_there_are_counted_in_words_that_agree(tmp_path, names, said) -> None:
    store = open_store(str(tmp_path))
    store.write("a.tar", b"")
    with pytest.raises(DataError, match=re.escape(said)):
        find_tars(store, names)


def test_braces_stars_and_brackets_in_the_names_of_files_are_taken_as_they_are(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "my [1] {x}/a*.tar", samples(12))
    shards = prepare_data(data_config(path, tmp_path / "c"))
    assert sum(info.num_samples for info in shards.manifest.shards) == 12


@pytest.mark.parametrize("where", ["folder", "bucket"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("000.jpg", "is a file where a folder is meant; give the folder"),
        ("x.zip", "unpack it"),
        ("x.tar.gz", "unpack it"),
    ],
)
def test_one_file_where_a_folder_is_meant_is_named(
    tmp_path: Path, where: str, name: str, told: str, request: pytest.FixtureRequest
) -> None:
    uri = str(tmp_path / "s") if where == "folder" else request.getfixturevalue("s3_bucket")
    open_store(uri).write(f"cat/{name}", b"x")
    with pytest.raises(DataError, match=told) as caught:
        prepare_data(data_config(f"{uri}/cat/{name}", tmp_path / "c"))
    assert f"{uri}/cat" in str(caught.value)


def test_a_bucket_tells_the_same_of_a_damaged_shard(s3_bucket: str, tmp_path: Path) -> None:
    content = write_tar(tmp_path / "t.tar", samples(20)).read_bytes()
    open_store(s3_bucket).write("train.tar", content[:20_000])
    with pytest.raises(DataError, match=r"1 shard is cut short.*train\.tar: truncated at byte 20000"):
        prepare_data(data_config(s3_bucket, tmp_path / "c"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "no_gzip"])
def test_damaged_idx_files_are_named(tmp_path: Path, damage: str) -> None:
    for prefix, count in (("train", 20), ("t10k", 4)):
        images = (
            bytes([0, 0, 8, 3])
            + b"".join(n.to_bytes(4, "big") for n in (count, 4, 4))
            + bytes(range(16)) * count
        )
        labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(n % 2 for n in range(count))
        (tmp_path / f"{prefix}-images.idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{prefix}-labels.idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    path = tmp_path / "train-images.idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-20], "flipped": bytes(content), "no_gzip": b"x" * 40}[damage])
    with pytest.raises(DataError, match=r"train-images\.idx3-ubyte\.gz: .*fetch it again"):
        prepare_data(data_config(tmp_path, tmp_path / "c"))
