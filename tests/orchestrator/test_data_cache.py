from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from image_data import (
    RemoteFolder,
    data_config,
    fetch_shards,
    global_stream,
    image_folder,
    open_stream,
)

from orchestrator.data import PackSettings, ShardInfo, pack_dataset, prepare_data, verify_shards
from orchestrator.data.format.cache import Cache, file_lock
from orchestrator.errors import DataError, NotFoundError
from orchestrator.storage import open_store


def remote(
    root: Path, *, shards: int = 4, size: int = 10_000, delay_s: float = 0.0
) -> tuple[RemoteFolder, list[ShardInfo]]:
    """Objects of random bytes, far away."""
    store = RemoteFolder(str(root / "remote"), log=str(root / "log"), delay_s=delay_s)
    infos = []
    for number in range(shards):
        content = os.urandom(size)
        store.write(f"{number}.tar", content)
        sha256 = hashlib.sha256(content).hexdigest()
        infos.append(
            ShardInfo(name=f"{number}.tar", split="train", num_samples=1, size_bytes=size, sha256=sha256)
        )
    return store, infos


def downloads(store: RemoteFolder) -> list[str]:
    return Path(store.log).read_text().split()


def cached(cache: Cache) -> set[str]:
    return {path.stem for path in (cache.folder / "shards").iterdir()}


def test_processes_share_one_download_of_each_shard(tmp_path: Path) -> None:
    store, infos = remote(tmp_path, delay_s=0.05)
    cache = Cache(folder=tmp_path / "cache", limit_bytes=10**6)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(fetch_shards, [(cache, store, infos)] * 2, chunksize=1)
    assert found == [[info.sha256 for info in infos]] * 2
    assert sorted(downloads(store)) == [info.name for info in infos]


def test_the_least_recently_used_shard_goes_first(tmp_path: Path) -> None:
    store, infos = remote(tmp_path)
    cache = Cache(folder=tmp_path / "cache", limit_bytes=30_000)
    fetch_shards((cache, store, infos[:3]))
    fetch_shards((cache, store, infos[:1]))
    fetch_shards((cache, store, infos[3:]))
    assert cached(cache) == {infos[0].sha256, infos[2].sha256, infos[3].sha256}


def test_an_open_shard_stays_readable_when_it_is_removed(tmp_path: Path) -> None:
    store, infos = remote(tmp_path)
    cache = Cache(folder=tmp_path / "cache", limit_bytes=10_000)
    descriptor = cache.open_shard(store, "0.tar", size_bytes=infos[0].size_bytes, sha256=infos[0].sha256)
    fetch_shards((cache, store, infos[1:]))
    assert cached(cache) == {infos[3].sha256}
    assert hashlib.sha256(os.pread(descriptor, 20_000, 0)).hexdigest() == infos[0].sha256
    os.close(descriptor)


@pytest.mark.parametrize("damage", ["flip", "cut", "append"])
def test_a_damaged_object_is_never_served(tmp_path: Path, damage: str) -> None:
    store, infos = remote(tmp_path, shards=1)
    content = bytearray(store.read("0.tar"))
    if damage == "flip":
        content[5000] ^= 1
    store.write("0.tar", bytes(content[:-1] if damage == "cut" else content + b"x" * (damage == "append")))
    cache = Cache(folder=tmp_path / "cache", limit_bytes=10**6)
    with pytest.raises(DataError, match=r"0\.tar.*manifest says"):
        fetch_shards((cache, store, infos))
    assert cached(cache) == set()


def test_a_missing_object_leaves_nothing_behind(tmp_path: Path) -> None:
    store, infos = remote(tmp_path, shards=1)
    store.delete("0.tar")
    cache = Cache(folder=tmp_path / "cache", limit_bytes=10**6)
    with pytest.raises(NotFoundError):
        fetch_shards((cache, store, infos))
    assert cached(cache) == set()


def test_a_shard_larger_than_the_cache_is_refused_at_once(tmp_path: Path) -> None:
    store, infos = remote(tmp_path, shards=1)
    cache = Cache(folder=tmp_path / "cache", limit_bytes=9_999)
    with pytest.raises(DataError, match=r"data\.cache_size_gb"):
        fetch_shards((cache, store, infos))
    assert not Path(store.log).exists()


def test_a_killed_download_is_cleaned_up_and_done_again(tmp_path: Path) -> None:
    store, infos = remote(tmp_path, shards=1, delay_s=30)
    cache = Cache(folder=tmp_path / "cache", limit_bytes=10**6)
    process = multiprocessing.get_context("spawn").Process(target=fetch_shards, args=((cache, store, infos),))
    process.start()
    while not Path(store.log).exists():
        time.sleep(0.01)
    folder = cache.folder / "shards" / f"{infos[0].sha256}.part"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shard.tar").write_bytes(b"half")
    cache.clean()
    assert folder.exists(), "a download that runs is let be"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    cache.clean()
    assert not folder.exists()
    quick = RemoteFolder(store.root, log=store.log)
    assert fetch_shards((cache, quick, infos)) == [infos[0].sha256]


def test_a_lock_is_held_by_one_and_freed_by_its_end(tmp_path: Path) -> None:
    with file_lock(tmp_path / "a.lock") as first, file_lock(tmp_path / "a.lock", wait=False) as second:
        assert (first, second) == (True, False)
    with file_lock(tmp_path / "a.lock", wait=False) as third:
        assert third


def test_a_small_cache_streams_all_of_a_larger_set(s3_bucket: str, tmp_path: Path) -> None:
    image_folder(tmp_path / "images", images=20)
    manifest = pack_dataset(str(tmp_path / "images"), s3_bucket, settings=PackSettings(shard_size_mb=0.02))
    total = sum(shard.size_bytes for shard in manifest.shards)
    limit_gb = 1.01e-9 * max(shard.size_bytes for shard in manifest.shards)
    assert 3e9 * limit_gb < total
    small = data_config(s3_bucket, tmp_path / "cache", shuffle_shards=2, cache_size_gb=limit_gb)
    large = data_config(s3_bucket, tmp_path / "cache2", shuffle_shards=2)
    assert global_stream(prepare_data(small), small) == global_stream(prepare_data(large), large)
    held = sum(path.stat().st_size for path in (tmp_path / "cache" / "shards").iterdir())
    assert held <= limit_gb * 1e9


def test_a_cache_smaller_than_a_shard_is_an_error_before_training(s3_bucket: str, tmp_path: Path) -> None:
    image_folder(tmp_path / "images", images=20)
    pack_dataset(str(tmp_path / "images"), s3_bucket)
    with pytest.raises(DataError, match="exceed the cache"):
        prepare_data(data_config(s3_bucket, tmp_path / "cache", cache_size_gb=1e-6))


def test_a_shard_replaced_in_the_bucket_is_refused(s3_bucket: str, tmp_path: Path) -> None:
    image_folder(tmp_path / "images", images=5)
    pack_dataset(str(tmp_path / "images"), s3_bucket)
    config = data_config(s3_bucket, tmp_path / "cache", loader_threads=2)
    shards = prepare_data(config)
    store = open_store(s3_bucket)
    content = bytearray(store.read("train-000000.tar"))
    content[700] ^= 1
    store.write("train-000000.tar", bytes(content))
    with open_stream(shards, config) as stream, pytest.raises(DataError, match="damaged or replaced"):
        next(stream)
    assert [fault.shard for fault in verify_shards(shards).faults] == ["train-000000.tar"]


def test_a_foreign_webdataset_streams_from_a_bucket(s3_bucket: str, tmp_path: Path) -> None:
    from test_data_pack import foreign_shards

    foreign_shards(tmp_path / "wds", "train", 3)
    foreign_shards(tmp_path / "wds", "val", 1)
    for path in (tmp_path / "wds").iterdir():
        open_store(s3_bucket).upload(path, f"wds/{path.name}")
    config = data_config(f"{s3_bucket}/wds/{{train,val}}-{{000..000}}.tar", tmp_path / "cache")
    assert {split: len(found) for split, found in prepare_data(config).splits.items()} == {
        "train": 1,
        "test": 1,
    }
    there = data_config(f"{s3_bucket}/wds", tmp_path / "cache")
    here = data_config(tmp_path / "wds", tmp_path / "cache")
    assert prepare_data(there).digest == prepare_data(here).digest
    assert global_stream(prepare_data(there), there) == global_stream(prepare_data(here), here)
