"""Population based training: who goes on from whom, under what, and that kills change none of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run_command
from mortal_cluster import METRIC, Cluster, Killed, check_kills
from tiny_sweeps import InProcess, Remembering, tiny_config

from orchestrator.config import apply_overrides, default_config, dump
from orchestrator.config.models import AXIS_KINDS, Axis, RunConfig, SweepConfig
from orchestrator.data import prepare_data
from orchestrator.errors import CheckpointError, ConfigError
from orchestrator.protocol.events import SweepStarted
from orchestrator.protocol.jobs import Outcome, TrialJob
from orchestrator.protocol.metrics import MISSING
from orchestrator.protocol.point import Point
from orchestrator.protocol.reports import Decision, TrialReport
from orchestrator.report import load_sweep, summarize
from orchestrator.report.statistics.compute import FlopsCounter
from orchestrator.report.statistics.trials import trial_summaries
from orchestrator.storage import open_store
from orchestrator.sweep.core.generations import changed, decide_generation, explore
from orchestrator.sweep.core.lineage import schedule_of, schedule_text
from orchestrator.sweep.core.record import SweepRecord, Takeover, TrialRecord
from orchestrator.sweep.core.rungs import generation_ends, trial_rungs
from orchestrator.sweep.foresight.plan import _compared
from orchestrator.sweep.foresight.quote import Measured, trial_seconds
from orchestrator.sweep.foresight.replay import replay_sweep
from orchestrator.sweep.journal.resume import check_same_sweep
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.sweep.space.points import make_trial, plan_sweep
from orchestrator.sweep.watch.follower import Follower
from orchestrator.sweep.watch.status import SweepStatus
from orchestrator.tracking import MemoryTracker
from orchestrator.tracking.base import parameter_text
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.checkpoint import load_checkpoint
from orchestrator.train.loop.run import Run

RATE = "optimizer.learning_rate"


def _config(**overrides: Any) -> RunConfig:
    """Eight members of 1,000 images, ranked at 200, 400, 600 and 800."""
    values = {
        "train.images": 1000,
        "train.batch_size": 20,
        "train.report_every_images": 100,
        "sweep.search": "random",
        "sweep.num_trials": 8,
        "sweep.space": {RATE: {"log_uniform": [1e-4, 1.0]}},
        "sweep.pbt": {"every_images": 200},
        **{key.replace("__", "."): value for key, value in overrides.items()},
    }
    return apply_overrides(default_config(), values)


def _living(*values: float) -> list[TrialRecord]:
    return [
        TrialRecord(
            trial_id=f"m{index}",
            index=index,
            point=Point({RATE: 0.001 * (1 + index)}),
            seed=0,
            rungs={200: value},
        )
        for index, value in enumerate(values)
    ]


def _taken(config: RunConfig, *values: float) -> list[tuple[str, str]]:
    decision = decide_generation(config, _living(*values), number=1, images=200)
    return [(each.trial_id, each.parent) for each in decision.takeovers]


# Decisions


def test_generations_end_below_the_full_length() -> None:
    config = _config()
    assert generation_ends(config.sweep.pbt, 1000) == (200, 400, 600, 800)
    assert trial_rungs(config, index=3, seed=0) == (200, 400, 600, 800)
    assert generation_ends(None, 1000) == ()


def test_the_lowest_quarter_goes_on_from_members_of_the_highest() -> None:
    taken = _taken(_config(), 1.0, 8.0, 3.0, 4.0, 5.0, 6.0, 7.0, 2.0)
    assert [member for member, _ in taken] == ["m7", "m0"]
    assert {parent for _, parent in taken} <= {"m1", "m6"}


def test_a_decision_is_the_same_again_and_another_in_another_generation_or_under_another_seed() -> None:
    def decided(number: int, seed: int) -> Any:
        config, living = _config(sweep__search_seed=seed), _living(*range(8))
        return decide_generation(config, living, number=number, images=200).takeovers

    assert decided(1, 0) == decided(1, 0)
    assert decided(1, 0) != decided(2, 0)
    assert decided(1, 0) != decided(1, 1)


def test_of_equals_the_first_ranks_higher_and_nobody_takes_over_from_one_that_is_no_better() -> None:
    assert _taken(_config(), 5.0, 5.0, 5.0, 5.0) == []
    assert _taken(_config(), 5.0, 6.0, 6.0, 5.0) == [("m3", "m1")]


def test_a_member_without_a_value_neither_takes_over_nor_is_taken_from() -> None:
    decision = decide_generation(_config(), _living(math.nan, 1.0, 2.0, 3.0), number=1, images=200)
    assert [trial_id for trial_id, _ in decision.ranking] == ["m3", "m2", "m1"]
    assert [(each.trial_id, each.parent) for each in decision.takeovers] == [("m1", "m3")]


@pytest.mark.parametrize("values", [(1.0,), (math.nan, 1.0), (math.nan, math.nan)])
def test_there_is_nobody_to_take_over_from(values: tuple[float, ...]) -> None:
    assert _taken(_config(), *values) == []


AXES: list[tuple[dict[str, Any], Any, float, float, Any]] = [
    ({"uniform": [0.0, 1.0]}, 0.5, 1.2, 0.0, 0.6),
    ({"uniform": [0.0, 1.0]}, 0.9, 1.2, 0.0, 1.0),
    ({"log_uniform": [1e-4, 1e-2]}, 1e-4, 0.8, 0.0, 1e-4),
    ({"int_uniform": [1, 6]}, 2, 1.2, 0.0, 3),
    ({"int_uniform": [1, 6]}, 2, 0.8, 0.0, 1),
    ({"int_uniform": [1, 6]}, 6, 1.2, 0.0, 6),
    ({"choices": [1, 2, 4]}, 2, 1.2, 0.2, 1),
    ({"choices": [1, 2, 4]}, 2, 1.2, 0.8, 4),
    ({"choices": [1, 2, 4]}, 4, 1.2, 0.8, 2),
    ({"choices": [[0.1, 0.2], [0.2, 0.3]]}, [0.1, 0.2], 1.2, 0.2, (0.2, 0.3)),
    ({"choices": [1]}, 1, 1.2, 0.8, 1),
    ({"center": [0.1, 0.3], "width": 0.1}, [0.15, 0.25], 1.2, 0.0, (0.19, 0.29)),
    ({"center": [0.1, 0.3], "width": [0.0, 0.2]}, [0.2, 0.3], 1.5, 0.0, (0.25, 0.35)),
    ({"center_ratio": [0.5, 2.0], "spread": 2.0}, [0.5, 2.0], 1.2, 0.0, (0.6, 2.4)),
]


@pytest.mark.parametrize(("axis", "value", "factor", "fraction", "expected"), AXES)
def test_a_setting_changes_within_its_axis(
    axis: dict[str, Any], value: Any, factor: float, fraction: float, expected: Any
) -> None:
    space: dict[str, Axis] = SweepConfig.model_validate({"space": {"masks.target_scale": axis}}).space
    assert changed(space["masks.target_scale"], value, factor, fraction) == pytest.approx(expected)
    assert {kind for case in AXES for kind in case[0]} >= set(AXIS_KINDS)


def test_exploring_stays_near_the_donor_or_draws_anew() -> None:
    near = _config(sweep__pbt={"every_images": 200, "resample_probability": 0.0})
    found = {explore(near, Point({RATE: 0.01}), np.random.default_rng(seed))[RATE] for seed in range(20)}
    assert found == {0.008, 0.012}
    anew = _config(sweep__pbt={"every_images": 200, "resample_probability": 1.0})
    drawn = [explore(anew, Point({RATE: 0.01}), np.random.default_rng(seed))[RATE] for seed in range(200)]
    assert min(drawn) < 1e-3 < 1e-1 < max(drawn)
    assert 1e-4 <= min(drawn) <= max(drawn) <= 1.0


def test_settings_that_are_not_valid_together_leave_the_donors() -> None:
    config = _config(
        sweep__space={"masks.num_target_blocks": {"choices": [1, 100]}},
        sweep__search="grid",
        sweep__num_trials=None,
    )
    donor = Point({"masks.num_target_blocks": 1})
    broken = config.model_copy(
        update={
            "sweep": config.sweep.model_copy(
                update={
                    "space": SweepConfig.model_validate(
                        {"space": {"masks.num_target_blocks": {"choices": [1, 999]}}}
                    ).space
                }
            )
        }
    )
    assert explore(broken, donor, np.random.default_rng(1)) == donor


# Through the coordinator


def _told(record: SweepRecord) -> Any:
    """What must not depend on kills or on the number of slots."""
    trials = [(trial.trial_id, trial.state, trial.settings, trial.history) for trial in record.in_order()]
    return record.generations, trials


def test_members_go_on_from_better_ones_until_all_have_come_to_the_end() -> None:
    record = Cluster(_config()).drive()
    assert [event.images for event in record.generations] == [200, 400, 600, 800]
    assert sum(len(event.takeovers) for event in record.generations) == 8
    assert {trial.state for trial in record.trials.values()} == {"finished"}
    assert {tuple(sorted(trial.history)) for trial in record.trials.values()} == {
        tuple(range(100, 1001, 100))
    }
    alone = Cluster(_config(sweep__pbt=None)).drive()
    best, best_alone = (
        max(trial.metrics[METRIC] for trial in each.trials.values()) for each in (record, alone)
    )
    mean, mean_alone = (
        sum(trial.metrics[METRIC] for trial in each.trials.values()) / 8 for each in (record, alone)
    )
    assert best >= best_alone
    assert mean > 1.1 * mean_alone


@pytest.mark.parametrize("num_slots", [1, 3, 8, 11])
def test_decisions_do_not_depend_on_how_many_run_at_once(num_slots: int) -> None:
    assert _told(Cluster(_config(), num_slots=num_slots).drive()) == _told(Cluster(_config()).drive())


def test_a_driver_that_dies_at_any_event_changes_no_decision_and_doubles_no_point() -> None:
    def moments(num_events: int) -> range:
        assert num_events > 100
        return range(12, num_events, 3)

    check_kills(lambda: Cluster(_config(sweep__num_trials=4)), _told, moments)


def test_a_member_that_fails_for_good_is_left_out_and_the_others_go_on() -> None:
    def fail(job: TrialJob, images: int) -> Outcome | None:
        return Outcome(error="broken", permanent=True) if job.trial_id == lost and images == 300 else None

    lost = plan_sweep(_config()).trials[2].trial_id
    record = Cluster(_config(), outcome=fail).drive()
    assert record.trials[lost].state == "failed"
    assert [lost in dict(event.ranking) for event in record.generations] == [True, False, False, False]
    assert sorted({trial.state for trial in record.trials.values()}) == ["failed", "finished"]


def test_a_member_that_no_longer_learns_is_stopped_and_the_others_go_on() -> None:
    def report(job: TrialJob, images: int, weight: float) -> dict[str, float]:
        loss = math.nan if job.trial_id == lost and images >= 400 else 0.2
        return {METRIC: weight, "train/loss": loss}

    lost = plan_sweep(_config()).trials[5].trial_id
    record = Cluster(_config(), report=report).drive()
    assert "not finite" in record.trials[lost].reason
    assert [event.images for event in record.generations] == [200, 400, 600, 800]
    assert [lost in dict(event.ranking) for event in record.generations] == [True, False, False, False]


def test_a_missing_evaluation_holds_nobody_up() -> None:
    def report(job: TrialJob, images: int, weight: float) -> dict[str, float]:
        return {MISSING: 1.0} if job.trial_id == blind and images == 400 else {METRIC: weight}

    blind = plan_sweep(_config()).trials[0].trial_id
    record = Cluster(_config(), report=report).drive()
    assert [blind in dict(event.ranking) for event in record.generations] == [True, False, True, True]
    assert {trial.state for trial in record.trials.values()} == {"finished"}


def test_a_stopped_member_that_is_revived_goes_through_decided_generations_and_joins_the_next() -> None:
    def report(job: TrialJob, images: int, weight: float) -> dict[str, float]:
        is_broken = not revived and job.trial_id == lost and images >= 300
        return {METRIC: weight, "train/loss": math.nan if is_broken else 0.2}

    revived: list[str] = []
    lost = plan_sweep(_config()).trials[5].trial_id
    cluster = Cluster(_config(), report=report)
    cluster.drive()
    Coordinator("memory", _config(), store=cluster.store).revive(lost)
    revived.append(lost)
    record = cluster.drive()
    assert (record.trials[lost].state, record.trials[lost].images) == ("finished", 1000)
    assert len(record.generations) == 4


def test_the_schedule_follows_the_weights() -> None:
    record = Cluster(_config()).drive()
    taken = [trial for trial in record.in_order() if trial.takeovers]
    assert taken
    for trial in taken:
        schedule, last = schedule_of(record, trial.trial_id), trial.takeovers[-1]
        assert schedule[0].from_images == 0
        assert [each.from_images for each in schedule] == sorted({each.from_images for each in schedule})
        assert (schedule[-1].trial_id, schedule[-1].settings) == (trial.trial_id, trial.settings)
        assert schedule[:-1] == schedule_of(record, last.parent, before=last.images)


def test_the_tracker_and_the_status_tell_whose_weights_a_member_has() -> None:
    cluster = Cluster(_config())
    cluster.drive()
    coordinator, tracker = Coordinator("memory", cluster.config, store=cluster.store), MemoryTracker()
    tracker.start_sweep("s", "s", {}, {})
    Follower(cluster.config, tracker, Remembering()).follow(list(coordinator.events()))
    trial = next(trial for trial in coordinator.record().in_order() if trial.takeovers)
    tag = tracker.runs[trial.trial_id].tags["orchestrator.schedule"]
    assert f", {trial.index:03d} from {trial.takeovers[-1].images:,} images (learning rate" in tag
    status = SweepStatus(cluster.store)
    status.refresh()
    assert f"weights of {tag}" in status.text()
    told = status.to_json()
    assert [event["images"] for event in told["generations"]] == [200, 400, 600, 800]
    assert told["trials"][trial.index]["schedule"][-1]["settings"] == trial.settings.to_json()


@pytest.fixture
def told(tmp_path: Path) -> tuple[Path, SweepRecord]:
    """A folder of runs with one sweep, `s`, whose highest member took over in its last generation."""
    record = Cluster(_config(), store=open_store(str(tmp_path / "s"))).drive()
    return tmp_path, record


def test_the_report_tells_whose_weights_the_highest_has(told: tuple[Path, SweepRecord]) -> None:
    config, record, _ = load_sweep(str(told[0]), "s")
    summary = summarize(config, record)
    count = sum(len(event.takeovers) for event in record.generations)
    assert f"A population of 8: {count} times in 4 generations" in summary.text()
    highest = max(summary.trials, key=lambda trial: trial.value)
    assert f"The highest has the weights of {schedule_text(config, highest.schedule)}" in summary.markdown()
    assert (summary.findings, summary.matched) == (None, ())
    assert summary.rows()[0][1] == "member"
    assert "only another population tells" in summary.text()
    shown = next(each for each in summary.to_json()["trials"] if each["trial_id"] == highest.trial_id)
    assert [each["from_images"] for each in shown["schedule"]] == [
        each.from_images for each in highest.schedule
    ]


def test_no_command_claims_to_train_a_schedule_again(
    told: tuple[Path, SweepRecord], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, record = told
    highest = max(record.in_order(), key=lambda trial: trial.metrics[METRIC])
    assert highest.takeovers
    runs = ("--runs", str(folder))
    for command in (
        ["train", "--from-best", "s", *runs, "--dry-run"],
        ["best", "s", *runs, "--yaml"],
        ["reproduce", f"s/{highest.trial_id}", *runs, "--dry-run"],
    ):
        result = run_command(monkeypatch, capsys, *command)
        assert result.code == 2
        assert "No one configuration trains it again" in result.err
    best = run_command(monkeypatch, capsys, "best", "s", *runs)
    assert (best.code, "settings at its end:" in best.out) == (0, True)
    assert f"{parameter_text(highest.settings[RATE])}\n" in best.out


def test_a_member_that_kept_its_settings_is_trained_again_like_any_trial(
    told: tuple[Path, SweepRecord], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, record = told
    plain = next(trial for trial in record.in_order() if not trial.takeovers)
    result = run_command(
        monkeypatch, capsys, "reproduce", f"s/{plain.trial_id}", "--runs", str(folder), "--dry-run"
    )
    assert result.code == 0
    assert "pbt: null" in result.out


def test_a_plan_tells_when_members_are_ranked_and_that_each_starts_once_a_generation() -> None:
    config = _config()
    told = _compared(config)
    assert (
        told == "a population, in which the lowest 25 % go on from the highest at 200, 400, 600, 800 images"
    )
    trial = plan_sweep(config).trials[0]
    known = Measured(image_s=0.01, report_s=0.0, probe_s=3.0, checkpoint_s=0.5, start_s=2.0, spread=0.0)
    flops = {trial.trial_id: 1.0}
    seconds = trial_seconds(trial, [(trial, known)], flops)
    alone = make_trial(_config(sweep__pbt=None), trial.point, 0, 0)
    # Four more starts, probes and checkpoints.
    assert seconds - trial_seconds(alone, [(alone, known)], {alone.trial_id: 1.0}) == pytest.approx(4 * 5.5)


def test_the_operations_of_a_member_are_those_of_the_settings_it_ran_under() -> None:
    config = _config(sweep__space={"masks.num_target_blocks": {"choices": [1, 4]}})
    patches = {"masks/context_patches": 60.0, "masks/target_patches": 30.0}
    member = TrialRecord(trial_id="m", index=0, point=Point({"masks.num_target_blocks": 1}), seed=0)
    member.history = {0: {}, **{images: patches for images in (200, 400, 1000)}}
    member.takeovers = [Takeover(images=400, parent="n", settings=Point({"masks.num_target_blocks": 4}))]
    counter = FlopsCounter(config)
    cheap, dear = (
        counter.per_image(Point({"masks.num_target_blocks": blocks}), patches) for blocks in (1, 4)
    )
    assert dear > 1.1 * cheap
    assert counter.spent(member) == pytest.approx(
        {200: 200 * cheap, 400: 400 * cheap, 1000: 400 * cheap + 600 * dear}
    )
    parent = TrialRecord(trial_id="n", index=1, point=Point({"masks.num_target_blocks": 4}), seed=0)
    summary = trial_summaries(config, SweepRecord(trials={"m": member, "n": parent}))[0]
    assert summary.flops_per_image == pytest.approx((400 * cheap + 600 * dear) / 1000)


def test_a_population_cannot_be_replayed() -> None:
    record = Cluster(_config()).drive()
    for config in (_config(), _config(sweep__pbt=None)):
        with pytest.raises(ConfigError, match="a population cannot be replayed"):
            replay_sweep(config, record, num_slots=2)


@pytest.mark.parametrize(("key", "value"), [("train.images", 2000), ("sweep.num_trials", 9)])
def test_a_population_does_not_grow(key: str, value: int) -> None:
    record = SweepRecord(sweep_id="s", config_text=dump(_config()))
    check_same_sweep(_config(budget__gpu_hours=2.0), record)
    with pytest.raises(ConfigError, match="cannot change in it"):
        check_same_sweep(apply_overrides(_config(), {key: value}), record)


# Real training


def _tiny(folder: Path, **overrides: Any) -> RunConfig:
    return tiny_config(
        folder,
        num_images=60,
        train__images=480,
        train__keep_checkpoints=1,
        optimizer__warmup_fraction=0.0,
        sweep__metric="probe/knn/mean",
        sweep__space={RATE: {"choices": [0.0001, 0.001, 0.01, 0.03]}},
        sweep__pbt={"every_images": 160},
        **overrides,
    )


def _drive(config: RunConfig, folder: Path, *, stop_after: int | None = None) -> Coordinator:
    """Begin or go on with a sweep in this process; `stop_after` so many reports the driver is gone."""
    coordinator = Coordinator(str(folder / "s"), config, prepare_data(config).uri)
    if not coordinator.record().sweep_id:
        facts = {"name": "s", "environment": {}, "data": {"uri": "u", "digest": "d"}, "notes": ()}
        coordinator.append(SweepStarted(sweep_id="s", config=dump(config), **facts))
    coordinator.slot_opened("slot-0", 0.0, 1.0)
    plans = plan_sweep(config).trials
    for act in (coordinator.plan_trial, coordinator.submit):
        for plan in plans:
            act(plan.trial_id, plan.index, plan.point, plan.seed, plan.name)
    coordinator.expect(0)
    reporter = Dying(coordinator, "", left=stop_after)
    while (assignment := coordinator.next_trial("slot-0")).job is not None:
        reporter.attempt_id = assignment.attempt_id
        Run(assignment.job, reporter, Rank()).train()
        coordinator.attempt_ended(assignment.job.trial_id, assignment.attempt_id, Outcome())
    return coordinator


class Dying(InProcess):
    """Reports to a coordinator in this process, and dies after some reports."""

    def __init__(self, coordinator: Coordinator, attempt_id: str, *, left: int | None) -> None:
        super().__init__(coordinator, attempt_id)
        self.left = left

    def report(self, report: TrialReport) -> Decision:
        if self.left == 0:
            raise Killed
        self.left = None if self.left is None else self.left - 1
        return super().report(report)


def _weights(config: RunConfig, folder: Path, trial_id: str, images: int) -> dict[str, torch.Tensor]:
    store = open_store(f"{folder}/s/trials/{trial_id}/checkpoints", config.storage)
    name = f"step-{images // config.train.batch_size:010d}"
    return dict(load_checkpoint(store, name).tensors)


def test_weights_are_taken_over_and_a_killed_driver_ends_with_the_same_ones(tmp_path: Path) -> None:
    config = _tiny(tmp_path)
    whole = _drive(config, tmp_path / "whole").record()
    assert sum(len(event.takeovers) for event in whole.generations) >= 1
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        _drive(config, folder, stop_after=12)  # in the second generation
    record = _drive(config, folder).record()
    assert [event.takeovers for event in record.generations] == [
        event.takeovers for event in whole.generations
    ]
    for trial_id in record.trials:
        ours, theirs = (_weights(config, each, trial_id, 480) for each in (folder, tmp_path / "whole"))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_a_member_takes_over_is_kept_until_all_have_gone_on(tmp_path: Path) -> None:
    config = _tiny(tmp_path)
    record = _drive(config, tmp_path).record()
    last = record.generations[-1]
    assert last.images == 320
    for each in last.takeovers:
        assert _weights(config, tmp_path, each.parent, 320)  # though train.keep_checkpoints is 1
        with pytest.raises(CheckpointError):
            _weights(config, tmp_path, each.parent, 160)
