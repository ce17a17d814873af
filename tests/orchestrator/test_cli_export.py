"""`orchestrator export` of a trained trial, and `orchestrator bench step`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_command
from safetensors.torch import load_file
from sweep_records import write_journal
from tiny_sweeps import tiny_config

from orchestrator.config import dump
from orchestrator.config.models import RunConfig
from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import TrialJob
from orchestrator.storage import open_store
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.evaluation import ranked_encoder
from orchestrator.train.loop.best import BestKeeper
from orchestrator.train.loop.checkpoint import load_checkpoint, load_latest
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter
from orchestrator.train.stores import checkpoint_store

SWEEP = "tiny-20260101-120000-ab12"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig, ListReporter]:
    """A sweep of one trial that started from a published checkpoint, as its journal and checkpoint."""
    folder = tmp_path_factory.mktemp("export")
    config = tiny_config(folder, train__images=160, train__init_from=str(folder / "published.pth.tar"))
    reporter, run_uri = ListReporter(), str(folder / "runs" / SWEEP)
    job = TrialJob(trial_id="t1", config=config, shards_uri=prepare_data(config).uri, run_uri=run_uri)
    run = Run(job, reporter, Rank())
    weights = run.state.objective.context_encoder.state_dict()
    published = {f"module.{name}": value + 0.05 * torch.randn_like(value) for name, value in weights.items()}
    torch.save({"encoder": published, "target_encoder": published, "epoch": 1}, folder / "published.pth.tar")
    run.train()
    started = {"kind": "sweep_started", "sweep_id": SWEEP, "name": "tiny", "config": dump(config)}
    planned = {
        "kind": "trial_planned",
        "trial_id": "t1",
        "index": 0,
        "point": {},
        "seed": 0,
        "name": "seed 0",
    }
    common = {"environment": {}, "data": {}, "notes": [], "time_ms": 0}
    write_journal(folder / "runs", [started | common, planned | {"total_images": 160, "time_ms": 0}])
    return folder, config, reporter


@pytest.fixture
def export(command, trained):
    place = ("--runs", str(trained[0] / "runs"))
    return lambda *arguments, run=f"{SWEEP}/t1": command("export", run, *arguments, *place)


def test_a_trial_is_exported_and_timm_loads_its_target_encoder(export, trained, tmp_path):
    import timm

    done = export("--to", "timm", "--out", str(tmp_path / "out"), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["load_with"].startswith("timm.create_model('local-dir:")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    job = TrialJob(trial_id="t1", config=trained[1], shards_uri="", run_uri=str(trained[0] / "runs" / SWEEP))
    store = checkpoint_store(job)
    found = load_latest(store)
    assert found is not None
    assert torch.equal(model.norm.bias, found.tensors["objective/target_encoder.norm.bias"])


def test_it_says_which_checkpoint_was_taken_and_the_last_is_there_to_be_asked_for(export, tmp_path):
    taken = export("--to", "timm", "--out", str(tmp_path / "out"))
    assert "checkpoint: best/step-0000000005, after 160 of 160 images, probe/linear/mean" in taken.out
    last = json.loads(
        export("--to", "timm", "--checkpoint", "last", "--out", str(tmp_path / "o"), "--json").out
    )
    assert last["taken"] == {"name": "step-0000000005", "step": 5, "best": None, "note": ""}


def test_an_encoder_of_the_highest_probe_is_exported_and_its_figure_marked_as_picked(
    command, trained, tmp_path
):
    """The trained trial again, as if it had been probed higher after 128 images, with other weights."""
    folder, config, _ = trained
    shutil.copytree(folder / "runs", tmp_path / "runs")
    store = open_store(str(tmp_path / f"runs/{SWEEP}/trials/t1/checkpoints"), config.storage)
    tensors = dict(load_checkpoint(store, "step-0000000005").tensors)
    keeper = BestKeeper(store, config, total_steps=5)
    ones = {name.removeprefix("objective/"): np.ones_like(value.numpy()) for name, value in tensors.items()}
    keeper.keep(4, {"probe/linear/mean": 99.0}, ones)
    rows = [
        {"images": images, "timestamp_ms": 0, "metrics": {"probe/linear/mean": value}}
        for images, value in ((128, 99.0), (160, 40.0))
    ]
    report = {"kind": "report", "trial_id": "t1", "attempt_id": "a", "images": 160, "rows": rows}
    answer = {"rung": None, "value": 40.0, "action": "continue", "reason": ""}
    event = report | answer | {"correct": {}, "time_ms": 0, "sequence": 2}
    (tmp_path / f"runs/{SWEEP}/journal/00000002.json").write_text(json.dumps(event))
    arguments = ("export", f"{SWEEP}/t1", "--to", "timm", "--runs", str(tmp_path / "runs"), "--out")
    done = command(*arguments, str(tmp_path / "out"))
    assert (
        "checkpoint: best/step-0000000004, after 128 of 160 images, probe/linear/mean 99.0 %, picked as the highest of "
        "2 probes since warm-up, so it reads high; 40.0 % at the newest probe" in done.out
    )
    weights = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(weights["norm.bias"], torch.ones_like(weights["norm.bias"]))
    told = json.loads(command(*arguments, str(tmp_path / "again"), "--json").out)["taken"]["best"]
    assert (told["picked"], told["num_probes"], told["fall_points"]) == (True, 2, 59.0)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({}, "target"),
        ({"probe__encoder": "context"}, "context"),
        ({"probe__encoder": "both"}, "target"),
        ({"probe__encoder": "both", "sweep__metric": "probe/linear_context/mean"}, "context"),
    ],
)
def test_the_encoder_that_the_ranking_metric_is_of_is_handed_on(trained, settings, part):
    assert ranked_encoder(tiny_config(trained[0], **settings)) == part


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        (f"{SWEEP}/t9", (), "has no trial 't9'; it has t1"),
        (f"{SWEEP}/0", ("--checkpoint", "step-1"), "no checkpoint 'step-1'"),
        (SWEEP, (), f"no trial of {SWEEP} has probe/linear/mean yet; name one as {SWEEP}/TRIAL"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(export, run, arguments, message):
    done = export("--to", "timm", *arguments, run=run)
    assert done.code != 0
    assert message in done.err


def test_a_published_checkpoint_is_probed_before_training_beside_the_untrained_encoder(trained):
    first = trained[2].reports[0].rows[0].metrics
    assert "probe/linear/mean" in first
    assert "baseline/untrained/linear/mean" in first
    assert first["health/loss_over_constant"] > 0


def test_every_run_reports_what_its_steps_cost(trained):
    last = trained[2].reports[-1].rows[-1].metrics
    phases = ("target", "context", "predictor", "backward", "optimizer", "ema", "probe")
    assert all(last[f"time/{name}_s"] > 0 for name in phases)
    assert last["train/gigaflop_per_s"] == pytest.approx(
        last["train/gigaflop_per_image"] * last["train/images_per_s"]
    )
    assert last["memory/peak_bytes"] > 1e8
    health = {"std", "cosine", "effective_rank", "rankme", "lidar", "position_share", "loss_over_position"}
    assert {f"health/{name}" for name in health} <= last.keys()


def test_bench_step_prints_where_the_time_goes(monkeypatch, capsys, trained, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(dump(trained[1]), encoding="utf-8")
    done = run_command(
        monkeypatch,
        capsys,
        "bench",
        "step",
        str(file),
        "--batch-size",
        "4",
        "--steps",
        "2",
        "--device",
        "cpu",
    )
    assert done.code == 0, done.err
    for word in ("target", "predictor", "backward", "ema", "images/s", "GFLOP an image", "peak memory"):
        assert word in done.out
