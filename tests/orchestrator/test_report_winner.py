import json

import numpy as np
import pytest
import torch
from safetensors.torch import load
from sweep_records import record_of, sweep_config, sweep_events, write_journal

from jepa_core.encoder import build_encoder
from orchestrator.errors import NotFoundError
from orchestrator.protocol.point import Point
from orchestrator.report import load_sweep, recommend, summarize, trial_config
from orchestrator.report.words.winner import model_files, recommended_checkpoint
from orchestrator.report.write import log_report
from orchestrator.storage import open_store
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.tracking import MemoryTracker
from orchestrator.train.loop.best import BestKeeper
from orchestrator.train.loop.checkpoint import save_checkpoint

CONFIG = sweep_config()


def record_with(costs: dict[str, float], *, seeds=(0, 1, 2)) -> SweepRecord:
    """Two geometries that are level, the first a little higher, with these hours a trial."""
    record = record_of(sweep_events())
    kept = {}
    for place, scale in enumerate(costs):
        for seed in seeds:
            trial = record.trials[f"t{12 * (place + 1) + seed:07x}"]
            trial.metrics["probe/linear/mean"] = 60.0 - 0.05 * place + 0.4 * (seed - 1) * (-1) ** place
            trial.point = Point({"masks.target_scale": [float(scale), 0.3]})
            for attempt in trial.attempts.values():
                attempt.ended = attempt.started + 3600 * costs[scale]
            kept[trial.trial_id] = trial
    record.trials = kept
    return record


def test_the_cheapest_of_the_tied_is_recommended_where_it_saves_a_tenth():
    choice = recommend(summarize(CONFIG, record_with({"0.1": 2.0, "0.2": 1.0})))
    assert choice.result.point["masks.target_scale"][0] == 0.2
    assert "cheapest of the 2" in choice.reason


def test_the_highest_is_recommended_where_nothing_is_saved_or_noise_was_not_measured():
    level = recommend(summarize(CONFIG, record_with({"0.1": 1.0, "0.2": 0.95})))
    alone = recommend(summarize(CONFIG, record_with({"0.1": 2.0, "0.2": 1.0}, seeds=(1,))))
    for choice, word in ((level, "notably less"), (alone, "one seed")):
        assert choice.result.point["masks.target_scale"][0] == 0.1
        assert word in choice.reason


def test_where_no_gain_is_shown_the_highest_is_named_and_longer_training_proposed():
    record = record_with({"0.1": 2.0, "0.2": 1.0})
    for trial in record.trials.values():
        trial.metrics["baseline/untrained/linear/mean"] = 59.9 + 3 * (trial.seed - 1)
    summary = summarize(CONFIG, record)
    choice = recommend(summary)
    assert (choice.outcome, choice.result.point["masks.target_scale"][0]) == ("no_gain", 0.1)
    assert "Nothing is recommended" in choice.reason
    assert summary.verdict.gain.points == pytest.approx(0.1)
    assert "is 0.1 points above its own untrained encoder, and luck alone may give" in summary.text()
    assert "First train longer (train.images)" in summary.text()


def test_a_sweep_without_a_finished_trial_recommends_nothing():
    with pytest.raises(NotFoundError, match="no trial finished"):
        recommend(summarize(CONFIG, SweepRecord(sweep_id="s")))


@pytest.fixture
def trained_sweep(tmp_path):
    """A journalled sweep whose recommended trial left a checkpoint."""
    config, record, uri = load_sweep(str(tmp_path), write_journal(tmp_path, sweep_events()))
    choice = recommend(summarize(config, record))
    weights = build_encoder(config.encoder, generator=torch.Generator().manual_seed(3)).state_dict()
    store = open_store(f"{uri}/trials/{choice.trial.trial_id}/checkpoints", config.storage)
    tensors = {f"objective/target_encoder.{key}": value for key, value in weights.items()}
    save_checkpoint(store, step=400, tensors=tensors, meta={}, keep=1)
    return config, record, uri, choice, weights


def test_the_recommended_encoder_is_registered_from_its_checkpoint(trained_sweep):
    _, record, uri, choice, _ = trained_sweep
    tracker = MemoryTracker()
    tracker.start_sweep(record.sweep_id, "masks", {}, {})
    for trial_id in record.trials:
        tracker.start_trial(trial_id, trial_id, {}, {})
    log_report(record, tracker, uri, register=False)
    assert tracker.models == {}
    log_report(record, tracker, uri)
    (tags,) = tracker.models["masks-encoder"].values()
    assert tags["orchestrator.outcome"] == "tied"
    files = tracker.runs[choice.trial.trial_id].artifacts
    card = json.loads(files["model/encoder/card.json"])
    assert card["origin"]["trial_id"] == choice.trial.trial_id
    assert card["encoder"]["width"] == 96


def test_a_model_folder_holds_the_weights_of_the_checkpoint(trained_sweep, tmp_path):
    from orchestrator.tracking.encoder_model import load_encoder

    config, _, uri, choice, weights = trained_sweep
    taken = recommended_checkpoint(config, choice, uri)
    for name, data in model_files(config, choice, taken).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    encoder, _ = load_encoder(tmp_path / "model" / "encoder")
    assert all(np.array_equal(value, weights[key]) for key, value in encoder.state_dict().items())


def test_the_best_checkpoint_is_the_one_that_is_registered_and_its_figure_is_marked(trained_sweep):
    config, record, uri, choice, weights = trained_sweep
    trial = record.trials[choice.trial.trial_id]
    store = open_store(f"{uri}/trials/{trial.trial_id}/checkpoints", config.storage)
    ones = {f"target_encoder.{key}": np.ones_like(value.numpy()) for key, value in weights.items()}
    BestKeeper(store, config, total_steps=400).keep(200, {"probe/linear/mean": 70.0}, ones)
    tracker = MemoryTracker()
    tracker.start_sweep(record.sweep_id, "masks", {}, {})
    for trial_id in record.trials:
        tracker.start_trial(trial_id, trial_id, {}, {})
    log_report(record, tracker, uri)
    (tags,) = tracker.models["masks-encoder"].values()
    assert tags["orchestrator.checkpoint"].startswith("best/step-0000000200, after 20,000 of 40,000 images")
    assert "picked" in tags["orchestrator.checkpoint"]
    assert tags["orchestrator.accuracy"] == f"{choice.trial.value:.4g}"
    files = tracker.runs[trial.trial_id].artifacts
    origin = json.loads(files["model/encoder/card.json"])["origin"]
    assert origin["checkpoint"]["best"]["picked"] is True
    assert origin["value"] == choice.trial.value
    stored = load(files["model/encoder/encoder.safetensors"])
    assert all(torch.equal(value, torch.ones_like(value)) for value in stored.values())


def test_a_trial_without_a_checkpoint_has_no_model(tmp_path):
    choice = recommend(summarize(CONFIG, record_of(sweep_events())))
    assert recommended_checkpoint(CONFIG, choice, str(tmp_path / "nothing")) is None


def test_a_trials_configuration_runs_alone_at_its_point_and_seed():
    config = trial_config(CONFIG, Point({"masks.target_scale": [0.1, 0.2]}), 7)
    assert (config.masks.target_scale, config.train.seed, config.sweep.space) == ((0.1, 0.2), 7, {})
