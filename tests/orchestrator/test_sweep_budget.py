"""A hard budget: rules as values, and ten simulated sweeps that end under their cap."""

import math
from collections.abc import Mapping

import pytest

from orchestrator.config import apply_overrides, default_config
from orchestrator.config.models import BudgetConfig, RunConfig
from orchestrator.protocol.point import Point
from orchestrator.protocol.reports import Row, TrialReport
from orchestrator.storage import MemoryStore
from orchestrator.sweep.core.budget import (
    Standing,
    can_pay_images,
    can_pay_next_report,
    cap_seconds,
    images_to_decision,
    images_to_finish_one,
    standing,
    uncapped,
)
from orchestrator.sweep.core.record import Attempt, Slot, SweepRecord, TrialRecord
from orchestrator.sweep.foresight.simulate import SimulatedCluster, simulate
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.sweep.space.points import TrialPlan, plan_sweep


class Rising:
    """Curves that rise to a height of the trial's own; speed and probe time vary with trial and place."""

    def __init__(self, *, images_per_s: float = 50.0, jitter: float = 0.0) -> None:
        self.images_per_s, self.jitter = images_per_s, jitter

    def metrics(self, trial: TrialPlan, images: int) -> Mapping[str, float]:
        height = 50 + (trial.index * 7) % 13
        return {"probe/linear/mean": height * (1 - math.exp(-images / 20_000)), "train/loss": 0.3}

    def seconds(self, trial: TrialPlan, start_images: int, end_images: int) -> float:
        slower = 1 + self.jitter * math.sin(trial.index + end_images)
        return slower * (end_images - start_images) / self.images_per_s + 2.0


def _config(*, trials: int, images: int, hours: float, asha: bool, report: int = 2_000) -> RunConfig:
    rules = {"first_rung_images": images // 9, "reduction_factor": 3} if asha else None
    return apply_overrides(
        default_config(),
        {
            "train.images": images,
            "train.batch_size": 100,
            "train.report_every_images": report,
            "sweep.search": "random",
            "sweep.num_trials": trials,
            "sweep.space": {"optimizer.learning_rate": {"log_uniform": [1e-4, 1e-2]}},
            "sweep.asha": rules,
            "budget.gpu_hours": hours,
        },
    )


def _gpu_hours(record: SweepRecord) -> float:
    return sum(slot.device_seconds(has_gpus=True) for slot in record.slots.values()) / 3600


SHAPES = [
    {"trials": 12, "images": 90_000, "hours": 3.0, "asha": False, "slots": 1, "jitter": 0.0},
    {"trials": 12, "images": 90_000, "hours": 3.0, "asha": True, "slots": 1, "jitter": 0.0},
    {"trials": 40, "images": 90_000, "hours": 5.0, "asha": True, "slots": 4, "jitter": 0.2},
    {"trials": 40, "images": 90_000, "hours": 5.0, "asha": False, "slots": 4, "jitter": 0.2},
    {"trials": 8, "images": 900_000, "hours": 20.0, "asha": True, "slots": 8, "jitter": 0.1},
    {"trials": 64, "images": 45_000, "hours": 4.0, "asha": True, "slots": 16, "jitter": 0.3},
    {"trials": 5, "images": 450_000, "hours": 7.0, "asha": False, "slots": 2, "jitter": 0.3},
    {"trials": 30, "images": 90_000, "hours": 1.0, "asha": True, "slots": 2, "jitter": 0.0},
    {"trials": 100, "images": 27_000, "hours": 8.0, "asha": True, "slots": 3, "jitter": 0.2},
    {"trials": 3, "images": 90_000, "hours": 2.0, "asha": True, "slots": 3, "jitter": 0.0},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_simulated_sweep_passes_its_cap_by_one_per_cent(shape: Mapping[str, float]) -> None:
    config = _config(
        trials=int(shape["trials"]),
        images=int(shape["images"]),
        hours=shape["hours"],
        asha=bool(shape["asha"]),
    )
    record = simulate(
        config,
        plan_sweep(config).trials,
        Rising(jitter=shape["jitter"]),
        SimulatedCluster(num_slots=int(shape["slots"])),
    )
    assert _gpu_hours(record) <= 1.01 * shape["hours"]
    everything_ran = all(trial.done for trial in record.trials.values())
    assert everything_ran or _gpu_hours(record) >= 0.75 * shape["hours"]
    assert everything_ran or any("GPU hours are spent" in note for note in record.notes)


@pytest.mark.parametrize(("hours", "num_decided"), [(2.0, 1), (3.4, 2), (9.0, 2)])
def test_a_population_keeps_to_its_cap_and_goes_on_under_a_larger_one(hours: float, num_decided: int) -> None:
    def run(cap: float) -> SweepRecord:
        config = apply_overrides(
            _config(trials=8, images=90_000, hours=cap, asha=False), {"sweep.pbt": {"every_images": 30_000}}
        )
        cluster = SimulatedCluster(num_slots=3)
        return simulate(config, plan_sweep(config).trials, Rising(jitter=0.2), cluster, store=store)

    store = MemoryStore()
    record = run(hours)
    assert _gpu_hours(record) <= hours
    assert len(record.generations) == num_decided
    everything_ran = all(trial.state == "finished" for trial in record.trials.values())
    assert everything_ran == (hours == 9.0)
    decided = [event.takeovers for event in record.generations]
    record = run(9.0)
    assert {trial.state for trial in record.trials.values()} == {"finished"}
    assert [event.takeovers for event in record.generations][:num_decided] == decided


def test_a_sweep_without_a_cap_runs_to_its_end() -> None:
    config = apply_overrides(
        _config(trials=9, images=9_000, hours=1.0, asha=True), {"budget.gpu_hours": None}
    )
    record = simulate(config, plan_sweep(config).trials, Rising(), SimulatedCluster(num_slots=2))
    assert {trial.state for trial in record.trials.values()} == {"finished", "stopped"}


def test_simulating_twice_gives_the_same_decisions() -> None:
    config = _config(trials=20, images=90_000, hours=3.0, asha=True)
    first, second = (
        simulate(config, plan_sweep(config).trials, Rising(), SimulatedCluster(num_slots=3)) for _ in range(2)
    )
    assert {name: trial.state for name, trial in first.trials.items()} == {
        name: trial.state for name, trial in second.trials.items()
    }


def test_the_cap_is_of_the_device_that_is_held() -> None:
    budget = BudgetConfig(gpu_hours=2.0)
    assert cap_seconds(budget, has_gpus=True) == 7200
    assert cap_seconds(budget, has_gpus=False) is None
    assert cap_seconds(BudgetConfig(cpu_core_hours=1.0), has_gpus=False) == 3600


def test_a_cap_on_what_is_not_held_is_told() -> None:
    assert uncapped(BudgetConfig(), has_gpus=False) is None
    assert uncapped(BudgetConfig(gpu_hours=2.0), has_gpus=True) is None
    assert uncapped(BudgetConfig(gpu_hours=2.0, cpu_core_hours=1.0), has_gpus=False) is None
    told = uncapped(BudgetConfig(gpu_hours=2.0), has_gpus=False)
    assert (
        told
        == "budget.gpu_hours caps nothing in this sweep: no GPU is held, and budget.cpu_core_hours is not set"
    )


@pytest.mark.parametrize(("spent", "fits"), [(80.0, True), (90.0, False)])
def test_the_longest_gap_so_far_is_kept_in_reserve(spent: float, fits: bool) -> None:
    now = Standing(spent_s=spent, rate=2.0, gap_s=5.0, per_image_s=None)
    assert can_pay_next_report(100.0, now) is fits


def test_what_running_trials_still_need_is_not_given_away() -> None:
    trial = TrialRecord(trial_id="a", index=0, point=Point({}), seed=0, images=40, total_images=100)
    now = Standing(spent_s=0.0, rate=1.0, gap_s=1.0, per_image_s=1.0)
    assert can_pay_images(160.0, now, num_images=100, running=[(trial, ())])
    assert not can_pay_images(159.0, now, num_images=100, running=[(trial, ())])
    assert can_pay_images(159.0, now, num_images=100, running=[(trial, (50,))])


def test_the_reserve_is_what_brings_one_to_its_end_beyond_what_is_paid_for() -> None:
    running = TrialRecord(trial_id="a", index=0, point=Point({}), seed=0, images=40, total_images=100)
    waiting = TrialRecord(trial_id="b", index=1, point=Point({}), seed=0, total_images=100)
    record = SweepRecord(trials={"a": running, "b": waiting})
    assert images_to_finish_one(record, []) == 60
    assert images_to_finish_one(record, [(running, ())]) == 0
    assert images_to_finish_one(record, [(running, (50,)), (waiting, (30,))]) == 50
    running.state = "finished"
    assert images_to_finish_one(record, []) == 0


def test_what_a_start_takes_is_no_price_of_images() -> None:
    record = SweepRecord(slots={"s": Slot(slot_id="s", num_gpus=1.0, num_cpus=1.0)})
    for index, start_s in enumerate((50.0, 2.0, 4.0)):
        trial = TrialRecord(trial_id=str(index), index=index, point=Point({}), seed=0, images=100)
        trial.attempts["a"] = Attempt(
            attempt_id="a", num_gpus=1.0, num_cpus=1.0, started=0.0, last_seen=start_s + 10, start_s=start_s
        )
        record.trials[trial.trial_id] = trial
    now = standing(record, 0.0, has_gpus=True)
    assert (now.per_image_s, now.start_s) == (pytest.approx(0.1), 4.0)
    assert can_pay_images(14.0, now, num_images=100, running=[], num_starts=1)
    assert not can_pay_images(13.9, now, num_images=100, running=[], num_starts=1)


def test_a_start_is_told_from_a_first_report_that_brings_images() -> None:
    def attempt(images: int) -> Attempt:
        coordinator = Coordinator("memory", config, store=MemoryStore(), clock=lambda: now_s[0])
        coordinator.slot_opened("s", 1.0, 1.0)
        coordinator.submit("t", 0, Point({}), 0, "t")
        started = coordinator.next_trial("s").attempt_id
        now_s[0] += 7.0
        row = Row(images=images, timestamp_ms=0, metrics={})
        coordinator.report(TrialReport(trial_id="t", images=images, rows=(row,)), started)
        return coordinator.record().trials["t"].attempts[started]

    config, now_s = default_config(), [0.0]
    assert attempt(0).start_s == 7.0
    assert attempt(640).start_s == 0.0


def test_a_slot_for_which_nothing_fits_is_returned_while_the_others_go_on() -> None:
    config = _config(trials=4, images=90_000, hours=1.3, asha=False)
    plans = plan_sweep(config).trials
    record = simulate(config, plans, Rising(), SimulatedCluster(num_slots=2))
    ended = sorted(slot.periods[-1][1] for slot in record.slots.values())
    finished = [trial for trial in record.trials.values() if trial.state == "finished"]
    assert len(finished) == 2
    assert all(attempt.ended in ended for trial in finished for attempt in trial.attempts.values())


def test_a_trial_needs_what_brings_it_to_its_next_decision() -> None:
    assert images_to_decision(0, 900, (100, 300)) == 100
    assert images_to_decision(100, 900, (100, 300)) == 200
    assert images_to_decision(300, 900, (100, 300)) == 600


def test_evaluations_beside_training_are_charged_and_kept_in_reserve() -> None:
    slot = Slot(
        slot_id="s", num_gpus=1.0, num_cpus=4.0, periods=[[0.0, 100.0]], sizes=[(1.0, 4.0)], is_open=True
    )
    record = SweepRecord(slots={"s": slot})
    record.trials["a"] = TrialRecord(
        trial_id="a", index=0, point=Point({}), seed=0, history={64: {"evaluation/gpu_s": 30.0}}
    )
    now = standing(record, 200.0, has_gpus=True, async_per_slot=0.5)
    assert (now.spent_s, now.rate) == (230.0, 1.5)
