"""The winner as a model that loads, and the data set behind a run, in a real MLflow store."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa_core.encoder import EncoderSettings, build_encoder
from orchestrator.config.models import TrackingConfig
from orchestrator.errors import CheckpointError
from orchestrator.tracking import Dataset, find_location, find_origin, find_tracker
from orchestrator.tracking.client import open_client
from orchestrator.tracking.encoder_model import (
    CARD,
    WEIGHTS,
    EncoderCard,
    encoder_files,
    load_encoder,
    pooled_features,
)
from orchestrator.tracking.mlflow import MlflowTracker

ENCODER = EncoderSettings(
    name="vit_tiny_patch16_224", image_size_px=16, patch_size_px=4, width=32, depth=2, num_heads=2
)
CARD_ = EncoderCard(
    encoder=ENCODER, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), origin={"sweep": "s", "accuracy": 61.0}
)
DATASET = Dataset(name="scenes", uri="s3://bucket/scenes", digest="abc" * 20, profile={"num_images": 8000})


def trained() -> dict[str, torch.Tensor]:
    weights = build_encoder(ENCODER, generator=torch.Generator().manual_seed(7)).state_dict()
    state = {f"objective/target_encoder.{key}": value for key, value in weights.items()}
    return {**state, "optimizer/exp_avg/x": torch.zeros(3)}


def images(count: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_an_encoder_comes_back_as_it_was(tmp_path):
    for name, data in encoder_files(CARD_, trained()).items():
        (tmp_path / name).write_bytes(data)
    encoder, card = load_encoder(tmp_path)
    assert card == CARD_
    original = build_encoder(ENCODER, generator=torch.Generator().manual_seed(7)).eval()
    assert np.array_equal(
        pooled_features(encoder, card, images(70)), pooled_features(original, CARD_, images(70))
    )


def test_images_of_another_size_are_resized(tmp_path):
    encoder = build_encoder(ENCODER).eval()
    assert pooled_features(encoder, CARD_, images(2, side=40)).shape == (2, 32)


@pytest.mark.parametrize("broken", [WEIGHTS, CARD])
def test_a_folder_with_a_file_missing_is_said_so(broken, tmp_path):
    for name, data in encoder_files(CARD_, trained()).items():
        if name != broken:
            (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_encoder(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    wrong = replace(CARD_, encoder=replace(ENCODER, depth=1))
    for name, data in encoder_files(wrong, trained()).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match="no encoder"):
        load_encoder(tmp_path)


def test_a_state_without_a_target_encoder_is_refused():
    with pytest.raises(CheckpointError, match="no tensor"):
        encoder_files(CARD_, {"optimizer/x": torch.zeros(1)})


@pytest.fixture
def tracked(template_database, tmp_path):
    """A sweep with one trial in an SQLite store, and the store's place."""
    shutil.copy(template_database, tmp_path / "mlflow.db")
    place = find_location(TrackingConfig(), str(tmp_path))
    tracker = MlflowTracker(place, "masks")
    tracker.start_sweep("s1", "masks", {}, {})
    tracker.start_trial("t0", "one", {"masks.num_target_blocks": 4}, {})
    return tracker, place


@pytest.mark.filterwarnings("ignore")
def test_a_registered_encoder_loads_through_mlflow_without_pickle(tracked, monkeypatch):
    import mlflow

    tracker, place = tracked
    for name, data in encoder_files(CARD_, trained()).items():
        tracker.log_artifact("t0", f"model/encoder/{name}", data)
    for _ in range(2):  # a restarted driver tells everything again
        tracker.register_model("t0", "masks: encoder", "model", {"orchestrator.outcome": "winner"})
    client = open_client(place)
    (version,) = client.search_model_versions("name = 'masks- encoder'")
    assert version.tags["orchestrator.outcome"] == "winner"
    mlflow.set_tracking_uri(place.uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model("models:/masks- encoder@best")
    original = build_encoder(ENCODER, generator=torch.Generator().manual_seed(7)).eval()
    assert np.allclose(model.predict(images(3)), pooled_features(original, CARD_, images(3)))


def test_a_data_set_is_recorded_once_with_its_digest(tracked):
    tracker, place = tracked
    for _ in range(2):
        tracker.log_dataset("t0", DATASET)
    run = open_client(place).get_run(tracker.links().trial_run_ids["t0"])
    (found,) = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("scenes", ("abc" * 20)[:36])
    assert json.loads(found.dataset.source) == {"uri": "s3://bucket/scenes"}
    assert json.loads(found.dataset.profile) == {"num_images": 8000}


def test_a_sweep_that_ran_before_is_found_again_and_nothing_is_made(tracked, tmp_path):
    tracker, _ = tracked
    found = find_tracker(TrackingConfig(), str(tmp_path), "masks", "s1")
    assert found.links().trial_run_ids == tracker.links().trial_run_ids
    assert find_tracker(TrackingConfig(), str(tmp_path), "masks", "s2") is None
    assert find_tracker(TrackingConfig(), str(tmp_path), "others", "s1") is None
    assert find_tracker(TrackingConfig(), str(tmp_path / "elsewhere"), "masks", "s1") is None
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_id_leads_back_to_its_trial(tracked, tmp_path):
    tracker, _ = tracked
    links = tracker.links()
    assert find_origin(TrackingConfig(), str(tmp_path), links.trial_run_ids["t0"]) == ("s1", "t0")
    assert find_origin(TrackingConfig(), str(tmp_path), links.sweep_run_id) == ("s1", None)
    assert find_origin(TrackingConfig(), str(tmp_path), "0" * 32) is None
