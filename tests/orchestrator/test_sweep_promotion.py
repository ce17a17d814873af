"""Successive halving in which trials wait at a rung: who goes on, whatever the order of trials, slots and kills."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from mortal_cluster import METRIC, Cluster, Mortal, check_kills

from orchestrator.config import apply_overrides, default_config
from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError
from orchestrator.protocol.jobs import Outcome, TrialJob
from orchestrator.protocol.metrics import MISSING
from orchestrator.protocol.point import Point
from orchestrator.storage import open_store
from orchestrator.sweep.core.promotion import verdicts
from orchestrator.sweep.core.record import SweepRecord, TrialRecord
from orchestrator.sweep.core.rungs import promotes
from orchestrator.sweep.foresight.simulate import SimulatedCluster, simulate
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.sweep.space.points import TrialPlan, plan_sweep
from orchestrator.sweep.watch.status import SweepStatus

RATE = "optimizer.learning_rate"
RATES = tuple(round(1e-3 * number, 6) for number in range(1, 10))


def _config(**overrides: Any) -> RunConfig:
    """Nine geometries of 900 images; rungs at 100 and 300 images, from which three and one go on."""
    values = {
        "train.images": 900,
        "train.batch_size": 10,
        "train.report_every_images": 100,
        "train.checkpoint_every_images": 100,
        "sweep.space": {RATE: {"choices": list(RATES)}},
        "sweep.asha": {"first_rung_images": 100, "reduction_factor": 3},
    }
    return apply_overrides(
        default_config(), {**values, **{key.replace("__", "."): value for key, value in overrides.items()}}
    )


Values = Callable[[float, int, int], float]
"""A trial's value by rate, seed and images."""


def _cluster(values: Values, config: RunConfig | None = None, **more: Any) -> Cluster:
    def report(job: TrialJob, images: int, weight: float) -> dict[str, float]:
        return {METRIC: values(job.config.optimizer.learning_rate, job.config.train.seed, images)}

    return Cluster(config or _config(), **{"report": report, "num_slots": 1, **more})


def _rising(rate: float, seed: int, images: int) -> float:
    return 1000 * rate + images / 1000


def _images(record: SweepRecord) -> dict[float, int]:
    return {trial.point[RATE]: trial.images for trial in record.in_order()}


def _told(record: SweepRecord) -> Any:
    return [(trial.trial_id, trial.state, trial.reason, trial.decisions) for trial in record.in_order()]


def test_on_one_slot_every_trial_comes_to_a_rung_before_the_best_go_on() -> None:
    cluster = _cluster(_rising)
    record = cluster.drive()
    assert _images(record) == {
        **dict.fromkeys(RATES[:6], 100),
        **dict.fromkeys(RATES[6:8], 300),
        RATES[8]: 900,
    }
    assert [trial.state for trial in record.in_order()] == ["stopped"] * 8 + ["finished"]
    events = Coordinator("memory", cluster.config, store=cluster.store).events()
    kinds = [each.event.kind for each in events]
    kinds = [kind for kind in kinds if kind in ("attempt_started", "rung_decided")]
    assert kinds[:10] == ["attempt_started"] * 9 + ["rung_decided"]
    assert record.trials[next(iter(record.trials))].reason == ("1.10 at 100 images, is below the best 3 of 9")


@given(st.permutations(range(9)), st.integers(1, 12))
@examples(30)
def test_the_best_at_every_rung_wins_whatever_the_order_of_trials_and_the_number_of_slots(
    places: list[int], num_slots: int
) -> None:
    units_of = dict(zip(RATES, places, strict=True))
    record = _cluster(lambda rate, seed, images: units_of[rate] + images / 1000, num_slots=num_slots).drive()
    images = {units_of[rate]: seen for rate, seen in _images(record).items()}
    assert images[8] == 900
    assert min(images[7], images[6]) >= 300
    assert record.trials.keys() == {trial.trial_id for trial in record.trials.values() if trial.done}
    if num_slots == 1:
        assert sorted(images.values()) == [100] * 6 + [300] * 2 + [900]


def test_a_trial_that_is_next_anyway_keeps_its_slot() -> None:
    record = _cluster(_rising).drive()
    attempts = {trial.point[RATE]: len(trial.attempts) for trial in record.in_order()}
    # The last to come to the first rung is the best and stays; the others come back once. The best waits at 300 images.
    assert attempts == {**dict.fromkeys(RATES[:6], 1), **dict.fromkeys(RATES[6:8], 2), RATES[8]: 2}


def test_geometries_are_ranked_by_their_mean_and_all_their_seeds_go_on_or_none() -> None:
    def values(rate: float, seed: int, images: int) -> float:
        lucky = 50.0 if (rate, seed) == (RATES[0], 0) else 0.0
        return 1000 * rate + (0 if seed else lucky) - (45.0 if rate == RATES[0] and seed else 0.0)

    record = _cluster(values, _config(sweep__seeds=2)).drive()
    seen = {(trial.point[RATE], trial.seed): trial.images for trial in record.in_order()}
    assert max(trial.rungs[100] for trial in record.in_order()) == 51.0
    assert [seen[RATES[0], seed] for seed in (0, 1)] == [100, 100]
    assert [seen[rate, seed] for rate in RATES[6:] for seed in (0, 1)] == [300, 300, 300, 300, 900, 900]
    reasons = {trial.reason for trial in record.in_order() if trial.state == "stopped"}
    assert {reason.partition(",")[0] for reason in reasons} == {"the mean over its seeds"}


def test_one_unlucky_seed_puts_no_geometry_out_whose_mean_is_the_best() -> None:
    def values(rate: float, seed: int, images: int) -> float:
        return 1000 * rate + ((20.0, -15.0)[seed] if rate == RATES[8] else 0.0)

    record = _cluster(values, _config(sweep__seeds=2)).drive()
    seen = {(trial.point[RATE], trial.seed): trial.images for trial in record.in_order()}
    assert min(trial.rungs[100] for trial in record.in_order()) == -6.0
    assert [seen[RATES[8], seed] for seed in (0, 1)] == [900, 900]


def test_a_driver_that_dies_at_any_event_changes_no_decision() -> None:
    def moments(num_events: int) -> range:
        assert num_events > 60
        return range(3, num_events)

    check_kills(lambda: _cluster(_rising), _told, moments)


def test_a_trial_that_waits_is_not_run_when_the_sweep_goes_on_before_its_rung_is_decided() -> None:
    cluster = _cluster(_rising).killed_at(35)
    coordinator = Coordinator("memory", cluster.config, store=cluster.store)
    waiting = [trial.trial_id for trial in coordinator.record().in_order() if trial.shown_state == "waiting"]
    assert len(waiting) >= 2
    record = cluster.drive()
    dropped = [record.trials[name] for name in waiting if record.trials[name].images == 100]
    assert dropped
    assert [len(trial.attempts) for trial in dropped] == [1] * len(dropped)


def test_what_fails_or_has_no_value_holds_nobody_up() -> None:
    def fail(job: TrialJob, images: int) -> Outcome | None:
        return (
            Outcome(error="broken", permanent=True)
            if job.config.optimizer.learning_rate == RATES[8]
            else None
        )

    def values(rate: float, seed: int, images: int) -> float:
        return math.nan if rate == RATES[7] else _rising(rate, seed, images)

    record = _cluster(values, outcome=fail).drive()
    states = {trial.point[RATE]: (trial.state, trial.images) for trial in record.in_order()}
    assert states[RATES[8]] == ("failed", 0)
    assert states[RATES[7]] == ("stopped", 100)
    assert "NaN" in record.in_order()[7].reason
    assert states[RATES[6]] == ("finished", 900)
    assert states[RATES[5]] == ("stopped", 300)


def test_one_whose_evaluation_is_missing_goes_on_and_the_others_are_decided() -> None:
    def report(job: TrialJob, images: int, weight: float) -> dict[str, float]:
        rate = job.config.optimizer.learning_rate
        return {MISSING: 1.0} if (rate, images) == (RATES[0], 100) else {METRIC: _rising(rate, 0, images)}

    record = Cluster(_config(), num_slots=1, report=report).drive()
    assert 100 not in record.in_order()[0].rungs
    assert _images(record)[RATES[0]] == 300
    assert _images(record)[RATES[8]] == 900


def test_a_stop_that_is_undone_runs_to_the_end() -> None:
    cluster = _cluster(_rising)
    worst = cluster.drive().in_order()[0].trial_id
    Coordinator("memory", cluster.config, store=cluster.store).revive(worst)
    record = cluster.drive()
    assert (record.trials[worst].state, record.trials[worst].images) == ("finished", 900)


def test_one_that_was_cancelled_while_it_waited_runs_to_the_end_when_it_is_revived() -> None:
    cluster = _cluster(_rising).killed_at(35)
    coordinator = Coordinator("memory", cluster.config, store=cluster.store)
    worst = coordinator.record().in_order()[0]
    assert worst.shown_state == "waiting"
    coordinator.cancel_rest()
    coordinator.revive(worst.trial_id)
    revived = cluster.drive().trials[worst.trial_id]
    assert (revived.state, revived.images) == ("finished", 900)


def test_one_that_is_stopped_as_unhealthy_at_a_rung_takes_no_place_there() -> None:
    def report(job: TrialJob, images: int, weight: float) -> dict[str, float]:
        rate = job.config.optimizer.learning_rate
        return {METRIC: _rising(rate, 0, images), "train/loss": math.nan if rate == RATES[8] else 0.1}

    few = _config(sweep__space={RATE: {"choices": list(RATES[6:])}})
    record = Cluster(few, num_slots=1, report=report).drive()
    sick = record.in_order()[2]
    assert (sick.state, sick.images) == ("stopped", 100)
    assert _images(record)[RATES[7]] == 900


def test_points_that_are_added_later_are_ranked_with_those_that_came_before() -> None:
    few = _config(sweep__space={RATE: {"choices": list(RATES[:6])}})
    cluster = _cluster(_rising, few)
    assert _images(cluster.drive())[RATES[5]] == 900
    cluster.config = _config()
    images = _images(cluster.drive())
    assert [images[rate] for rate in RATES[6:]] == [300, 300, 900]
    assert images[RATES[3]] == 100


def test_brackets_are_decided_apart() -> None:
    asha = {"first_rung_images": 100, "reduction_factor": 3, "brackets": 2}
    record = _cluster(_rising, _config(sweep__asha=asha)).drive()
    images = _images(record)
    assert [images[rate] for rate in RATES[::2]] == [100, 100, 100, 100, 900]  # one of five, then alone
    assert [images[rate] for rate in RATES[1::2]] == [300, 300, 300, 900]


class Steady:
    """Curves at an image a second."""

    def metrics(self, trial: TrialPlan, images: int) -> Mapping[str, float]:
        return {METRIC: _rising(trial.point[RATE], 0, images)}

    def seconds(self, trial: TrialPlan, start_images: int, end_images: int) -> float:
        return float(end_images - start_images)


@pytest.mark.parametrize("seconds", [1225, 1350, 1525, 1825])
def test_when_the_budget_lets_no_other_trial_begin_the_best_so_far_goes_on_to_its_end(seconds: int) -> None:
    store = Mortal()

    def run(hours: float) -> SweepRecord:
        config = _config(budget__gpu_hours=hours, train__report_every_images=20)
        cluster = SimulatedCluster(num_slots=1, start_s=0.0)
        return simulate(config, plan_sweep(config).trials, Steady(), cluster, store=store)

    record = run(seconds / 3600)  # nine first rungs take 900 of these seconds, the winner 800 more
    states = [trial.state for trial in record.in_order()]
    assert states.count("finished") == 1
    assert "pending" in states
    finished = states.index("finished")
    begun = [place for place, trial in enumerate(record.in_order()) if trial.images]
    assert finished == max(begun)  # the best of those that began
    assert sum(trial.images for trial in record.trials.values()) <= seconds
    again = run(2.0)
    assert again.in_order()[8].state == "finished"
    assert all(trial.done for trial in again.trials.values())


def test_a_reader_sees_that_a_trial_waits(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s"))
    cluster = _cluster(_rising, store=store)
    seen: list[list[str]] = []

    def look(job: TrialJob, images: int) -> Outcome | None:
        status = SweepStatus(store)
        status.refresh()
        seen.append([trial.shown_state for trial in status.record.in_order()])
        return None

    cluster.outcome = look
    cluster.drive()
    assert seen[2] == ["waiting", "waiting", "running"] + ["pending"] * 6


def test_a_search_that_proposes_stops_trials_and_cannot_have_them_wait() -> None:
    search = {
        "sweep.search": "optuna",
        "sweep.num_trials": 4,
        "sweep.space": {RATE: {"uniform": [0.001, 0.01]}},
    }
    config = apply_overrides(_config(), search)
    assert promotes(_config().sweep)
    assert not promotes(config.sweep)
    assert not promotes(_config(sweep__asha__variant="stopping").sweep)
    with pytest.raises(
        ConfigError, match=r"sweep.asha.variant.*cannot be promotion when sweep.search is optuna"
    ):
        apply_overrides(config, {"sweep.asha.variant": "promotion"})


def test_verdicts_of_a_rung_that_is_not_settled_name_only_who_is_sure_of_a_place() -> None:
    def trial(index: int, value: float | None) -> TrialRecord:
        rungs = {} if value is None else {100: value}
        decisions = {} if value is None else {100: ("wait", "")}
        point = Point({RATE: RATES[index]})
        return TrialRecord(
            trial_id=str(index), index=index, point=point, seed=0, rungs=rungs, decisions=decisions
        )

    def who(*values: float | None) -> tuple[list[str], list[str]]:
        record = SweepRecord(trials={str(place): trial(place, value) for place, value in enumerate(values)})
        found = verdicts(_config(), record)
        return tuple([each.trial_id for each in found if each.promoted is kind] for kind in (True, False))  # type: ignore[return-value]

    assert who(1.0, 2.0, None) == ([], [])
    assert who(1.0, 2.0, 3.0, None) == (["2"], [])
    assert who(1.0, 2.0) == (["1"], ["0"])
    assert who(5.0, 2.0, 3.0, 4.0, 6.0, 1.0) == (["4", "0"], ["3", "2", "1", "5"])
    assert json.loads(json.dumps(who(1.0, None))) == [[], []]
