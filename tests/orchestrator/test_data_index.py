from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from image_data import image_bytes, write_tar

from orchestrator.data.format.index import ShardIndex, build_index, parse_index, walk_tar
from orchestrator.errors import DataError


def index_of(path: Path) -> ShardIndex:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return build_index(descriptor, path.name)
    finally:
        os.close(descriptor)


def test_samples_are_runs_of_members_with_one_key(tmp_path: Path) -> None:
    members = [
        ("a/x.cls", b"1"),
        ("a/x.JPG", b"jpeg"),
        ("a/x.json", b"{}"),
        ("b/x.png", b"png"),
        ("b/x.seg.png", b"no"),
    ]
    index = index_of(write_tar(tmp_path / "s.tar", members))
    assert index.keys == ("a/x", "b/x")
    assert index.extensions == ("jpg", "png")
    content = (tmp_path / "s.tar").read_bytes()
    assert [content[offset : offset + size] for offset, size in index.images_N2.tolist()] == [b"jpeg", b"png"]
    assert index.labels_N2["cls"][1].tolist() == [-1, -1]


def test_an_image_with_a_longer_extension_is_found(tmp_path: Path) -> None:
    index = index_of(
        write_tar(tmp_path / "s.tar", [("x.left.png", b"1"), ("x.right.png", b"2"), ("x.txt", b"3")])
    )
    assert index.extensions == ("left.png",)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_tar_formats_and_long_names_are_read(tmp_path: Path, format: int) -> None:
    long = "d" * 90 + "/" + "n" * 90 if format == tarfile.USTAR_FORMAT else "d" * 200 + "/ü" + "n" * 90
    index = index_of(
        write_tar(tmp_path / "s.tar", [(f"{long}.png", b"1"), ("short.png", b"22")], format=format)
    )
    assert index.keys == (long, "short")


def test_names_that_lead_elsewhere_and_special_files_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("../evil.png", "/abs.png", "a/../../b.png", "good.png"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("special.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert index_of(tmp_path / "s.tar").keys == ("good",)


def test_of_a_tar_cut_anywhere_the_whole_samples_are_kept_and_the_cut_is_noted(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [(f"{n}.png", bytes([n]) * 700) for n in range(3)])
    whole, sample_bytes = path.read_bytes(), 512 + 1024
    for length in [*range(0, 3 * sample_bytes + 1, 512), 100, 600, 1000]:
        path.write_bytes(whole[:length])
        num_whole = max(0, (length - 512) // sample_bytes)  # the last one might have had more members
        if num_whole == 0:
            with pytest.raises(DataError, match=r"s\.tar"):
                index_of(path)
            continue
        index = index_of(path)
        assert index.keys == tuple(str(number) for number in range(num_whole))
        assert "truncated" in index.damage
        assert index.damage_offset == length


def test_any_flipped_byte_of_a_header_is_noticed(tmp_path: Path) -> None:
    members = [("a.png", b"x" * 10), ("b.png", b"y"), ("c.png", b"z")]
    whole = write_tar(tmp_path / "s.tar", members).read_bytes()
    for position in range(2048, 2048 + 500, 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        (tmp_path / "s.tar").write_bytes(damaged)
        index = index_of(tmp_path / "s.tar")
        assert (index.keys, index.damage_offset) == (("a",), 2048)
        assert "byte 2048" in index.damage


def test_a_compressed_tar_is_named_as_such(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match="uncompressed"):
        index_of(tmp_path / "s.tar")


def test_a_member_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 2**40
    (tmp_path / "s.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match="at most"):
        index_of(tmp_path / "s.tar")


@pytest.mark.parametrize(("second", "kind"), [(b"1", "same_twice"), (b"2", "replaced")])
def test_of_two_members_with_one_name_the_last_is_read_and_that_is_noted(
    tmp_path: Path, second: bytes, kind: str
) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.png", b"1"), ("b.png", b"3"), ("a.png", second)])
    index = index_of(path)
    assert index.keys == ("a", "b")
    (first, _), _ = index.images_N2.tolist()
    assert path.read_bytes()[first : first + 1] == second
    assert [(note.kind, note.count, note.first) for note in index.notes] == [(kind, 1, "a.png")]


def test_a_kept_index_is_the_same_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    index = index_of(write_tar(tmp_path / "s.tar", [("a.png", image_bytes(0)), ("a.cls", b"1")]))
    again = parse_index(index.to_json())
    assert again is not None
    assert again.to_json() == index.to_json()
    assert parse_index(index.to_json()[:-5]) is None
    assert parse_index(b'{"format": 99}') is None


def test_the_walk_agrees_with_the_standard_library(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [(f"{n}/{n}.jpg", os.urandom(n * 97)) for n in range(40)])
    with path.open("rb") as file, tarfile.open(path) as tar:
        ours = [
            (member.name, member.offset, member.size_bytes) for member in walk_tar(file.fileno(), "s.tar")
        ]
        assert ours == [(member.name, member.offset_data, member.size) for member in tar]
