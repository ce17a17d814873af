from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from image_data import image_bytes, image_folder, open_stream, write_tar
from sweep_records import sweep_events, write_journal

from orchestrator.config import apply_overrides, default_config
from orchestrator.config.models import DataConfig, StorageConfig
from orchestrator.data import BadSample, keep_trial_ledger, open_shards, prepare_data
from orchestrator.storage import LocalStore


@pytest.fixture
def run(monkeypatch, command, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return functools.partial(command, "shards")


@pytest.fixture
def packed(run, tmp_path) -> str:
    uri = str(tmp_path / "shards")
    assert run("pack", str(image_folder(tmp_path / "images", images=10)), uri).code == 0
    return uri


def test_pack_writes_shards_and_says_what_they_hold(run, tmp_path):
    uri = str(tmp_path / "shards")
    done = run("pack", str(image_folder(tmp_path / "images", images=10)), uri)
    shards = open_shards(uri, DataConfig(), StorageConfig())
    train, test = (shards.manifest.num_samples(split) for split in ("train", "test"))
    assert "30 images" in done.err
    assert f"train {train}; test {test}; 2 shards" in done.out
    assert shards.digest in done.out


def test_pack_refuses_to_write_over_shards(run, tmp_path, packed):
    done = run("pack", str(tmp_path / "images"), packed)
    assert done.code == 3
    assert "packed shards already" in done.err


def test_ls_lists_every_shard_as_json(run, packed):
    data = json.loads(run("ls", packed, "--each", "--json").out)
    assert sum(data["num_samples"].values()) == sum(shard["num_samples"] for shard in data["shards"]) == 30
    assert [shard["name"] for shard in data["shards"]] == ["train-000000.tar", "test-000000.tar"]


def test_ls_looks_at_a_folder_of_images_and_packs_nothing(run, tmp_path):
    done = run("ls", str(image_folder(tmp_path / "images", images=10)))
    assert "no shards yet; packed on first use; train" in done.out
    assert "labels class (3)" in done.out
    assert not (tmp_path / "cache").exists()


def test_shards_without_a_manifest_are_verified_after_they_were_read_once(run, tmp_path):
    members = [(f"{number}.png", image_bytes(number)) for number in range(4)]
    write_tar(tmp_path / "foreign" / "train.tar", members)
    write_tar(tmp_path / "foreign" / "val.tar", members)
    assert "without a manifest" in run("ls", str(tmp_path / "foreign")).out
    done = run("verify", str(tmp_path / "foreign"))
    assert done.code == 0
    assert "2 shards, 8 samples checked" in done.out


def test_verify_names_a_shard_that_changed(run, packed):
    assert run("verify", packed, "--decode").code == 0
    shard = Path(packed, "train-000000.tar")
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[600] ^= 255
    shard.write_bytes(data)
    done = run("verify", packed)
    assert done.code == 3
    assert "train-000000.tar: sha256" in done.out
    assert "checked: sizes, hashes and samples; 1 fault\n" in done.out


def test_verify_says_that_it_did_not_decode_and_how_to(run, packed):
    assert "--decode names those that a run would leave out" in run("verify", packed).out
    assert "--decode names" not in run("verify", packed, "--decode").out


def test_quarantine_lists_what_a_run_would_leave_out(run, tmp_path):
    folder = image_folder(tmp_path / "images", images=10)
    (folder / "ant" / "broken.png").write_bytes(b"no image")
    run("pack", str(folder), str(tmp_path / "shards"))
    done = run("quarantine", str(tmp_path / "shards"), "--json")
    (sample,) = json.loads(done.out)["samples"]
    assert (sample["key"], sample["shard"]) == ("ant/broken", "train-000000.tar")
    assert done.code == 0


def test_more_bad_samples_than_a_run_bears_end_with_the_code_for_data(run, tmp_path):
    members = [(f"{number:02d}.png", b"no image") for number in range(17)]
    members += [(f"good-{number}.png", image_bytes(number)) for number in range(4)]
    write_tar(tmp_path / "foreign" / "train.tar", members)
    write_tar(tmp_path / "foreign" / "val.tar", members[-4:])
    done = run("quarantine", str(tmp_path / "foreign"))
    assert done.code == 3
    assert "17 of 21 samples cannot be used; a run bears 16" in done.out


def test_the_ledger_lists_what_runs_have_left_out(run, tmp_path):
    folder = image_folder(tmp_path / "images", images=10)
    (folder / "ant" / "broken.png").write_bytes(b"no image")
    uri = str(tmp_path / "shards")
    run("pack", str(folder), uri)
    assert "left out by runs on this node: 0 samples" in run("quarantine", uri, "--ledger").out
    config = apply_overrides(default_config(), {"data.source": uri})
    with open_stream(prepare_data(config), config) as stream:
        list(stream)
    data = json.loads(run("quarantine", uri, "--ledger", "--json").out)
    (entry,) = data["entries"]
    assert (entry["shard"], entry["key"], data["num_samples"]) == ("train-000000.tar", "ant/broken", 1)


def test_the_ledgers_of_a_sweeps_trials_are_listed_as_one(run, tmp_path):
    sweep = write_journal(tmp_path / "runs", sweep_events())
    one, two = (BadSample(shard=f"{n}.tar", key=f"k{n}", offset=512, reason="damaged") for n in (1, 2))
    store = LocalStore(str(tmp_path / "runs" / sweep))
    keep_trial_ledger(store.child("trials/a"), [one])
    keep_trial_ledger(store.child("trials/a"), [])  # another attempt, which met nothing
    keep_trial_ledger(store.child("trials/b"), [one, two])
    done = run("quarantine", "--sweep", sweep, "--runs", str(tmp_path / "runs"))
    assert f"left out by {sweep}: 2 samples" in done.out
    assert [line.split()[0] for line in done.out.splitlines()[:2]] == ["1.tar:", "2.tar:"]


@pytest.mark.parametrize("arguments", [(), ("folder", "--sweep", "a")])
def test_quarantine_needs_shards_or_a_sweep(run, arguments):
    done = run("quarantine", *arguments)
    assert (done.code, "either" in done.err) == (2, True)


def test_images_are_made_smaller_only_with_a_quality(run, tmp_path):
    folder = str(image_folder(tmp_path / "images", images=4))
    refused = run("pack", folder, str(tmp_path / "a"), "--shorter-side-px", "12")
    assert "--reencode" in refused.err
    assert refused.code == 2
    assert run("pack", folder, str(tmp_path / "a"), "--reencode", "90", "--shorter-side-px", "12").code == 0
