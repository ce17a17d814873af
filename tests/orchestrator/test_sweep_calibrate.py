"""A quote from short runs: what a trial's plan comes to at measured prices, and what a real calibration tells."""

from pathlib import Path

import pytest
from tiny_sweeps import tiny_config

from orchestrator.config import apply_overrides, default_config
from orchestrator.protocol.reports import Row, TrialReport
from orchestrator.sweep.foresight.plan import describe_plan
from orchestrator.sweep.foresight.quote import (
    Measured,
    Quote,
    Stopwatch,
    choose_trials,
    read_watch,
    trial_seconds,
    uncertainty,
)
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.train.loop.plan import plan_run

CHEAP = Measured(image_s=0.01, report_s=1.0, probe_s=5.0, checkpoint_s=2.0, start_s=7.0, spread=0.1)
DEAR = Measured(image_s=0.03, report_s=1.0, probe_s=5.0, checkpoint_s=2.0, start_s=7.0, spread=0.1)


def _trials(*choices: int):
    config = apply_overrides(
        default_config(),
        {
            "train.images": 1000,
            "train.batch_size": 100,
            "train.report_every_images": 200,
            "train.checkpoint_every_images": 500,
            "probe.every_images": 500,
            "sweep.space": {"masks.num_target_blocks": {"choices": list(choices)}},
        },
    )
    return plan_sweep(config).trials


def test_a_trial_costs_its_start_images_reports_probes_and_checkpoints() -> None:
    (trial,) = _trials(4)
    plan = plan_run(
        trial.config
    )  # stops at 200, 400, 500, 600, 800 and 1000, of which 500 and 1000 probe and save
    assert CHEAP.trial_s(plan, image_s=0.01) == pytest.approx(7 + 1000 * 0.01 + 4 * 1 + 2 * 5 + 2 * 2)


def test_a_trial_between_two_measured_ones_costs_what_its_operations_say() -> None:
    low, middle, high = _trials(1, 2, 3)
    flops = {low.trial_id: 1e9, middle.trial_id: 2e9, high.trial_id: 3e9}
    known = [(low, CHEAP), (high, DEAR)]
    seconds = [trial_seconds(trial, known, flops) for trial in (low, middle, high)]
    assert seconds == pytest.approx([35.0, 45.0, 55.0])


def test_the_cheapest_and_the_dearest_trial_are_measured_and_one_where_all_cost_the_same() -> None:
    low, middle, high = trials = _trials(1, 2, 3)
    flops = {low.trial_id: 1e9, middle.trial_id: 2e9, high.trial_id: 3e9}
    assert choose_trials(trials, flops) == [low, high]
    assert len(choose_trials(trials, dict.fromkeys(flops, 1e9))) == 1


def test_the_figures_are_read_off_the_reports_and_their_times() -> None:
    watch = Stopwatch(clock=lambda: 0.0)
    probes = {5: {"time/probe_s": 4.0}, 6: {"time/checkpoint_s": 0.5}}
    times = [3.0, 20.0, 22.0, 24.0, 26.0, 32.0, 34.5]
    for number, at_s in enumerate(times):
        metrics = {"train/images_per_s": 50.0, **probes.get(number, {})} if number else {}
        row = Row(images=100 * number, timestamp_ms=0, metrics=metrics)
        watch.reports.append((at_s, TrialReport(trial_id="t", images=100 * number, rows=(row,))))
    found = read_watch(watch, images_a_report=80)
    assert (found.image_s, found.start_s, found.spread) == (pytest.approx(0.02), 3.0, pytest.approx(0.0))
    assert (found.report_s, found.probe_s, found.checkpoint_s) == (pytest.approx(0.4), 4.0, 0.5)


def test_a_quote_is_never_surer_than_the_measurements_and_never_quite_sure() -> None:
    assert uncertainty([1.0, 1.0], [0.0]) == 0.05
    assert uncertainty([1.0, 1.0], [0.1, 0.2]) == pytest.approx(0.329)
    assert uncertainty([1.0, 1.5], [0.1]) > 0.4


def test_a_quote_tells_its_range_its_price_and_what_halving_may_leave() -> None:
    quote = Quote(
        device="GPU",
        hours_of_trial={"a": 2.0, "b": 4.0},
        num_trials=10,
        baselines_hours=0.5,
        uncertainty=0.1,
        least_share=0.5,
        price=2.0,
        currency="EUR",
    )
    assert quote.hours == pytest.approx(30.5)
    assert quote.text().startswith("30.5 GPU hours (27.4 to 33.6), 61.00 EUR; 15.2 when halved as planned")
    assert quote.to_json()["money"] == pytest.approx(61.0)


@pytest.mark.parametrize(
    ("cap", "said"),
    [
        (None, "none on GPU hours"),
        (12.0, "keeps to it"),
        (10.5, "may end the sweep"),
        (4.0, "will end before"),
    ],
)
def test_a_quote_says_what_a_cap_means_for_the_sweep(cap: float | None, said: str) -> None:
    quote = Quote(
        device="GPU",
        hours_of_trial={"a": 1.0},
        num_trials=10,
        baselines_hours=0.0,
        uncertainty=0.1,
        least_share=0.5,
    )
    assert said in quote.against(cap)


def test_a_calibrated_plan_quotes_every_trial_and_leaves_nothing_behind(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, sweep__space={"masks.num_target_blocks": {"choices": [1, 4]}})
    said: list[str] = []
    plan = describe_plan(config, said.append)
    assert plan.quote is not None
    assert set(plan.quote.hours_of_trial) == {trial.trial_id for trial in plan.plan.trials}
    assert all(hours > 0 for hours in plan.quote.hours_of_trial.values())
    assert "quote        " in plan.text()
    assert "CPU core hours" in plan.text()
    assert any("calibrating with" in text for text in said)
    assert not list((tmp_path / "runs").glob("*"))
    assert not list((tmp_path / "runs").glob(".calibration*"))


def test_a_search_that_proposes_is_quoted_by_points_of_its_space(tmp_path: Path) -> None:
    space = {"encoder.depth": {"choices": [1, 2]}}
    config = tiny_config(
        tmp_path, sweep__search="optuna", sweep__num_trials=5, sweep__seeds=2, sweep__space=space
    )
    said: list[str] = []
    quote = describe_plan(config, said.append).quote
    assert quote is not None
    assert {depth for depth in (1, 2) if any(f"depth {depth}," in text for text in said)} == {1, 2}
    assert quote.hours > 9 * sum(quote.hours_of_trial.values()) / len(quote.hours_of_trial)
