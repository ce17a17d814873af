import numpy as np
import pytest
from sweep_records import BEST, SCALES, pair_of, record_of, sweep_config, sweep_events

from orchestrator.config import apply_overrides
from orchestrator.protocol.point import Point
from orchestrator.report.statistics.findings import explore
from orchestrator.report.statistics.noise import estimate_noise
from orchestrator.report.statistics.realised import (
    ASPECT,
    CONTEXT,
    TARGET,
    TARGETS,
    choose_axes,
    geometry_figures,
    realised_figures,
)
from orchestrator.report.statistics.trials import Geometry, TrialSummary, group_geometries, trial_summaries

CONFIG = sweep_config()


@pytest.fixture(scope="module")
def geometries():
    return group_geometries(trial_summaries(CONFIG, record_of(sweep_events())))


@pytest.fixture(scope="module")
def findings(geometries):
    return explore(CONFIG, geometries, estimate_noise(geometries))


def test_the_surface_lies_over_realised_figures_and_finds_the_best(findings):
    assert [axis.name for axis in findings.choice.axes][:2] == [TARGET, ASPECT]
    assert findings.best_figures[TARGET] == pytest.approx(BEST[0], abs=0.06)
    assert findings.best_figures[ASPECT] == pytest.approx(BEST[1], rel=0.35)
    assert findings.best_interval.low < 61.0 < findings.best_interval.high


def test_scale_and_aspect_ratio_matter_in_their_order(findings):
    names = [axis.name for axis in findings.importance if axis.matters]
    assert names == [TARGET, ASPECT]


def test_larger_targets_cost_more_along_the_cost_surface(findings):
    low, high = findings.places_GD.min(axis=0), findings.places_GD.max(axis=0)
    cheap, dear = low.copy(), low.copy()
    dear[0] = high[0]
    hours = np.exp(findings.cost.mean_and_sd(np.array([cheap, dear]))[0])
    assert hours[1] > 1.05 * hours[0]


def test_suggestions_keep_the_rules_differ_and_say_when_they_leave_the_range(findings):
    assert len({each.name for each in findings.suggestions}) == len(findings.suggestions) > 0
    ends = [sum(pair_of(scale, 1.15)) / 2 for scale in (SCALES[0], SCALES[-1])]
    for each in findings.suggestions:
        apply_overrides(CONFIG, each.point)
        middle, (lowest, highest) = each.point.middle("masks.target_scale"), ends
        assert ("masks.target_scale" in each.beyond) == (not lowest <= middle <= highest)
        assert each.interval.low < each.mean < each.interval.high
        assert 0.15 < each.device_hours < 0.25


def test_too_few_geometries_make_no_surface(geometries):
    assert explore(CONFIG, geometries[:4], estimate_noise(geometries)) is None


def test_a_sweep_over_something_else_has_that_as_its_axis():
    trials = [
        TrialSummary(
            trial_id=f"t{i}-{seed}",
            name="x",
            point=Point({"optimizer.learning_rate": 1e-4 * (i + 1)}),
            seed=seed,
            state="finished",
            value=40.0 + i + 0.3 * seed,
            images=1,
            total_images=1,
        )
        for i in range(6)
        for seed in range(2)
    ]
    found = group_geometries(trials)
    axes = explore(CONFIG, found, estimate_noise(found)).choice.axes
    assert [axis.name for axis in axes] == ["optimizer.learning_rate"]


def test_figures_are_what_the_blocks_come_to_and_not_what_was_asked_for():
    figures = realised_figures(
        CONFIG, Point({"masks.target_scale": [0.1, 0.1], "masks.num_target_blocks": 3})
    )
    assert (figures[TARGET] * 144) == pytest.approx(round(figures[TARGET] * 144), abs=1.0)
    assert figures[TARGETS] == 3
    assert 0.2 < figures[CONTEXT] <= 0.25


def test_fractions_measured_in_training_stand_before_the_audit():
    trial = TrialSummary(
        trial_id="t",
        name="",
        point=Point({}),
        seed=0,
        state="finished",
        value=1.0,
        images=1,
        total_images=1,
        metrics={"masks/context_fraction": 0.111},
    )
    assert geometry_figures(CONFIG, Geometry(name="", point=Point({}), trials=(trial,)))[CONTEXT] == 0.111


def test_an_axis_that_moves_with_another_is_left_out_and_named():
    figures = [{TARGET: 0.1 * i, ASPECT: 1.0, CONTEXT: 0.5 - 0.05 * i} for i in range(1, 5)]
    choice = choose_axes(figures)
    assert [axis.name for axis in choice.axes] == [TARGET]
    assert "cannot be told apart" in choice.notes[0]


def test_a_word_is_a_flag_and_its_counterpart_is_left_out_quietly():
    choice = choose_axes(
        [{"masks.sampler=exact": 1.0}, {"masks.sampler=block": 1.0}, {"masks.sampler=exact": 1.0}]
    )
    assert [axis.is_flag for axis in choice.axes] == [True]
    assert choice.notes == ()
