"""The rules of `sweep.pbt`."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config import default_config, parse_config
from orchestrator.config.models import PbtConfig
from orchestrator.config.population_rules import check_population
from orchestrator.config.sweep_rules import is_sweepable
from orchestrator.errors import ConfigError

SOUND = """
sweep:
  search: random
  num_trials: 4
  space:
    optimizer.learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}
    masks.target_scale: {center: [0.1, 0.3], width: 0.05}
    ema.start_momentum: {choices: [0.99, 0.996]}
  pbt: {every_images: 1000}
"""


def faults_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="sweep.yaml", overrides=overrides)
    return [str(fault) for fault in caught.value.faults]


def test_a_population_has_defaults() -> None:
    assert parse_config(SOUND).sweep.pbt == PbtConfig(every_images=1000)
    assert default_config().sweep.pbt is None


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("sweep.asha={first_rung_images: 500}", "sweep.asha: cannot stand beside sweep.pbt"),
        ("sweep.seeds=auto", "sweep.seeds: must be one seed under sweep.pbt"),
        ("sweep.seeds=2", "sweep.seeds: must be one seed under sweep.pbt"),
        ("sweep.search=optuna", "sweep.search: must be grid, random or sobol under sweep.pbt, not optuna"),
        ("sweep.num_trials=1", "sweep.pbt: needs a population of two members or more"),
        ("sweep.pbt.every_images=100000000", "sweep.pbt.every_images: must be below train.images"),
        ("sweep.pbt.replaced_fraction=0.6", "must be at most 0.5"),
        ("sweep.pbt.factors=[]", "sweep.pbt.factors"),
        ("sweep.pbt={}", "sweep.pbt.every_images: is required"),
    ],
)
def test_what_cannot_stand_beside_a_population_is_refused(override: str, rule: str) -> None:
    found = faults_of(SOUND, override)
    assert len(found) == 1
    assert rule in found[0]


AXES: list[tuple[str, Any]] = [
    ("encoder.width", [64, 128]),
    ("predictor.depth", [2, 4]),
    ("train.batch_size", [32, 64]),
    ("train.images", [2000, 4000]),
    ("objective.loss", ["smooth_l1", "l2"]),
    ("optimizer.betas", [[0.9, 0.999], [0.9, 0.95]]),
    ("optimizer.warmup_fraction", [0.1, 0.2]),
]


@pytest.mark.parametrize(("key", "choices"), AXES)
def test_a_setting_that_cannot_change_in_mid_training_is_refused(key: str, choices: list[Any]) -> None:
    assert is_sweepable(key)
    found = [text for text in faults_of(SOUND, f"sweep.space.{key}={{choices: {choices}}}") if key in text]
    assert any("cannot change in mid-training" in text for text in found)


def test_axes_that_wait_or_are_followed_and_listed_points_are_refused() -> None:
    tied = "sweep.space.masks.num_target_blocks={choices: [2, 4], also: {masks.num_context_blocks: [1, 2]}}"
    assert "cannot have `when` or `also` under sweep.pbt" in faults_of(SOUND, tied)[0]
    points = "[{name: base}, {name: small, set: {masks.num_target_blocks: 3}}]"
    listed = f"sweep: {{points: {points}, pbt: {{every_images: 10}}}}"
    assert [text for text in faults_of(listed) if "sweep.points: cannot stand beside sweep.pbt" in text]


def test_a_search_without_population_is_not_looked_at() -> None:
    assert check_population(default_config(), []) == []
