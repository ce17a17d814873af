"""A proposing search that is told of more: conditions, two values, earlier trials, and its own after a restart."""

import json
from pathlib import Path
from typing import Any

import pytest
from sweep_records import record_of, sweep_config, sweep_events, write_journal

from orchestrator.config import apply_overrides, default_config, grid_points, parse_config
from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError
from orchestrator.protocol.events import Entry, parse
from orchestrator.protocol.point import Point
from orchestrator.report.words.pareto import pareto_lines
from orchestrator.report.words.summary import summarize
from orchestrator.report.words.winner import recommend
from orchestrator.sweep.search.optuna import Proposals
from orchestrator.sweep.search.rounds import known_trials
from orchestrator.sweep.search.tune_trial import HOURS, METRIC
from orchestrator.sweep.search.warm_start import read_warm_start, take_over
from orchestrator.sweep.space.points import make_trial, plan_sweep, point_from_units
from orchestrator.sweep.space.units import units_of

SPACE = {
    "objective.name": {"choices": ["ijepa", "mae"]},
    "objective.mask_fraction": {"uniform": [0.5, 0.9], "when": {"objective.name": "mae"}},
    "masks.target_aspect_ratio": {
        "center_ratio": [0.5, 2.0],
        "spread": [1.0, 1.5],
        "when": {"objective.name": "ijepa"},
    },
    "train.batch_size": {"choices": [64, 128], "also": {"optimizer.learning_rate": {"times": 1e-5}}},
    "ema.final_momentum": {"uniform": [0.99, 1.0]},
}
WIDE = {
    "masks.target_scale": {"center_ratio": [0.05, 0.4], "spread": [1.1, 1.2]},
    "masks.target_aspect_ratio": {"center_ratio": [0.4, 1.8], "spread": 1.2},
}


def _config(space: dict[str, Any] = SPACE, **values: Any) -> RunConfig:
    named = {key.replace("__", "."): value for key, value in values.items()}
    base = {"sweep.search": "optuna", "sweep.num_trials": 20, "sweep.space": space}
    return apply_overrides(default_config(), {**base, **named})


@pytest.mark.filterwarnings("ignore::Warning")  # Optuna's Gaussian process is marked as experimental
@pytest.mark.parametrize("search", ["optuna", "gp"])
def test_an_axis_is_asked_for_only_where_it_exists(search: str) -> None:
    config = _config(sweep__search=search)
    searcher = Proposals(config)
    points = []
    for number in range(16):
        units = searcher.suggest(str(number))
        points.append(point_from_units(config, units))
        searcher.on_trial_complete(str(number), {METRIC: units["ema.final_momentum"]})
        assert make_trial(config, points[-1], 0, number).config.train.batch_size in (64, 128)
    assert {point["objective.name"] for point in points} == {"ijepa", "mae"}
    for point in points:
        is_mae = point["objective.name"] == "mae"
        assert ("objective.mask_fraction" in point, "masks.target_aspect_ratio" in point) == (
            is_mae,
            not is_mae,
        )
        assert point["optimizer.learning_rate"] == pytest.approx(point["train.batch_size"] * 1e-5)


def test_the_place_of_a_point_is_where_it_was_drawn() -> None:
    config = _config(sweep__search="random")
    for trial in plan_sweep(config).trials:
        units = units_of(config.sweep.space, trial.point)
        assert units is not None
        again = point_from_units(config, units)
        assert again.keys() == trial.point.keys()
        for key, value in trial.point.items():
            assert again[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4))


def test_a_point_outside_the_space_has_no_place() -> None:
    space = _config(WIDE).sweep.space
    inside = {"masks.target_scale": [0.1, 0.132], "masks.target_aspect_ratio": [0.75, 1.08]}
    assert units_of(space, Point(inside)) is not None
    assert units_of(space, Point(inside | {"masks.target_scale": [0.1, 0.2]})) is None
    assert units_of(space, Point(inside | {"masks.target_aspect_ratio": [0.75, 1.5]})) is None


def test_a_search_for_a_trade_off_comes_to_points_that_are_good_and_cheap() -> None:
    space = {
        "optimizer.weight_decay": {"uniform": [0.0, 1.0]},
        "optimizer.final_weight_decay": {"uniform": [0.0, 1.0]},
    }
    searcher = Proposals(_config(space, sweep__trade_off="gpu_hours"))
    wasted = []
    for number in range(60):
        gain, waste = searcher.suggest(str(number)).values()
        searcher.on_trial_complete(str(number), {METRIC: 50 + 20 * gain, HOURS: 1 + gain + 3 * waste})
        wasted.append(waste)
    assert sum(wasted[-20:]) < 0.6 * sum(wasted[:20])


def test_a_search_that_goes_on_asks_first_for_what_was_left_and_draws_nothing_twice() -> None:
    space = {"ema.final_momentum": {"uniform": [0.9, 1.0]}}
    config = _config(space)
    first = Proposals(config)
    asked = [point_from_units(config, first.suggest(str(number))) for number in range(4)]
    events: list[dict[str, Any]] = []
    for number, point in enumerate(asked):
        trial = make_trial(config, point, 0, number)
        planned = {
            "trial_id": trial.trial_id,
            "index": number,
            "point": trial.point.to_json(),
            "seed": 0,
            "name": "",
        }
        events.append({"kind": "trial_planned", "time_ms": 0, "total_images": 100, **planned})
        if number < 2:
            ended = {"trial_id": trial.trial_id, "state": "finished", "reason": ""}
            events.append({"kind": "trial_ended", "time_ms": 0, **ended})
    known = known_trials(config, record_of(events))
    again = Proposals(config, known)
    repeated = [Point(json.loads(again.suggest(str(number))["trial"])["point"]) for number in range(2)]
    assert repeated == asked[2:]
    fresh = [point_from_units(config, again.suggest(str(number))) for number in range(2, 6)]
    assert not [point for point in fresh if point in asked]
    again.on_trial_complete("0", {METRIC: 40.0})


def test_an_earlier_sweep_tells_its_finished_points_and_the_rest_is_said() -> None:
    record = record_of(sweep_events(stop_losers=True))
    finished = [trial for trial in record.trials.values() if trial.state == "finished"]
    new = apply_overrides(
        sweep_config(), {"sweep.space": WIDE, "sweep.search": "optuna", "sweep.num_trials": 5}
    )
    warm = take_over(new, record)
    assert f"{len(finished)} of {len(record.trials)} trials of {record.sweep_id}" in warm.notes[0]
    assert any("left out: stopped early" in note for note in warm.notes)
    assert len(warm.heard) == len({trial.point for trial in finished})
    told = json.loads(json.dumps(Entry(sequence=0, time_ms=0, event=warm).to_json()))
    assert parse(told, where="an event").event == warm
    best = max(warm.heard, key=lambda each: each.value)
    point = point_from_units(new, best.units)
    assert point["masks.target_scale"] == pytest.approx((0.17 / 1.15, 0.17 * 1.15), rel=0.05)


def test_an_earlier_sweep_that_measured_something_else_is_left_out_with_the_setting_that_differs() -> None:
    record = record_of(sweep_events())
    values = {"sweep.space": WIDE, "sweep.search": "optuna", "sweep.num_trials": 5, "encoder.depth": 6}
    warm = take_over(apply_overrides(sweep_config(), values), record)
    assert warm.heard == ()
    assert any("encoder.depth was 4, now 6" in note for note in warm.notes)
    narrow = values | {"encoder.depth": 4, "sweep.space": {"masks.target_scale": {"choices": [[0.5, 0.6]]}}}
    outside = take_over(apply_overrides(sweep_config(), narrow), record)
    assert any("its point lies outside the space" in note for note in outside.notes)


def test_trials_that_differ_in_what_their_sweep_searched_have_one_reason() -> None:
    record = record_of(sweep_events())
    scale = {"masks.target_scale": WIDE["masks.target_scale"]}
    values = {"sweep.space": scale, "masks.target_aspect_ratio": [0.7, 1.7]}
    warm = take_over(
        apply_overrides(sweep_config(), values | {"sweep.search": "optuna", "sweep.num_trials": 5}), record
    )
    (note,) = (note for note in warm.notes if "masks.target_aspect_ratio" in note)
    assert "left out: masks.target_aspect_ratio was not [0.7, 1.7]" in note


def test_a_warm_start_from_a_sweep_that_is_not_there_is_refused_with_its_place(tmp_path: Path) -> None:
    config = _config(WIDE, storage__uri=str(tmp_path), sweep__warm_start="masks-1")
    with pytest.raises(ConfigError, match=r"sweep\.warm_start: is not a sweep .*masks-1"):
        read_warm_start(config)
    sweep_id = write_journal(tmp_path, sweep_events())
    found = read_warm_start(apply_overrides(config, {"sweep.warm_start": sweep_id}))
    assert found is not None
    assert found.source == sweep_id


def test_the_pareto_set_of_a_sweep_is_in_its_summary_and_its_recommendation() -> None:
    record = record_of(sweep_events())
    values = {"sweep.trade_off": "gpu_hours", "sweep.search": "optuna", "sweep.num_trials": 5}
    summary = summarize(apply_overrides(sweep_config(), values | {"sweep.space": WIDE}), record)
    front = summary.front()
    assert [each.mean for each in front] == sorted(each.mean for each in front)
    lines = pareto_lines(front, summary.metric)
    assert len(lines) == len(front) + 1
    assert all(line in summary.text() for line in lines)
    chosen = recommend(summary)
    assert all(line in chosen.text() for line in lines)
    assert [each["name"] for each in chosen.to_json()["pareto_set"]] == [each.name for each in front]
    assert "Pareto set" not in summarize(sweep_config(), record).text()


def test_a_plan_names_the_axes_that_wait_and_those_that_follow() -> None:
    config = _config(sweep__search="random", sweep__num_trials=2)
    (note,) = plan_sweep(config).notes
    assert "objective.mask_fraction (when objective.name is mae)" in note
    assert "train.batch_size (also sets optimizer.learning_rate (times 1e-05))" in note
    assert len(grid_points(parse_config("sweep: {space: {encoder.depth: {choices: [1, 2]}}}").sweep)) == 2
