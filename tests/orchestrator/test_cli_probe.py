"""`orchestrator probe`: one table for our encoders and for timm's, with the library's own features."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_command
from sweep_records import write_journal
from tiny_sweeps import tiny_config

from jepa_core.encoder import build_encoder
from jepa_core.probes import wilson_interval
from jepa_core.step import prepare_images
from orchestrator.config import dump
from orchestrator.config.models import RunConfig
from orchestrator.data import open_shards, prepare_data
from orchestrator.protocol.jobs import TrialJob
from orchestrator.tracking import find_location, find_tracker
from orchestrator.tracking.client import open_client
from orchestrator.tracking.encoder_model import EncoderCard, encoder_weights, pooled_features
from orchestrator.tracking.mlflow import MlflowTracker
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.evaluation import load_probe_data
from orchestrator.train.evaluate.features import (
    FeatureCache,
    OwnModel,
    extract_sets,
    open_timm,
    weights_digest,
)
from orchestrator.train.evaluate.probing import run_evaluations
from orchestrator.train.loop.checkpoint import load_latest
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter
from orchestrator.train.stores import checkpoint_store

SWEEP = "tiny-20260101-120000-ab12"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    """A sweep of one MAE trial, as its journal and checkpoint."""
    folder = tmp_path_factory.mktemp("probe")
    config = tiny_config(
        folder,
        objective__name="mae",
        objective__decoder_width=16,
        objective__decoder_depth=1,
        objective__decoder_num_heads=2,
        train__images=160,
    )
    job = TrialJob(
        trial_id="t1",
        config=config,
        shards_uri=prepare_data(config).uri,
        run_uri=str(folder / "runs" / SWEEP),
    )
    Run(job, ListReporter(), Rank()).train()
    started = {
        "kind": "sweep_started",
        "sweep_id": SWEEP,
        "name": "tiny",
        "config": dump(config),
        "environment": {},
        "data": {},
        "notes": [],
        "time_ms": 0,
    }
    planned = {
        "kind": "trial_planned",
        "trial_id": "t1",
        "index": 0,
        "point": {},
        "seed": 0,
        "name": "seed 0",
        "total_images": 160,
        "time_ms": 0,
    }
    write_journal(folder / "runs", [started, planned])
    return folder, config


@pytest.fixture
def probe(command, trained):
    place = ("--runs", str(trained[0] / "runs"), "--no-log")
    return lambda *arguments: command("probe", *arguments, *place)


def test_a_trial_without_a_teacher_is_probed_with_intervals(probe, trained):
    done = probe(f"{SWEEP}/t1", "--evaluations", "linear,knn,low-shot", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    kinds = [figure["evaluation"] for figure in report["figures"]]
    assert kinds == ["linear", "knn", "low-shot 1%", "low-shot 10%"]
    for figure in report["figures"]:
        hits = round(figure["value"] / 100 * report["num_test"])
        low, high = wilson_interval(hits, report["num_test"])
        assert (figure["low"], figure["high"]) == pytest.approx((100 * low, 100 * high))
    assert report["failed"] == {}


def test_a_checkpoint_by_its_folder_is_the_trial(probe, trained):
    folder = trained[0] / "runs" / SWEEP / "trials/t1/checkpoints"
    name = next(path.name for path in folder.glob("step-*"))
    table = probe(str(folder / name), "--evaluations", "knn").out
    assert "test images, fitted on" in table
    assert "knn" in table
    assert "95 % interval" in table


def test_figures_and_their_intervals_go_to_the_trials_run_in_mlflow(
    monkeypatch, capsys, trained, template_database
):
    folder, config = trained
    shutil.copy(template_database, folder / "runs/mlflow.db")
    place = find_location(config.tracking, str(folder / "runs"))
    tracker = MlflowTracker(place, "tiny")
    tracker.start_sweep(SWEEP, SWEEP, {}, {"orchestrator.sweep": SWEEP})
    tracker.start_trial("t1", "000 seed 0", {"train.seed": 0}, {})
    done = run_command(
        monkeypatch,
        capsys,
        "probe",
        f"{SWEEP}/t1",
        "--evaluations",
        "knn,linear",
        "--runs",
        str(folder / "runs"),
        "--json",
    )
    assert done.code == 0, done.err
    run_id = find_tracker(config.tracking, str(folder / "runs"), "tiny", SWEEP).links().trial_run_ids["t1"]
    client = open_client(place)
    found = client.get_run(run_id).data.metrics
    for figure in json.loads(done.out)["figures"]:
        name = f"evaluation/{figure['evaluation']}/{figure['label']}"
        assert [found[f"{name}{end}"] for end in ("", "/low", "/high")] == [
            figure[key] for key in ("value", "low", "high")
        ]
        assert [metric.step for metric in client.get_metric_history(run_id, name)] == [160]
    assert found["evaluation/time/knn_s"] > 0


def test_our_features_are_those_of_the_exported_encoder(trained):
    folder, config = trained
    job = TrialJob(trial_id="t1", config=config, shards_uri="", run_uri=str(folder / "runs" / SWEEP))
    checkpoint = load_latest(checkpoint_store(job))
    assert checkpoint is not None
    encoder = build_encoder(config.encoder)
    encoder.load_state_dict(encoder_weights(checkpoint.tensors))
    model = OwnModel(encoder=encoder.eval(), mean=config.data.mean, std=config.data.std, digest="d")
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    card = EncoderCard(encoder=config.encoder, mean=config.data.mean, std=config.data.std, origin={})
    expected = pooled_features(encoder, card, np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()))
    found = extract_sets(model, images)
    torch.testing.assert_close(found["last"], torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
    assert found["last4"].shape == (5, 2 * 32)
    assert found["patches"].shape == (5, 64, 32)


@pytest.mark.parametrize("name", ["test_vit", "resnet10t"])
def test_a_timm_model_gives_the_librarys_own_features(name):
    model = open_timm(name, None, pretrained=False)
    images = torch.randint(256, (3, 3, model.image_size_px, model.image_size_px), dtype=torch.uint8)
    found = extract_sets(model, images)
    normalised = prepare_images(images, model.mean, model.std, "cpu")
    model.model.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(found["last"], model.model(normalised), rtol=1e-4, atol=1e-5)
    assert ("last4" in found) == (name == "test_vit")


def test_a_timm_model_is_probed_on_the_same_images(probe, trained, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(dump(trained[1]), encoding="utf-8")
    done = probe("timm:test_vit", str(file), "--evaluations", "knn", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["figures"][0]["evaluation"] == "knn"


def test_weights_of_a_file_are_loaded_and_others_are_refused(tmp_path):
    from safetensors.torch import save_file

    first = open_timm("test_vit", None, pretrained=False)
    save_file(first.model.state_dict(), tmp_path / "w.safetensors")
    again = open_timm("test_vit", str(tmp_path / "w.safetensors"), pretrained=False)
    assert again.digest == first.digest
    assert open_timm("test_vit", None, pretrained=False).digest != first.digest


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("timm:test_vitt", 2, "test_vit"),
        (f"{SWEEP}/t9", 4, "t9"),
        ("nothing", 4, "nothing: there is no sweep"),
    ],
)
def test_what_is_not_there_is_said(probe, target, code, words):
    done = probe(target)
    assert done.code == code
    assert words in done.err


def test_an_unknown_evaluation_is_refused(probe):
    done = probe("timm:test_vit", "--evaluations", "linea")
    assert done.code == 2
    assert "there are linear, knn" in done.err


def test_a_failed_evaluation_does_not_cost_the_others(trained, tmp_path):
    _, config = trained
    model = open_timm("resnet10t", None, pretrained=False)
    shards = open_shards(prepare_data(config).uri, config.data, config.storage)
    report = run_evaluations(
        model, shards, config, target="t", evaluations=("attentive", "knn"), cache=tmp_path
    )
    assert report is not None
    assert "no patch features" in report.failed["attentive"]
    assert [figure.evaluation for figure in report.figures] == ["knn"]


def test_every_evaluation_runs_on_an_encoder_of_ours(trained, tmp_path):
    _, config = trained
    encoder = build_encoder(config.encoder).eval()
    model = OwnModel(
        encoder=encoder, mean=config.data.mean, std=config.data.std, digest=weights_digest(encoder, "ours")
    )
    shards = open_shards(prepare_data(config).uri, config.data, config.storage)
    report = run_evaluations(
        model, shards, config, target="t", evaluations=("attentive", "fine-tune"), cache=tmp_path
    )
    assert report is not None
    assert report.failed == {}
    assert [figure.evaluation for figure in report.figures] == ["attentive", "fine-tune"]
    assert load_probe_data(config, shards) is not None


def test_features_are_computed_once_and_a_damaged_file_is_computed_again(tmp_path):
    cache, calls = FeatureCache(tmp_path), []

    def compute() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"last": torch.ones(2, 3)}

    first = cache.get({"a": 1}, compute)
    assert torch.equal(cache.get({"a": 1}, compute)["last"], first["last"])
    assert len(calls) == 1
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    cache.get({"a": 1}, compute)
    cache.get({"a": 2}, compute)
    assert len(calls) == 3
