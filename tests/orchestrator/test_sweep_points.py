"""Listed points: their trials, the published values beside them, and the paper's ablations."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config import apply_overrides, default_config, dump, load_config, parse_config
from orchestrator.protocol.point import Point
from orchestrator.report import summarize
from orchestrator.sweep.core.record import SweepRecord, TrialRecord
from orchestrator.sweep.foresight.geometries import audit_sweep
from orchestrator.sweep.space.points import listed_point, plan_sweep

ABLATIONS = Path(__file__).resolve().parents[2] / "sweeps" / "ablations.yaml"
SCALES = [
    {"name": "base"},
    {"name": "small", "set": {"masks.target_scale": [0.1, 0.15]}, "published": 40.0},
    {"name": "few", "set": {"masks.num_target_blocks": 2}, "published": 30.0},
    {"name": "base again", "set": {"masks.context_keep": 49}},
]


def listed():
    values = {"sweep.points": SCALES, "sweep.seeds": [0, 1], "sweep.published_source": "a paper, table 1"}
    return apply_overrides(default_config(), values)


def finished(config) -> SweepRecord:
    """The record of a sweep whose trials all ended with 35 % on one label."""
    record = SweepRecord(sweep_id="s", name="s", state="finished", config_text=dump(config), ended_ms=1000)
    for trial in plan_sweep(config).trials:
        found = TrialRecord(
            trial_id=trial.trial_id,
            index=trial.index,
            point=trial.point,
            seed=trial.seed,
            name=trial.name,
            total_images=1000,
            state="finished",
            images=1000,
        )
        metrics = {"probe/linear/mean": 35.0 + trial.index, "baseline/untrained/linear/mean": 10.0}
        found.history[1000], found.timestamps_ms[1000], found.metrics = metrics, 5, metrics
        record.trials[trial.trial_id] = found
    return record


def test_listed_points_are_run_in_order_under_their_names_and_equal_ones_merged():
    plan = plan_sweep(listed())
    assert [trial.name for trial in plan.trials[::2]] == ["base, seed 0", "small, seed 0", "few, seed 0"]
    assert plan.notes == ("merged: base again masks the same integer blocks as base",)


def test_every_listed_point_has_every_axis():
    plan = plan_sweep(listed())
    assert plan.trials[4].point == Point(
        {"masks.target_scale": [0.15, 0.2], "masks.num_target_blocks": 2, "masks.context_keep": 0.25}
    )
    assert all(trial.point.keys() == plan.trials[4].point.keys() for trial in plan.trials)
    assert plan.trials[4].config.masks.num_target_blocks == 2


def test_a_point_is_found_again_from_a_written_configuration():
    config = parse_config(dump(listed()))
    names = [listed_point(config, trial.point).name for trial in plan_sweep(config).trials[::2]]
    assert names == ["base", "small", "few"]
    assert listed_point(config, Point({"masks.target_scale": [0.3, 0.4]})) is None


def test_a_summary_shows_the_published_value_beside_the_measured_one():
    config = listed()
    summary = summarize(config, finished(config))
    head, *rows = summary.rows()
    column = head.index("published")
    assert head[column - 1] == "probe/linear/mean"
    found = {row[1]: (row[column - 1], row[column]) for row in rows if row[2] == "1"}
    assert found == {"base": ("36.0", "-"), "small": ("38.0", "40.0"), "few": ("40.0", "30.0")}
    assert "Published: a paper, table 1" in summary.text()
    assert ",published," in summary.csv().splitlines()[0]


def test_a_sweep_without_published_values_has_no_such_column():
    config = apply_overrides(default_config(), {"sweep.points": [{"name": "base"}]})
    assert "published" not in summarize(config, finished(config)).rows()[0]


def test_axes_of_listed_points_that_move_together_are_reported():
    points = [
        {"name": str(blocks), "set": {"masks.num_target_blocks": blocks, "masks.context_keep": 10 * blocks}}
        for blocks in (2, 3, 4, 5)
    ]
    config = apply_overrides(default_config(), {"sweep.points": points})
    notes = audit_sweep(config, plan_sweep(config)).notes
    assert any("axes masks.num_target_blocks and masks.context_keep move together" in note for note in notes)


def test_a_listed_method_is_not_given_the_settings_of_another():
    points = [
        {"name": "jepa", "set": {"objective.smooth_l1_beta": 2.0}},
        {"name": "mae", "set": {"objective.name": "mae"}},
    ]
    config = apply_overrides(default_config(), {"sweep.points": points})
    jepa, mae = plan_sweep(config).trials
    assert mae.point == Point({"objective.name": "mae"})
    assert (jepa.name, mae.name) == ("jepa, seed 0", "mae, seed 0")


PUBLISHED = {
    "multi-block (tables 6, 8, 9, 10)": (54.2, 0.26),
    "table 6: rasterized": (15.5, 0.25),
    "table 6: block 0.6": (20.2, 0.40),
    "table 6: random 0.6": (17.6, 0.40),
    "table 8: targets 0.075-0.2": (19.2, 0.36),
    "table 8: targets 0.1-0.2": (39.2, 0.33),
    "table 8: targets 0.125-0.2": (42.4, 0.30),
    "table 8: targets 0.2-0.25": (38.9, 0.18),
    "table 8: targets 0.2-0.3": (33.6, 0.15),
    "table 9: context 0.4-1": (31.2, 0.15),
    "table 9: context 0.65-1": (47.1, 0.21),
    "table 9: context 0.75-1": (49.3, 0.24),
    "table 10: 1 target": (9.0, 0.69),
    "table 10: 2 targets": (22.0, 0.52),
    "table 10: 3 targets": (48.5, 0.37),
}
"""The paper's accuracy, and the kept context that its sampler comes to at 128 images on each GPU."""


def test_the_ablations_are_the_papers_tables_and_keep_the_context_that_its_sampler_keeps():
    config = load_config(ABLATIONS)
    plan = plan_sweep(config)
    audit = audit_sweep(config, plan)
    assert plan.notes == ()
    assert {point.name: point.published for point in config.sweep.points} == {
        name: published for name, (published, _) in PUBLISHED.items()
    }
    kept = {each.name: each.audit.context_fraction.mean for each in audit.geometries}
    assert kept == pytest.approx({name: fraction for name, (_, fraction) in PUBLISHED.items()}, abs=0.012)
    assert {each.audit.batch_size for each in audit.geometries} == {128}
