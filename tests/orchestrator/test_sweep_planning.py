from __future__ import annotations

import math
from pathlib import Path

import pytest
from image_data import image_folder

from jepa_core.step import create_state
from orchestrator.config import apply_overrides, default_config
from orchestrator.errors import DataError
from orchestrator.storage import LocalStore
from orchestrator.sweep.foresight.model_costs import checkpoint_bytes
from orchestrator.sweep.foresight.plan import describe_plan, differences
from orchestrator.train.loop.checkpoint import checkpoint_name, save_checkpoint

TINY = {
    "encoder.name": "vit_tiny_patch16_224",
    "encoder.width": 32,
    "encoder.depth": 2,
    "encoder.num_heads": 2,
    "predictor.width": 16,
    "predictor.depth": 1,
}


@pytest.fixture
def described(tmp_path: Path):
    """The plan of a sweep over three scales and two seeds on a folder of images."""
    values = {
        "data.source": str(image_folder(tmp_path / "images")),
        "data.cache_dir": str(tmp_path / "cache"),
        "train.images": 9000,
        "train.batch_size": 100,
        "sweep.space": {"masks.target_scale": {"choices": [[0.1, 0.2], [0.15, 0.2], [0.15, 0.2001]]}},
        "sweep.seeds": [0, 1],
    }
    return describe_plan(apply_overrides(default_config(), {**TINY, **values}))


def test_a_plan_tells_trials_after_merging_with_what_their_masks_come_to(described):
    lines = described.text().splitlines()
    table = [line.split() for line in lines if line.startswith("t") and line[1].isalnum()]
    assert len(described.plan.trials) == len([row for row in table if row[0] != "trial"]) == 6
    assert "0.250" in table[-1]


def test_a_plan_looks_at_the_data_and_leaves_it_as_it_is(described, tmp_path):
    assert described.data.kind == "folder"
    assert sum(described.to_json()["data"]["num_samples"].values()) == 60
    assert not (tmp_path / "cache").exists()


def test_a_plan_shows_workers_and_settings_as_words_and_as_a_file_has_them(described):
    text = described.text()
    assert "1 worker with 1 CPU and GPUs as there are" in text
    assert "sweep.seeds: [0, 1]" in text


def test_a_plan_says_that_images_without_labels_cannot_rank(tmp_path):
    folder = image_folder(tmp_path / "images") / "ant"
    config = apply_overrides(default_config(), {**TINY, "data.source": str(folder)})
    assert "nothing is probed" in describe_plan(config).notes[0]


def test_the_cost_is_the_flops_of_each_image_times_the_images(described):
    trial = described.plan.trials[0]
    per_image = described.audit.of_trial(trial.trial_id).flops.total
    assert described.cost.flops_of_trial[trial.trial_id] == pytest.approx(9000 * per_image)
    assert described.cost.flops == pytest.approx(sum(described.cost.flops_of_trial.values()))
    assert described.cost.least_flops == described.cost.flops


def test_halving_bounds_the_cost_from_below(described):
    def share(**asha):
        rungs = {"first_rung_images": 1000, "reduction_factor": 3, **asha}
        cost = describe_plan(apply_overrides(described.config, {"sweep.asha": rungs})).cost
        return cost.least_flops / cost.flops

    # 6 trials see 1,000 images, 2 go on to 3,000, 1 to 9,000: 16,000 of 54,000.
    assert share(variant="stopping") == pytest.approx(16 / 54)
    # Three geometries under two seeds: one geometry goes on from 1,000 images, under both.
    assert share() == pytest.approx(22 / 54)


def test_a_later_bracket_costs_more_since_it_stops_later(described):
    changes = {"sweep.asha": {"first_rung_images": 1000, "reduction_factor": 3, "brackets": 2}}
    plan = describe_plan(apply_overrides(described.config, changes))
    # The first bracket: 3 see 1,000 images, 1 goes on to 9,000: 11,000. The second: 3 see 3,000, 1 goes on: 15,000.
    assert plan.cost.least_flops / plan.cost.flops == pytest.approx(26 / 54)
    assert "2 brackets" in plan.text()


def test_a_plan_tells_the_cap(described):
    assert "budget " not in described.text()
    changes = {"budget.gpu_hours": 12.0, "budget.cpu_core_hours": 2.5}
    text = describe_plan(apply_overrides(described.config, changes)).text()
    assert "at most 12 GPU hours or, without a GPU, 2.5 CPU core hours" in text


def test_a_plan_tells_how_far_the_teacher_lags_and_warns_above_a_tenth(described):
    """The published momentum over 90 steps: sum of the products of the last k momenta, over 90."""
    momenta = [0.996 + step * 0.004 / 90 for step in range(90)]
    lag = sum(math.prod(momenta[start:]) for start in range(90))
    assert described.teacher.most_steps == pytest.approx(lag)
    assert (
        f"momentum     the target encoder lags {100 * lag / 90:.2g} % of the run behind at its end"
        in described.text()
    )
    assert any(f"lags {100 * lag / 90:.2g} %" in note and "ema.window" in note for note in described.notes)


def test_a_plan_tells_the_span_of_lags_and_nothing_of_methods_without_a_teacher(described):
    windows = {"sweep.space": {"ema.window": {"choices": [0.05, 0.1]}}}
    swept = describe_plan(apply_overrides(described.config, windows))
    assert "momentum     the target encoder lags 3.9 to 8.9 % of the run behind" in swept.text()
    assert not any("behind" in note for note in swept.notes)
    pixels = {"sweep.space": {"optimizer.learning_rate": {"choices": [1e-3]}}, "objective.name": "mae"}
    assert "lags" not in describe_plan(apply_overrides(described.config, pixels)).text()


def test_the_size_of_a_checkpoint_is_what_is_written(described, tmp_path):
    config = described.config
    state = create_state(
        encoder=config.encoder,
        predictor=config.predictor,
        objective=config.objective,
        optimizer=config.optimizer,
        ema=config.ema,
        total_steps=1,
        seed=0,
    )
    for parameter in state.objective.parameters():
        parameter.grad = parameter.detach().clone() if parameter.requires_grad else None
    state.optimizer.step()
    saved = state.state_dict()
    save_checkpoint(
        LocalStore(str(tmp_path / "runs")), step=1, tensors=saved["tensors"], meta=saved["meta"], keep=1
    )
    written = (tmp_path / "runs" / checkpoint_name(1) / "state.safetensors").stat().st_size
    found = checkpoint_bytes(config)
    assert found.whole == pytest.approx(written, rel=0.15)
    assert found.weights == sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in saved["tensors"].items()
        if name.startswith("objective/")
    )
    assert found.whole == sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in saved["tensors"].items()
        if not name.startswith("optimizer/step")
    )


def test_only_what_differs_from_the_defaults_is_listed(described):
    changed = differences(described.config)
    assert changed["train.batch_size"] == 100
    assert "train.seed" not in changed


def test_a_plan_for_data_that_is_not_there_is_refused(tmp_path):
    config = apply_overrides(default_config(), {"data.source": str(tmp_path / "nothing")})
    with pytest.raises(DataError, match="there is no such folder"):
        describe_plan(config)
