from __future__ import annotations

import concurrent.futures
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_data import data_config, global_stream, image_bytes, image_folder, open_stream, write_tar

from orchestrator.config.models import StorageConfig
from orchestrator.data import (
    PackSettings,
    load_images,
    open_shards,
    pack_dataset,
    prepare_data,
    verify_shards,
)
from orchestrator.data.format.manifest import LabelInfo, Manifest, ShardInfo, parse_manifest
from orchestrator.data.pack.write import secure_webdataset
from orchestrator.errors import DataError, StorageError


def test_an_image_folder_is_packed_once_until_it_changes(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", images=5)
    config = data_config(folder, tmp_path / "cache")
    told: list[str] = []
    first = prepare_data(config, progress=told.append)
    assert told
    assert str(folder) in told[0]
    told.clear()
    assert prepare_data(config, progress=told.append) == first
    assert told == []
    (folder / "ant" / "new.png").write_bytes(image_bytes(99))
    assert prepare_data(config).digest != first.digest


def test_several_that_come_at_once_pack_once(tmp_path: Path) -> None:
    config = data_config(image_folder(tmp_path / "images", images=10), tmp_path / "cache")
    told: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepare_data(config, progress=told.append), range(4)))
    assert len({shards.uri for shards in found}) == 1
    assert len([line for line in told if line.endswith("30 images") and "of" not in line.split(":")[-1]]) == 1


def test_packing_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    config = data_config(image_folder(tmp_path / "images", images=5), tmp_path / "cache")
    shards = prepare_data(config)
    manifest = Path(shards.uri, "manifest.json")
    manifest.unlink()
    leftover = Path(shards.uri + ".part")
    leftover.mkdir()
    (leftover / "train-000009.tar").write_bytes(b"half")
    again = prepare_data(config)
    assert again.digest == shards.digest
    assert not leftover.exists()


def test_packed_shards_are_opened_where_they_are(tmp_path: Path) -> None:
    pack_dataset(str(image_folder(tmp_path / "images")), str(tmp_path / "shards"))
    shards = prepare_data(data_config(f"file://{tmp_path}/shards", tmp_path / "cache"))
    assert shards.uri == str(tmp_path / "shards")
    assert not (tmp_path / "cache" / "packed").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "missing", "no such folder"),
        (lambda root: root, "holds no shards"),
        (lambda root: root / "missing-{0..1}.tar", "missing"),
    ],
)
def test_a_wrong_source_says_what_is_wrong_and_what_to_do(tmp_path: Path, make: object, message: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=message) as caught:
        prepare_data(data_config(make(tmp_path), tmp_path / "cache"))  # type: ignore[operator]
    assert str(tmp_path) in str(caught.value)
    assert ";" in str(caught.value)


def test_an_empty_prefix_of_a_bucket_says_what_to_do(s3_bucket: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shards pack"):
        prepare_data(data_config(f"{s3_bucket}/nothing", tmp_path / "cache"))
    with pytest.raises(StorageError, match="no such bucket"):
        prepare_data(data_config("s3://no-such-bucket-here/x", tmp_path / "cache"))


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = data_config(image_folder(tmp_path / "images", images=2), tmp_path / "file" / "cache")
    with pytest.raises(StorageError, match=r"data\.cache_dir"):
        prepare_data(config)


def test_an_altered_manifest_is_refused(tmp_path: Path) -> None:
    pack_dataset(str(image_folder(tmp_path / "images", images=4)), str(tmp_path / "shards"))
    path = tmp_path / "shards" / "manifest.json"
    data = json.loads(path.read_text())
    config = data_config(tmp_path / "shards", tmp_path / "cache")
    for change in (
        lambda d: d["splits"]["train"][0].update(num_samples=999),
        lambda d: d["splits"]["train"][0].update(sha256="0"),
        lambda d: d.update(format=99),
        lambda d: d.pop("labels"),
        lambda d: d.update(splits={}),
    ):
        altered = json.loads(json.dumps(data))
        change(altered)
        path.write_text(json.dumps(altered))
        with pytest.raises(DataError, match=r"manifest\.json"):
            prepare_data(config)
    path.write_text("not json")
    with pytest.raises(DataError, match="not a shard manifest"):
        open_shards(str(tmp_path / "shards"), config.data, StorageConfig())


def test_a_manifest_survives_its_file_and_its_digest_names_the_content() -> None:
    shard = ShardInfo(name="a.tar", split="train", num_samples=3, size_bytes=10, sha256="0" * 64)
    manifest = Manifest(shards=(shard,), labels={"class": LabelInfo(num_classes=2, class_names=("x", "y"))})
    assert parse_manifest(manifest.dump(), "here") == manifest
    elsewhere = Manifest(shards=manifest.shards, labels=manifest.labels, base_uri="s3://bucket/x")
    assert elsewhere.digest == manifest.digest
    assert Manifest(shards=manifest.shards).digest != manifest.digest
    measured = replace(manifest, amounts={"depth_m": "m"})
    assert parse_manifest(measured.dump(), "here") == measured
    assert measured.digest != manifest.digest


@pytest.mark.parametrize("depth", ["", "1e999", '"far"', "true"])
def test_a_sample_without_its_amount_is_left_out_and_found_by_verification(
    tmp_path: Path, depth: str
) -> None:
    members = []
    for number in range(4):
        told = depth if number == 2 else f"{number}.5"
        text = f'{{"class": {number % 2}, "depth_m": {told}}}' if told else f'{{"class": {number % 2}}}'
        members += [(f"{number}.png", image_bytes(number, format="PNG")), (f"{number}.json", text.encode())]
    write_tar(tmp_path / "shards/train-000.tar", members)
    write_tar(tmp_path / "shards/test-000.tar", members)
    config = data_config(tmp_path / "shards", tmp_path / "cache", max_bad_fraction=0.5)
    foreign = prepare_data(config).manifest
    manifest = replace(foreign, amounts={"depth_m": "m"}, base_uri=None)
    (tmp_path / "shards/manifest.json").write_bytes(manifest.dump())
    shards = prepare_data(config)
    found = load_images(shards, "test", 4, image_size_px=16, max_bad_fraction=0.5)
    assert found.amounts["depth_m"].tolist() == [0.5, 1.5, 3.5]
    assert found.labels["class"].tolist() == [0, 1, 1]
    faults = verify_shards(shards, decode=True).faults
    assert [fault.key for fault in faults] == ["2", "2"]
    assert "amount depth_m" in faults[0].reason


def test_verification_finds_every_kind_of_damage(tmp_path: Path) -> None:
    image_folder(tmp_path / "images", images=20)
    pack_dataset(
        str(tmp_path / "images"), str(tmp_path / "shards"), settings=PackSettings(shard_size_mb=0.02)
    )
    shards = prepare_data(data_config(tmp_path / "shards", tmp_path / "cache"))
    assert verify_shards(shards, decode=True).faults == ()
    names = [info.name for info in shards.manifest.shards]
    (tmp_path / "shards" / names[0]).unlink()
    cut = tmp_path / "shards" / names[1]
    cut.write_bytes(cut.read_bytes()[:-2000])
    flipped = tmp_path / "shards" / names[2]
    content = bytearray(flipped.read_bytes())
    content[3 * 512 + 100] ^= 255  # in the first image: its label comes first
    flipped.write_bytes(content)
    found = verify_shards(shards, decode=True)
    assert {fault.shard for fault in found.faults} == set(names[:3])
    assert any(fault.key for fault in found.faults if fault.shard == names[2])
    assert (found.num_shards, found.num_samples) == (len(names), 60)


def test_nothing_in_a_shard_is_ever_run(tmp_path: Path) -> None:
    """Members and names that make other readers run code are bytes to ours."""
    canary = tmp_path / "canary"
    bomb = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    members = []
    for number in range(20):
        members.append((f"{number}.png", image_bytes(number)))
        members += [(f"{number}.{kind}", bomb) for kind in EXECUTABLE]
    members += [(f"pipe:touch {canary};.png", image_bytes(1)), (f"../../{canary.name}.png", image_bytes(2))]
    write_tar(tmp_path / "wds" / "train.tar", members)
    write_tar(tmp_path / "wds" / "test.tar", members)
    write_tar(tmp_path / "wds" / f"pipe:touch {canary.name}.tar", members[:1])
    seen: list[str] = []
    sys.addaudithook(lambda event, _: seen.append(event) if event in FORBIDDEN and ACTIVE else None)
    ACTIVE.append(True)
    try:
        config = data_config(tmp_path / "wds", tmp_path / "cache", loader_threads=0)
        shards = prepare_data(config)
        global_stream(shards, config)
        load_images(shards, "test", 50, image_size_px=16)
        verify_shards(shards, decode=True)
        pack_dataset(str(tmp_path / "wds"), str(tmp_path / "packed"))
    finally:
        ACTIVE.clear()
    assert not canary.exists()
    assert seen == []


ACTIVE: list[bool] = []
EXECUTABLE = ("pyd", "pickle", "pkl", "pth", "npy", "cbor", "json", "cls")
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class")


@pytest.mark.parametrize(
    "source", ["pipe:cat x.tar", "pipe:touch canary", "http://host/a.tar", "gs://bucket/x"]
)
def test_sources_other_than_folders_and_buckets_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(Exception, match=r"s3://"):
        prepare_data(data_config(source, tmp_path / "cache"))
    with pytest.raises((DataError, StorageError)):
        pack_dataset(source, str(tmp_path / "out"))


def test_webdataset_runs_with_its_switches_against_code_in_data() -> None:
    import webdataset.utils

    secure_webdataset()
    assert webdataset.utils.enforce_security


def test_scenes_are_packed_on_first_use_and_streamed(tmp_path: Path) -> None:
    sizes = {"scenes_train_images": 120, "scenes_test_images": 100, "scenes_image_size_px": 24}
    config = data_config("scenes", tmp_path / "cache", **sizes)
    shards = prepare_data(config)
    assert {split: shards.manifest.num_samples(split) for split in shards.splits} == {
        "train": 120,
        "test": 100,
    }
    assert set(shards.labels) == {"class", "surface", "count", "distance"}
    found = load_images(shards, "test", 100, image_size_px=24)
    for name, info in shards.labels.items():
        assert 0 <= int(found.labels[name].min()) <= int(found.labels[name].max()) < info.num_classes
    assert shards.amounts == {"distance_m": "m"}
    edges_m = torch.tensor([3.6, 4.2, 4.8, 5.4], dtype=torch.float64)
    bins = torch.bucketize(found.amounts["distance_m"], edges_m)
    assert (
        bins == found.labels["distance"]
    ).double().mean() > 0.98  # a distance at an edge may round over it
    with open_stream(shards, config, image_size_px=24) as stream:
        assert next(stream).images_uint8_BCHW.float().std() > 10
    assert prepare_data(config).uri == shards.uri
    other = data_config("scenes", tmp_path / "cache", **{**sizes, "scenes_seed": 1})
    assert prepare_data(other).digest != shards.digest
    again = prepare_data(data_config("scenes", tmp_path / "cache2", **sizes))
    assert again.digest == shards.digest
