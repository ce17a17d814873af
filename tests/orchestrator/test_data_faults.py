"""Streaming from a real S3 server through a network that fails, with damaged shards and images in it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
from collections import Counter
from pathlib import Path

import pytest
from fault_proxy import FAULTS, run_fault_proxy
from image_data import (
    data_config,
    global_stream,
    image_bytes,
    image_folder,
    open_stream,
    stream_keys,
    write_tar,
)
from s3_server import S3Server
from test_data_pack import foreign_shards

from orchestrator.config.models import RunConfig, StorageConfig
from orchestrator.data import PackSettings, ShardSet, load_images, pack_dataset, prepare_data, read_ledger
from orchestrator.data.pack.sources import is_held_out
from orchestrator.errors import DataError
from orchestrator.storage import open_store, s3

NUM_BROKEN = 10


@pytest.fixture
def quick_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts, so that there are many requests, and little patience with silence."""
    monkeypatch.setattr(s3, "PART_BYTES", 4 * 1024)
    monkeypatch.setattr(s3, "_SILENCE_LIMIT_S", 0.5)
    s3._make_client.cache_clear()


def images_with_broken_ones(root: Path) -> set[str]:
    """400 images of four classes; ten of those that will be trained on are cut in half. Returns the keys of the ten."""
    image_folder(root, classes=("ant", "bee", "cat", "dog"), images=100)
    paths = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.png"))}
    broken = [key for key in paths if not is_held_out(key)][::37][:NUM_BROKEN]
    for key in broken:
        paths[key].write_bytes(paths[key].read_bytes()[:100])
    return set(broken)


def epoch_steps(shards: ShardSet) -> int:
    return -(-shards.manifest.num_samples("train") // 8)


def stream_config(uri: str, cache: Path, endpoint_url: str, **data: object) -> RunConfig:
    options = {"shuffle_shards": 4, "loader_threads": 2, "max_bad_fraction": 0.2, **data}
    config = data_config(uri, cache, **options)
    return config.model_copy(update={"storage": StorageConfig(endpoint_url=endpoint_url)})


def test_an_epoch_survives_a_bad_network_a_truncated_shard_and_broken_images(
    s3_bucket: str, s3_server: S3Server, tmp_path: Path, quick_network: None
) -> None:
    broken = images_with_broken_ones(tmp_path / "images")
    pack_dataset(str(tmp_path / "images"), str(tmp_path / "here"), settings=PackSettings(shard_size_mb=0.04))
    here_config = stream_config(str(tmp_path / "here"), tmp_path / "here-cache", s3_server.endpoint_url)
    here = prepare_data(here_config)
    steps = epoch_steps(here)
    expected = [key for keys in global_stream(here, here_config, total_steps=steps) for key in keys]
    keys = keys_by_shard(here, here_config)
    lost = next(name for name in keys if not keys[name] & broken)
    for path in (tmp_path / "here").iterdir():
        end = 13_000 if path.name == lost else None
        open_store(s3_bucket).write(path.name, path.read_bytes()[:end])
    with run_fault_proxy(s3_server.endpoint_url, share=0.05, stall_s=2.0) as proxy:
        config = stream_config(s3_bucket, tmp_path / "cache", proxy.endpoint_url)
        shards = prepare_data(config)
        found = [
            key for keys in global_stream(shards, config, world_size=2, total_steps=steps) for key in keys
        ]
    assert set(proxy.faults) == set(FAULTS)
    pairs = zip(expected, found, strict=True)
    assert all(key == wanted for wanted, key in pairs if wanted not in keys[lost])
    ledger = read_ledger(shards)
    assert {entry.key for entry in ledger} == broken | {""}
    assert len(ledger) == NUM_BROKEN + 1
    (entry,) = [entry for entry in ledger if not entry.key]
    assert (entry.shard, entry.num_samples, entry.offset) == (lost, len(keys[lost]), 13_000)
    assert "damaged or replaced" in entry.reason


def keys_by_shard(shards: ShardSet, config: RunConfig) -> dict[str, set[str]]:
    """The keys of each shard of the training split."""
    from orchestrator.data.format.shardset import open_shard

    return {info.name: set(open_shard(shards, info).index.keys) for info in shards.splits["train"]}


def test_a_foreign_shard_that_is_truncated_gives_what_is_whole_and_is_noted(tmp_path: Path) -> None:
    foreign_shards(tmp_path / "wds", "train", 6)
    foreign_shards(tmp_path / "wds", "val", 1)
    path = tmp_path / "wds" / "train-003.tar"
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(DataError, match=r"1 shard is cut short.*train-003\.tar: truncated at byte 6000"):
        prepare_data(data_config(tmp_path / "wds", tmp_path / "cache"))
    config = data_config(tmp_path / "wds", tmp_path / "cache", loader_threads=0, allow_loss=True)
    shards = prepare_data(config)
    whole = shards.splits["train"][3].num_samples
    assert 0 < whole < 6
    with open_stream(shards, config, total_steps=-(-(30 + whole) // 8)) as stream:
        assert len({key for batch in stream for key in batch.keys}) == 30 + whole
        (entry,) = stream.bad_samples
    assert (entry.shard, entry.key, entry.offset) == ("train-003.tar", "", 6000)
    assert read_ledger(shards) == (entry,)


def test_a_shard_that_is_gone_is_replaced_by_the_next_ones_up_to_the_share(
    s3_bucket: str, tmp_path: Path
) -> None:
    image_folder(tmp_path / "images", images=40)
    pack_dataset(str(tmp_path / "images"), s3_bucket, settings=PackSettings(shard_size_mb=0.02))
    open_store(s3_bucket).delete("train-000001.tar")
    config = data_config(s3_bucket, tmp_path / "cache", max_bad_fraction=0.2)
    shards = prepare_data(config)
    with open_stream(shards, config, total_steps=epoch_steps(shards)) as stream:
        assert sum(len(batch.keys) for batch in stream) >= shards.manifest.num_samples("train")
        assert [entry.shard for entry in stream.bad_samples] == ["train-000001.tar"]
    assert stream.num_bad_samples == shards.splits["train"][1].num_samples
    images = load_images(shards, "train", 1000, image_size_px=8, max_bad_fraction=0.2)
    assert len(images.keys) == shards.manifest.num_samples("train") - stream.num_bad_samples
    strict = data_config(s3_bucket, tmp_path / "cache", max_bad_fraction=0.0)
    with open_stream(shards, strict) as stream, pytest.raises(DataError, match="not borne"):
        list(stream)


def test_a_missing_label_is_noted_when_a_probe_needs_it(tmp_path: Path) -> None:
    foreign_shards(tmp_path / "wds", "train", 2)
    foreign_shards(tmp_path / "wds", "val", 40)
    write_tar(tmp_path / "wds" / "val-100.tar", [("unlabelled.jpg", image_bytes(1, format="JPEG"))])
    config = data_config(tmp_path / "wds", tmp_path / "cache")
    shards = prepare_data(config)
    assert len(load_images(shards, "test", 1000, image_size_px=8).keys) == 240
    (entry,) = read_ledger(shards)
    assert (entry.shard, entry.key, entry.reason) == (
        "val-100.tar",
        "unlabelled",
        "label class is None, must be 0 to 2",
    )


def test_four_co_located_trials_fetch_each_shard_once(
    s3_bucket: str,
    s3_server: S3Server,
    tmp_path: Path,
    processes: multiprocessing.context.ForkServerContext,
) -> None:
    image_folder(tmp_path / "images", images=80)
    manifest = pack_dataset(str(tmp_path / "images"), s3_bucket, settings=PackSettings(shard_size_mb=0.003))
    gets, streams = [], []
    for readers in (1, 4):
        with run_fault_proxy(s3_server.endpoint_url, latency_s=0.01) as proxy:
            config = stream_config(s3_bucket, tmp_path / f"cache-{readers}", proxy.endpoint_url)
            with processes.Pool(readers) as pool:
                streams += pool.map(stream_keys, [config] * readers, chunksize=1)
            gets.append(proxy.requests["GET"])
    assert gets[0] >= len(manifest.splits["train"]) > 60
    assert gets[1] <= 1.05 * gets[0]
    assert all(keys == streams[0] for keys in streams)


def test_ranks_of_different_nodes_fetch_different_shards(
    s3_bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    image_folder(tmp_path / "images", images=60)
    manifest = pack_dataset(str(tmp_path / "images"), s3_bucket, settings=PackSettings(shard_size_mb=0.015))
    fetched = Counter[int]()
    for rank in range(2):
        config = stream_config(s3_bucket, tmp_path / f"node-{rank}", s3_server.endpoint_url)
        shards = prepare_data(config)
        steps = epoch_steps(shards) - 1
        with open_stream(shards, config, rank=rank, world_size=2, total_steps=steps) as stream:
            list(stream)
        fetched[rank] = len(list((tmp_path / f"node-{rank}" / "shards").iterdir()))
    num_shards = len(manifest.splits["train"])
    assert num_shards > 8
    assert max(fetched.values()) <= num_shards / 2 + 2  # a shard on the border of two lanes is read by both


def test_requester_pays_is_said_with_every_request(
    s3_bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    with run_fault_proxy(s3_server.endpoint_url) as proxy:
        store = open_store(s3_bucket, StorageConfig(endpoint_url=proxy.endpoint_url, requester_pays=True))
        store.write("a/b", b"123")
        assert [info.key for info in store.list("a/")] == ["a/b"]
        store.download("a/b", tmp_path / "b")
        store.child("a").delete("b")
    assert len(proxy.headers) >= 5
    assert {headers.get("x-amz-request-payer") for headers in proxy.headers} == {"requester"}


def test_listing_and_writing_survive_a_bad_network(
    s3_bucket: str, s3_server: S3Server, quick_network: None
) -> None:
    with run_fault_proxy(s3_server.endpoint_url, share=0.5, stall_s=1.0) as proxy:
        store = open_store(s3_bucket, StorageConfig(endpoint_url=proxy.endpoint_url))
        for number in range(6):
            store.write(f"x/{number}", b"1" * 1000)
        assert [info.key for info in store.list("x/")] == [f"x/{number}" for number in range(6)]
        assert all(store.read(f"x/{number}") == b"1" * 1000 for number in range(6))
    assert proxy.faults.total() >= 3
