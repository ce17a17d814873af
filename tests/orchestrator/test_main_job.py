"""The main job as its user runs it: `orchestrator sweep FILE`, from a folder and from a bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command
from image_data import image_folder

from orchestrator.config.models import StorageConfig, TrackingConfig
from orchestrator.data import pack_dataset
from orchestrator.storage import open_store
from orchestrator.tracking import find_location
from orchestrator.tracking.client import open_client
from orchestrator.train.loop.checkpoint import list_checkpoints

pytestmark = pytest.mark.ray

SWEEP = """
name: tiny
encoder: {image_size_px: 32, patch_size_px: 4, width: 32, depth: 2, num_heads: 2}
predictor: {width: 16, depth: 1, num_heads: 2}
train: {images: 320, batch_size: 32, report_every_images: 160, checkpoint_every_images: 160}
probe: {train_images: 40, test_images: 20}
sweep:
  space:
    masks.target_scale: {choices: [[0.1, 0.15], [0.15, 0.2]]}
"""


def as_json(stdout: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(stdout)
    return result


def sweep(folder: Path, *overrides: str) -> list[str]:
    """The command's arguments, for the file in `folder`."""
    settings = [word for override in overrides for word in ("--set", override)]
    return ["sweep", str(folder / "masks.yaml"), "--json", "--num-cpus", "1", *settings]


def final_weights(result: dict[str, Any], runs_uri: str) -> dict[str, str]:
    """The hash of every trial's last weights, by the trial's name."""
    found = {}
    for trial in result["trials"]:
        uri = f"{runs_uri}/{result['sweep_id']}/trials/{trial['trial_id']}/checkpoints"
        store = open_store(uri, StorageConfig())
        manifest = json.loads(store.read(f"{list_checkpoints(store)[0]}/manifest.json"))
        found[trial["name"]] = manifest["files"]["state.safetensors"]["sha256"]
    return found


def test_a_sweep_from_a_bucket_ends_with_the_weights_of_one_from_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, s3_bucket: str
) -> None:
    (tmp_path / "masks.yaml").write_text(SWEEP)
    images = image_folder(tmp_path / "images", images=24)
    pack_dataset(str(images), f"{s3_bucket}/shards")
    # The first as its user runs it, in a process of its own; the second here, which saves the imports.
    command = [sys.executable, "-m", "orchestrator"]
    command += sweep(tmp_path, f"data.source={images}", f"data.cache_dir={tmp_path}/cache")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    places = (f"data.source={s3_bucket}/shards", f"data.cache_dir={tmp_path}/other-cache")
    monkeypatch.chdir(tmp_path)
    here = run_command(monkeypatch, capsys, *sweep(tmp_path, *places, f"storage.uri={s3_bucket}/runs"))
    assert here.code == 0, here.err
    local, remote = as_json(done.stdout), as_json(here.out)
    assert local["state"] == remote["state"] == "finished"
    weights = final_weights(local, f"{tmp_path}/runs")
    assert len(weights) == 2
    assert final_weights(remote, f"{s3_bucket}/runs") == weights
    _check_what_is_left(local, tmp_path)
    keys = {info.key for info in open_store(f"{s3_bucket}/runs/{remote['sweep_id']}", StorageConfig()).list()}
    assert {"config.yaml", "report/report.html", "journal/00000000.json"} <= keys


def _check_what_is_left(result: dict[str, Any], folder: Path) -> None:
    """The page and the table beside the checkpoints; one parent and a child a trial in MLflow, all finished."""
    report = folder / "runs" / result["sweep_id"] / "report"
    assert "<html" in (report / "report.html").read_text()
    assert len((report / "trials.csv").read_text().splitlines()) == 3
    client = open_client(find_location(TrackingConfig(), f"{folder}/runs"))
    (experiment,) = [found for found in client.search_experiments() if found.name == "tiny"]
    where = f"tags.`orchestrator.sweep` = '{result['sweep_id']}'"
    (parent,) = client.search_runs([experiment.experiment_id], where)
    under = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = client.search_runs([experiment.experiment_id], under)
    assert len(children) == 2
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert all("probe/linear/mean" in run.data.metrics for run in children)
    assert all(any("masks.target_scale" in key for key in run.data.params) for run in children)


def test_a_faulty_file_is_refused_with_every_fault_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "masks.yaml").write_text("masks: {target_scal: [0.1, 0.2]}\ntrain: {images: -1}\n")
    monkeypatch.chdir(tmp_path)
    refused = run_command(monkeypatch, capsys, "sweep", "masks.yaml")
    assert refused.code == 2
    assert "masks.yaml:1" in refused.err
    assert "masks.target_scale" in refused.err
    assert "masks.yaml:2" in refused.err
    assert list(tmp_path.iterdir()) == [tmp_path / "masks.yaml"]
