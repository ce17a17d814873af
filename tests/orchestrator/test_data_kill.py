"""SIGKILL at random moments: of readers with a small cache, and of packing."""

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.context
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from image_data import data_config, global_stream, image_folder, pack_slowly, stream_for_ever

from orchestrator.data import Manifest, PackSettings, pack_dataset, prepare_data, verify_shards
from orchestrator.data.pack.sources import ImageFolderSource
from orchestrator.data.pack.write import pack
from orchestrator.storage import hash_file, open_store

NUM_KILLS, NUM_MIXED_KILLS = 25, 120
SMALL_SHARDS = PackSettings(shard_size_mb=0.02)


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.name.endswith(".part") or "-tmp-" in path.name]


def run_and_kill(
    processes: multiprocessing.context.ForkServerContext,
    target: Callable[..., None],
    arguments: tuple[object, ...],
    started: Path,
    delay_s: float,
) -> bool:
    """Run a process, kill it a while after it has made the file `started`; returns whether it was killed."""
    started.unlink(missing_ok=True)
    process = processes.Process(target=target, args=(*arguments, started))
    process.start()
    while not started.exists() and process.is_alive():
        time.sleep(0.002)
    time.sleep(delay_s)
    process.kill()  # no error where it has ended meanwhile
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.slow
def test_no_kill_leaves_a_damaged_shard_or_a_temporary_file_in_the_cache(
    s3_bucket: str, tmp_path: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    image_folder(tmp_path / "images", images=60)
    manifest = pack_dataset(str(tmp_path / "images"), s3_bucket, settings=PackSettings(shard_size_mb=0.02))
    limit_gb = 3.2e-9 * max(shard.size_bytes for shard in manifest.shards)
    config = data_config(s3_bucket, tmp_path / "cache", shuffle_shards=4, cache_size_gb=limit_gb)
    random_moments, with_partials = random.Random(5), 0
    for _ in range(NUM_KILLS):
        delay_s = random_moments.uniform(0, 0.5)
        assert run_and_kill(processes, stream_for_ever, (config,), tmp_path / "started", delay_s)
        with_partials += bool(leftovers(tmp_path / "cache"))
        for path in (tmp_path / "cache" / "shards").glob("*.tar"):
            assert hash_file(path) == path.stem
        prepare_data(config)
        assert leftovers(tmp_path / "cache") == []
    assert with_partials > 0
    large = data_config(s3_bucket, tmp_path / "other", shuffle_shards=4)
    assert global_stream(prepare_data(config), config) == global_stream(prepare_data(large), large)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "longest_s"), [("folder", 0.15), ("bucket", 0.5)])
def test_packing_that_is_killed_over_and_over_ends_with_the_same_bytes(
    s3_bucket: str,
    tmp_path: Path,
    place: str,
    longest_s: float,
    processes: multiprocessing.context.ForkServerContext,
) -> None:
    folder = image_folder(tmp_path / "images", images=100)
    uri = str(tmp_path / "out") if place == "folder" else f"{s3_bucket}/out"
    random_moments, kills = random.Random(7), 0
    for _ in range(NUM_KILLS // 2 + 1):
        arguments = (str(folder), uri)
        kills += run_and_kill(
            processes, pack_slowly, arguments, tmp_path / "started", random_moments.uniform(0, longest_s)
        )
        done = [info.key for info in open_store(uri).list("packing/")]
        longest_s *= 1.0 if done else 1.5  # a loaded machine takes longer to its first shard
    assert kills == NUM_KILLS // 2 + 1
    assert done
    settings = PackSettings(shard_size_mb=0.02)
    manifest = pack(ImageFolderSource(folder), open_store(uri), settings)
    assert manifest == pack(ImageFolderSource(folder), open_store(str(tmp_path / "whole")), settings)
    found = {info.key for info in open_store(uri).list()}
    assert found == {"manifest.json", *(shard.name for shard in manifest.shards)}
    shards = prepare_data(data_config(uri, tmp_path / "cache"))
    assert verify_shards(shards, decode=True).faults == ()
    if place == "folder":
        assert leftovers(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_hundred_and_twenty_kills_of_readers_and_packers_leave_nothing_damaged(
    s3_bucket: str, tmp_path: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    drawn, kills, ended = random.Random(11), Counter[str](), Counter[str]()
    images = image_folder(tmp_path / "images", images=60)
    manifest = pack_dataset(str(images), f"{s3_bucket}/read", settings=SMALL_SHARDS)
    limit_gb = 3.2e-9 * max(shard.size_bytes for shard in manifest.shards)
    cache = tmp_path / "cache"
    config = data_config(f"{s3_bucket}/read", cache, shuffle_shards=4, cache_size_gb=limit_gb)
    places = {"folder": str(tmp_path / "out"), "bucket": f"{s3_bucket}/out"}
    longest_s = {"reader": 0.5, "folder": 0.3, "bucket": 0.6}
    while kills.total() < NUM_MIXED_KILLS:
        kind = drawn.choice(["reader", "folder", "bucket"])
        target = stream_for_ever if kind == "reader" else pack_slowly
        arguments = (config,) if kind == "reader" else (str(images), places[kind])
        delay_s = drawn.uniform(0, longest_s[kind])
        kills[kind] += run_and_kill(processes, target, arguments, tmp_path / "started", delay_s)
        if kind == "reader":
            ended["half downloads"] += bool(leftovers(cache))
            whole = list((cache / "shards").glob("*.tar"))
            assert [hash_file(path) for path in whole] == [path.stem for path in whole]
            ended["whole shards"] += len(whole)
            prepare_data(config)
            assert leftovers(cache) == []
        elif drawn.random() < 0.15 or open_store(places[kind]).exists("manifest.json"):
            ended[kind] += 1
            check_packing_ends(images, places[kind], manifest)
    print(f"killed: {dict(kills)}; ended: {dict(ended)}")
    assert min(kills[kind] for kind in longest_s) > 0
    assert min(ended[kind] for kind in ("half downloads", "whole shards", "folder", "bucket")) > 0
    large = data_config(f"{s3_bucket}/read", tmp_path / "other", shuffle_shards=4)
    assert global_stream(prepare_data(config), config) == global_stream(prepare_data(large), large)


def check_packing_ends(images: Path, uri: str, manifest: Manifest) -> None:
    """The next start packs the same shards as an undisturbed one and leaves nothing else; then the place is emptied."""
    store = open_store(uri)
    if not store.exists("manifest.json") or store.list("packing/"):
        assert pack(ImageFolderSource(images), store, SMALL_SHARDS) == manifest
    found = {info.key for info in store.list()}
    assert found == {"manifest.json", *(shard.name for shard in manifest.shards)}
    for shard in manifest.shards:
        assert hashlib.sha256(store.read(shard.name)).hexdigest() == shard.sha256
    if "://" not in uri:
        assert leftovers(Path(uri)) == []
    for key in found:
        store.delete(key)
