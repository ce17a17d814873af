"""A sweep over methods: sweeps/methods.yaml as it is planned, trained and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_core.objectives import build_objective
from orchestrator.config import load_config
from orchestrator.sweep.foresight.geometries import audit_sweep
from orchestrator.sweep.space.points import listed_point, plan_sweep

FILE = Path(__file__).parents[2] / "sweeps" / "methods.yaml"


@pytest.fixture(scope="module")
def config():
    return load_config(FILE)


def test_every_method_is_planned_under_three_seeds(config):
    trials = plan_sweep(config).trials
    names = [trial.config.objective.name for trial in trials if trial.seed == 0]
    assert names == ["ijepa", "mae", "data2vec", "data2vec2", "cae", "vicreg", "dino"]
    assert len(trials) == 3 * len(names)


def test_a_trial_keeps_its_methods_own_settings_and_finds_its_listed_point(config):
    trials = {trial.config.objective.name: trial for trial in plan_sweep(config).trials}
    assert trials["mae"].config.objective.decoder_width == 32
    assert trials["ijepa"].config.optimizer.betas == (0.9, 0.999)
    assert "objective.decoder_width" not in trials["ijepa"].point
    points = {name: listed_point(config, trial.point) for name, trial in trials.items()}
    assert [point.name for point in points.values() if point is not None][:3] == ["I-JEPA", "MAE", "data2vec"]


def test_every_method_builds_and_its_cost_is_counted(config):
    plan = plan_sweep(config)
    costs = audit_sweep(config, plan).flops_per_image
    by_method = {trial.config.objective.name: costs[trial.trial_id] for trial in plan.trials}
    assert by_method["mae"] < by_method["ijepa"] < by_method["data2vec"] < by_method["dino"]
    for trial in plan.trials[::3]:
        module = build_objective(
            encoder=trial.config.encoder,
            predictor=trial.config.predictor,
            objective=trial.config.objective,
            seed=0,
        )
        module.build_sampler(trial.config.masks)
