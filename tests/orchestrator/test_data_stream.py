from __future__ import annotations

import errno
import gc
import itertools
import os
import pickle
import shutil
import threading
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_data import (
    RemoteFolder,
    data_config,
    global_stream,
    image_bytes,
    image_folder,
    open_stream,
    write_tar,
)
from open_files import no_open_files_left

from orchestrator.config.models import RunConfig, StorageConfig
from orchestrator.data import PackSettings, ShardSet, load_images, open_shards, pack_dataset, prepare_data
from orchestrator.data.format import shardset
from orchestrator.data.format.manifest import DamagedShardError
from orchestrator.data.format.shardset import SampleReader
from orchestrator.data.read.quarantine import GoodSamples, Quarantine
from orchestrator.errors import DataError, StorageError
from orchestrator.storage import LocalStore


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardSet, RunConfig]:
    """90 images in about ten shards."""
    root = tmp_path_factory.mktemp("stream")
    image_folder(root / "images", images=30)
    pack_dataset(str(root / "images"), str(root / "shards"), settings=PackSettings(shard_size_mb=0.02))
    config = data_config(root / "shards", root / "cache", shuffle_shards=3, loader_threads=0)
    shards = prepare_data(config)
    assert len(shards.splits["train"]) >= 6
    return shards, config


@pytest.mark.parametrize("world_size", [1, 2, 4, 3])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_ranks_and_threads_do_not_change_the_global_stream(
    packed: tuple[ShardSet, RunConfig], world_size: int, threads: int
) -> None:
    shards, config = packed
    expected = global_stream(shards, config)
    changed = config.model_copy(update={"data": config.data.model_copy(update={"loader_threads": threads})})
    assert global_stream(shards, changed, world_size=world_size) == expected


def test_resuming_at_a_step_gives_the_tail_on_any_number_of_ranks(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, config = packed
    whole = global_stream(shards, config)
    for step, world_size in ((1, 1), (7, 2), (14, 4), (15, 1)):
        assert global_stream(shards, config, world_size=world_size, start_step=step) == whole[step:]


def test_pixels_do_not_depend_on_ranks_threads_or_resuming(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, config = packed
    with open_stream(shards, config) as stream:
        whole = [batch.images_uint8_BCHW for batch in stream]
    changed = config.model_copy(update={"data": config.data.model_copy(update={"loader_threads": 2})})
    with open_stream(shards, changed, rank=1, world_size=2, start_step=9) as stream:
        for expected, batch in zip(whole[9:], stream, strict=True):
            assert torch.equal(batch.images_uint8_BCHW, expected[4:])


def with_data(config: RunConfig, **changes: object) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def keys_by_epoch(
    shards: ShardSet, config: RunConfig, *, world_size: int, **options: int
) -> list[Counter[str]]:
    """How often each key comes in each epoch, over all ranks."""
    found: dict[int, Counter[str]] = {}
    for rank in range(world_size):
        with open_stream(shards, config, rank=rank, world_size=world_size, **options) as stream:
            for batch in stream:
                for epoch, key in zip(batch.epochs_B.tolist(), batch.keys, strict=True):
                    found.setdefault(epoch, Counter())[key] += 1
    return [found.get(epoch, Counter()) for epoch in range(max(found) + 1)]


def test_every_epoch_shows_every_sample_once(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, config = packed
    total = shards.manifest.num_samples("train")
    epochs = keys_by_epoch(shards, config, world_size=2, total_steps=-(-3 * total // 8))
    assert all(set(epoch.values()) == {1} and epoch.total() == total for epoch in epochs[:3])


def test_every_epoch_crops_a_sample_anew(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, config = packed
    total = sum(info.num_samples for info in shards.splits["train"])
    seen: dict[str, list[torch.Tensor]] = {}
    with open_stream(shards, config, total_steps=-(-2 * total // 8)) as stream:
        for batch in stream:
            for key, image in zip(batch.keys, batch.images_uint8_BCHW, strict=True):
                seen.setdefault(key, []).append(image)
    assert min(len(images) for images in seen.values()) == 2
    assert [key for key, images in seen.items() if torch.equal(images[0], images[1])] == []


@pytest.mark.parametrize("shuffle_shards", [1, 3, 5, 50])
def test_an_epoch_cut_into_four_two_and_three_workers_has_every_key_once(
    packed: tuple[ShardSet, RunConfig], shuffle_shards: int
) -> None:
    shards, config = packed
    total, found = shards.manifest.num_samples("train"), Counter[str]()
    last = -(-total // 8)
    parts = ((4, 0, 0, 3), (2, 3, 3, 7), (3, 1, 7, last))
    for world_size, threads, start_step, total_steps in parts:
        changed = with_data(config, loader_threads=threads, shuffle_shards=shuffle_shards)
        steps = {"start_step": start_step, "total_steps": total_steps}
        found += keys_by_epoch(shards, changed, world_size=world_size, **steps)[0]
    uninterrupted = with_data(config, shuffle_shards=shuffle_shards)
    assert found == keys_by_epoch(shards, uninterrupted, world_size=1, total_steps=last)[0]
    assert set(found.values()) == {1}
    assert found.total() == total


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_every_rank_has_the_same_number_of_steps(packed: tuple[ShardSet, RunConfig], world_size: int) -> None:
    shards, config = packed
    for rank in range(world_size):
        with open_stream(shards, config, rank=rank, world_size=world_size, total_steps=23) as stream:
            assert len(list(stream)) == 23


def test_batches_carry_ids_epochs_and_contiguous_bytes(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, config = packed
    with open_stream(shards, config, total_steps=12) as stream:
        batches = list(stream)
    total = shards.manifest.num_samples("train")
    assert batches[0].images_uint8_BCHW.shape == (8, 3, 16, 16)
    assert batches[0].images_uint8_BCHW.dtype == torch.uint8
    assert batches[0].images_uint8_BCHW.is_contiguous(memory_format=torch.channels_last)
    epochs = torch.cat([batch.epochs_B for batch in batches])
    assert torch.bincount(epochs).tolist() == [total, 96 - total]
    ids = torch.cat([batch.sample_ids_B for batch in batches])
    names = {}
    for sample_id, key in zip(ids.tolist(), [key for batch in batches for key in batch.keys], strict=True):
        assert names.setdefault(sample_id, key) == key


def test_a_batch_may_be_larger_than_the_data(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, config = packed
    total = shards.manifest.num_samples("test")
    tested = config.model_copy(update={"data": config.data.model_copy(update={"train_split": "test"})})
    with open_stream(shards, tested, batch_size=5 * total, total_steps=2) as stream:
        batch = next(stream)
        assert torch.bincount(batch.epochs_B).tolist() == [total] * 5


def test_waiting_for_data_is_accounted(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, config = packed
    with open_stream(shards, config) as stream:
        list(stream)
        assert stream.take_wait_s() > 0
        assert stream.wait_s == 0


def test_closing_early_ends_the_stream(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, config = packed
    changed = config.model_copy(update={"data": config.data.model_copy(update={"loader_threads": 2})})
    with open_stream(shards, changed, total_steps=10_000) as stream:
        next(stream)
    assert list(stream) == []


def test_the_same_stream_comes_from_a_folder_and_from_a_bucket(
    packed: tuple[ShardSet, RunConfig], s3_bucket: str, tmp_path: Path
) -> None:
    shards, config = packed
    pack_dataset(
        str(Path(shards.uri).parent / "images"), f"{s3_bucket}/set", settings=PackSettings(shard_size_mb=0.02)
    )
    remote_config = data_config(f"{s3_bucket}/set", tmp_path / "cache", shuffle_shards=3, loader_threads=2)
    remote = prepare_data(remote_config)
    assert remote.digest == shards.digest
    expected = global_stream(shards, config, total_steps=25)
    assert global_stream(remote, remote_config, world_size=2, total_steps=25) == expected
    assert global_stream(remote, remote_config, start_step=20, total_steps=25) == expected[20:]
    there = load_images(remote, "test", 50, image_size_px=16, threads=2)
    here = load_images(shards, "test", 50, image_size_px=16)
    assert torch.equal(there.images_uint8_NCHW, here.images_uint8_NCHW)
    assert there.keys == here.keys


def test_a_shard_set_survives_pickling_and_opens_by_its_uri(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, config = packed
    again = pickle.loads(pickle.dumps(shards))
    assert global_stream(again, config, total_steps=2) == global_stream(shards, config, total_steps=2)
    assert open_shards(shards.uri, config.data, StorageConfig()).digest == shards.digest


def damaged_shards(root: Path, bad: set[int], *, total: int = 60) -> None:
    for split, first in (("train", 0), ("test", total)):
        members = []
        for number in range(first, first + total):
            image = image_bytes(number)
            members.append((f"{number:04d}.png", image[: len(image) // 2] if number in bad else image))
            members.append((f"{number:04d}.cls", str(number % 4).encode()))
        write_tar(root / f"{split}.tar", members)


def test_broken_images_are_replaced_and_the_rest_keeps_its_place(tmp_path: Path) -> None:
    damaged_shards(tmp_path / "good", set())
    damaged_shards(tmp_path / "bad", {4, 5, 59})
    good_config, bad_config = (data_config(tmp_path / name, tmp_path / "cache") for name in ("good", "bad"))
    expected = list(itertools.chain(*global_stream(prepare_data(good_config), good_config)))
    shards = prepare_data(bad_config)
    found = list(itertools.chain(*global_stream(shards, bad_config, world_size=2)))
    replaced = {"0004": "0006", "0005": "0006", "0059": "0000"}
    assert found == [replaced.get(key, key) for key in expected]
    with open_stream(shards, bad_config, total_steps=8) as stream:
        list(stream)
        assert stream.num_bad_samples == 3
        assert [(bad.shard, bad.key) for bad in stream.bad_samples] == [
            ("train.tar", "0004"),
            ("train.tar", "0005"),
            ("train.tar", "0059"),
        ]


@pytest.mark.parametrize("threads", [0, 2])
def test_too_many_broken_images_stop_the_run(tmp_path: Path, threads: int) -> None:
    damaged_shards(tmp_path / "bad", set(range(0, 60, 3)))
    config = data_config(tmp_path / "bad", tmp_path / "cache", loader_threads=threads)
    with open_stream(prepare_data(config), config) as stream, pytest.raises(DataError, match="not borne"):
        list(stream)


def test_probe_images_leave_out_what_is_broken(tmp_path: Path) -> None:
    damaged_shards(tmp_path / "bad", {70, 80})
    shards = prepare_data(data_config(tmp_path / "bad", tmp_path / "cache"))
    found = load_images(shards, "test", 1000, image_size_px=16, threads=3)
    assert len(found.keys) == len(found.images_uint8_NCHW) == len(found.labels["class"]) == 58
    assert "0070" not in found.keys
    assert found.labels["class"].tolist() == [int(key) % 4 for key in found.keys]


def test_probe_images_are_whole_and_do_not_depend_on_threads(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, _ = packed
    few = load_images(shards, "train", 20, image_size_px=24)
    assert torch.equal(
        few.images_uint8_NCHW, load_images(shards, "train", 20, image_size_px=24, threads=3).images_uint8_NCHW
    )
    assert len(set(few.keys)) == 20
    assert len(set(few.labels["class"].tolist())) == 3


def test_a_truncated_local_shard_is_refused(packed: tuple[ShardSet, RunConfig], tmp_path: Path) -> None:
    image_folder(tmp_path / "images", images=10)
    pack_dataset(str(tmp_path / "images"), str(tmp_path / "shards"))
    config = data_config(tmp_path / "shards", tmp_path / "cache", loader_threads=1)
    shards = prepare_data(config)
    path = tmp_path / "shards" / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with open_stream(shards, config) as stream, pytest.raises(DataError, match="truncated or replaced"):
        next(stream)
    path.unlink()
    with open_stream(shards, config) as stream, pytest.raises(DataError, match="cannot read the shard"):
        next(stream)


def test_an_unknown_split_names_those_there_are(packed: tuple[ShardSet, RunConfig]) -> None:
    shards, _ = packed
    with pytest.raises(DataError, match=r"'dev'.*train"):
        load_images(shards, "dev", 1, image_size_px=16)


def failing_open(monkeypatch: pytest.MonkeyPatch, code: int, times: int) -> list[str]:
    """Opening a shard fails so many times; returns what was tried."""
    tried: list[str] = []
    really_open = os.open

    def open_or_fail(path: Any, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(".tar"):
            tried.append(str(path))
            if len(tried) <= times:
                raise OSError(code, os.strerror(code))
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", open_or_fail)
    monkeypatch.setattr(shardset, "_PATIENCE_S", (0.0, 0.0))
    return tried


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_a_mount_that_fails_for_a_while_is_tried_again_and_a_lasting_failure_is_damage(
    packed: tuple[ShardSet, RunConfig], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    shards, _ = packed
    tried = failing_open(monkeypatch, code, times=2)
    assert SampleReader(shards).open(0).info == shards.manifest.shards[0]
    assert len(tried) == 3
    failing_open(monkeypatch, code, times=1000)
    with pytest.raises(DamagedShardError, match="cannot read the shard"):
        SampleReader(shards).open(0)


def go_stale(monkeypatch: pytest.MonkeyPatch, path: Path, *, comes_back: bool = True) -> None:
    """From its next read on the file is stale for good; under its path is another with the same bytes, or none."""
    stale: list[int] = []

    def reading(really_read: Any) -> Any:
        def read(descriptor: int, *arguments: Any) -> Any:
            inode = os.fstat(descriptor).st_ino
            if not stale:
                stale.append(inode)
                path.rename(f"{path}.old")
                if comes_back:
                    shutil.copy2(f"{path}.old", path)
            if inode in stale:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return really_read(descriptor, *arguments)

        return read

    monkeypatch.setattr(os, "pread", reading(os.pread))
    monkeypatch.setattr(os, "preadv", reading(os.preadv))
    monkeypatch.setattr(shardset, "_PATIENCE_S", (0.0, 0.0))


def test_a_shard_whose_open_file_is_stale_is_opened_anew(
    packed: tuple[ShardSet, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, _ = packed
    opened = SampleReader(shards).open(0)
    before = bytes(opened.sample(1).image)
    go_stale(monkeypatch, Path(shards.uri, opened.info.name))
    assert bytes(opened.sample(1).image) == before
    assert bytes(opened.sample(1).image) == before


def test_a_file_that_is_stale_while_its_members_are_found_is_opened_anew(
    packed: tuple[ShardSet, RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shards, _ = packed
    keys = SampleReader(shards).open(0).index.keys
    unread = replace(shards, cache=replace(shards.cache, folder=tmp_path / "cache"))
    go_stale(monkeypatch, Path(shards.uri, shards.manifest.shards[0].name))
    assert SampleReader(unread).open(0).index.keys == keys


def test_a_cached_shard_that_is_stale_and_gone_is_fetched_again(
    packed: tuple[ShardSet, RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shards, _ = packed
    cache = replace(shards.cache, folder=tmp_path / "cache")
    far = replace(shards, store=RemoteFolder(shards.uri, log=str(tmp_path / "log")), cache=cache)
    opened = SampleReader(far).open(0)
    before = bytes(opened.sample(1).image)
    go_stale(monkeypatch, cache.shard_path(opened.info.sha256), comes_back=False)
    assert bytes(opened.sample(1).image) == before
    assert (tmp_path / "log").read_text().split() == [opened.info.name] * 2


def test_a_stale_shard_that_is_gone_is_damage_and_leaves_no_file_open(
    packed: tuple[ShardSet, RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = shutil.copytree(packed[0].uri, tmp_path / "shards")
    opened = SampleReader(replace(packed[0], store=LocalStore(str(folder)))).open(0)
    held = len(os.listdir("/proc/self/fd"))
    go_stale(monkeypatch, folder / opened.info.name, comes_back=False)
    with pytest.raises(DamagedShardError, match="cannot read the shard"):
        opened.sample(0)
    assert len(os.listdir("/proc/self/fd")) == held


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_are_no_damage(
    packed: tuple[ShardSet, RunConfig], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    shards, config = packed
    failing_open(monkeypatch, code, times=1000)
    with open_stream(shards, config) as stream:
        with pytest.raises(StorageError, match="ulimit -n"):
            next(stream)
        assert stream.num_bad_samples == 0


def test_the_limit_on_open_files_is_told_for_cached_shards_too(
    packed: tuple[ShardSet, RunConfig], tmp_path: Path
) -> None:
    shards, _ = packed
    far = replace(shards, store=RemoteFolder(shards.uri, log=str(tmp_path / "log")))
    SampleReader(far).open(0)
    with no_open_files_left(), pytest.raises(StorageError, match="ulimit -n"):
        SampleReader(far).open(0)


def test_a_cache_that_cannot_be_made_is_told_with_a_remedy(
    packed: tuple[ShardSet, RunConfig], tmp_path: Path
) -> None:
    shards, _ = packed
    (tmp_path / "file").write_text("no folder")
    far = replace(
        shards,
        store=RemoteFolder(shards.uri, log=str(tmp_path / "log")),
        cache=replace(shards.cache, folder=tmp_path / "file" / "cache"),
    )
    with pytest.raises(StorageError, match=r"file/cache.*data\.cache_dir.*written"):
        SampleReader(far).open(0)


def test_a_damaged_shard_keeps_no_batch_in_memory(packed: tuple[ShardSet, RunConfig], tmp_path: Path) -> None:
    shards, _ = packed
    reader = SampleReader(replace(shards, store=LocalStore(str(tmp_path / "gone"))))
    samples = GoodSamples(reader, Quarantine(10_000, max_bad_fraction=1.0))
    alive: list[weakref.ref[np.ndarray]] = []

    def load_a_batch() -> None:
        batch = np.empty(1000)
        alive.append(weakref.ref(batch))
        with pytest.raises(DataError, match="no shard of the split"):
            samples.take(0, lambda image, sample_id: None)

    gc.collect()
    gc.disable()  # what only the collector of cycles would free stays for as long as it takes
    try:
        for _ in range(3):
            load_a_batch()
        assert [batch() for batch in alive] == [None] * 3
    finally:
        gc.enable()


def test_read_ahead_ends_its_threads_when_every_shard_of_a_small_set_is_open(
    packed: tuple[ShardSet, RunConfig], tmp_path: Path
) -> None:
    shards, config = packed
    far = replace(
        shards,
        store=RemoteFolder(shards.uri, log=str(tmp_path / "log")),
        cache=replace(shards.cache, folder=tmp_path / "cache"),
    )
    with open_stream(far, config, total_steps=40) as stream:
        found = [batch.keys for batch in stream]
        names = [thread.name for thread in threading.enumerate()]
        assert not [name for name in names if name.startswith("read-ahead")]
    assert found == global_stream(shards, config, total_steps=40)
