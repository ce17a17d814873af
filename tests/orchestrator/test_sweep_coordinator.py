"""The coordinator, its journal and the record: decisions are durable, idempotent and survive a restart."""

from pathlib import Path

import pytest
from sweep_records import record_of

from orchestrator.config.models import AshaConfig, RunConfig, StorageConfig, SweepConfig, TrainConfig
from orchestrator.errors import StorageError
from orchestrator.protocol.events import SweepResumed
from orchestrator.protocol.jobs import Outcome
from orchestrator.protocol.point import Point
from orchestrator.protocol.reports import Row, TrialReport
from orchestrator.storage import MemoryStore, open_store
from orchestrator.sweep.core.fold import fold_events
from orchestrator.sweep.journal.log import Journal, read_events
from orchestrator.sweep.run.clock import SteadyClock
from orchestrator.sweep.run.coordinator import Coordinator

METRIC = "probe/linear/mean"
CONFIG = RunConfig(
    train=TrainConfig(images=6400, batch_size=64),
    sweep=SweepConfig(
        metric=METRIC, asha=AshaConfig(variant="stopping", first_rung_images=640, reduction_factor=2)
    ),
)


class LosingAnswers(MemoryStore):
    """Stores what it is given and, once, says that it did not."""

    lost = ""

    def create(self, key: str, data: bytes) -> bool:
        created = super().create(key, data)
        if self.lost and self.lost.encode() in data:
            self.lost = ""
            raise StorageError(f"{key}: connection reset")
        return created


class FailingStore(MemoryStore):
    """Has no room for one kind of event."""

    refused = ""

    def create(self, key: str, data: bytes) -> bool:
        if self.refused and self.refused.encode() in data:
            raise StorageError(f"{key}: the disk is full")
        return super().create(key, data)


def _report(
    trial_id: str, images: int, value: float, *, rung: int | None = None, final: bool = False
) -> TrialReport:
    row = Row(images=images, timestamp_ms=images, metrics={METRIC: value})
    return TrialReport(trial_id=trial_id, images=images, rows=(row,), rung=rung, final=final)


def _coordinator(folder: Path, *trials: str) -> Coordinator:
    """A coordinator whose trials run, each on a slot of its own; attempts are found through `_attempt`."""
    coordinator = Coordinator(str(folder), CONFIG)
    for number, trial in enumerate(trials):
        coordinator.submit(trial, number, Point({"masks.num_target_blocks": number + 1}), 0, trial)
        coordinator.slot_opened(f"slot-{trial}", 0.0, 2.0)
        assert coordinator.next_trial(f"slot-{trial}").kind == "run"
    return coordinator


def _attempt(coordinator: Coordinator, trial: str) -> str:
    return list(coordinator.record().trials[trial].attempts)[-1]


def test_a_trial_below_the_cut_is_stopped_and_the_reason_is_kept(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a", "b")
    assert (
        coordinator.report(_report("a", 640, 60.0, rung=640), _attempt(coordinator, "a")).action == "continue"
    )
    assert coordinator.report(_report("b", 640, 50.0, rung=640), _attempt(coordinator, "b")).action == "stop"
    trial = coordinator.record().trials["b"]
    assert trial.state == "stopped"
    assert "50.00" in trial.reason


def test_a_rung_is_decided_once_even_after_a_restart(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a", "b")
    assert (
        coordinator.report(_report("a", 640, 50.0, rung=640), _attempt(coordinator, "a")).action == "continue"
    )
    coordinator.report(_report("b", 640, 60.0, rung=640), _attempt(coordinator, "b"))
    again = Coordinator(str(tmp_path), CONFIG)
    again.submit("a", 0, Point({"masks.num_target_blocks": 1}), 0, "a")
    again.next_trial("slot-0")
    assert again.report(_report("a", 640, 50.0, rung=640), _attempt(again, "a")).action == "continue"
    assert again.record().rung_values(640) == {"a": 50.0, "b": 60.0}


def test_the_record_after_a_restart_equals_the_record_before(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.report(_report("a", 64, 1.0), _attempt(coordinator, "a"))
    coordinator.report(_report("a", 6400, 2.0, final=True), _attempt(coordinator, "a"))
    coordinator.attempt_ended("a", _attempt(coordinator, "a"), Outcome())
    again = Coordinator(str(tmp_path), CONFIG).record()
    assert again.trials == coordinator.record().trials
    assert again.slots["slot-a"].periods == coordinator.record().slots["slot-a"].periods
    assert coordinator.record().trials["a"].state == "finished"


def test_rows_sent_twice_count_once(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.report(_report("a", 64, 1.0), _attempt(coordinator, "a"))
    coordinator.report(_report("a", 64, 7.0), _attempt(coordinator, "a"))
    assert coordinator.record().trials["a"].history == {64: {METRIC: 1.0}}


def _row(images: int, **metrics: float) -> Row:
    return Row(
        images=images,
        timestamp_ms=images,
        metrics={key.replace("__", "/"): value for key, value in metrics.items()},
    )


def test_a_result_that_comes_late_stands_under_its_own_images_and_hides_no_newer_one(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    rows = [
        (_row(64, health__std=0.5),),
        (_row(64, probe__linear__mean=40.0, health__std=0.5), _row(128, health__std=0.6)),
        (_row(192, probe__linear__mean=50.0), _row(128, probe__linear__mean=45.0)),
    ]
    for images, sent in zip((64, 128, 192), rows, strict=True):
        coordinator.report(TrialReport(trial_id="a", images=images, rows=sent), _attempt(coordinator, "a"))
    for record in (coordinator.record(), Coordinator(str(tmp_path), CONFIG).record()):
        trial = record.trials["a"]
        curve = {images: row[METRIC] for images, row in sorted(trial.history.items())}
        assert curve == {64: 40.0, 128: 45.0, 192: 50.0}
        assert (trial.metrics[METRIC], trial.metrics["health/std"]) == (50.0, 0.6)


def test_a_rung_is_decided_by_its_own_evaluation_and_not_by_an_earlier_one_that_came_late(
    tmp_path: Path,
) -> None:
    coordinator = _coordinator(tmp_path, "a", "b")
    coordinator.report(_report("a", 640, 60.0, rung=640), _attempt(coordinator, "a"))
    rows = (_row(320, probe__linear__mean=70.0), _row(640, probe__linear__mean=50.0))
    report = TrialReport(trial_id="b", images=640, rows=rows, rung=640)
    assert coordinator.report(report, _attempt(coordinator, "b")).action == "stop"
    assert coordinator.record().rung_values(640) == {"a": 60.0, "b": 50.0}


def test_a_missing_evaluation_neither_stops_a_trial_nor_counts_against_others(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a", "b")
    coordinator.report(_report("a", 640, 60.0, rung=640), _attempt(coordinator, "a"))
    rows = (_row(320, probe__linear__mean=50.0), _row(640, evaluation__missing=1.0))
    report = TrialReport(trial_id="b", images=640, rows=rows, rung=640)
    for _ in range(2):
        assert coordinator.report(report, _attempt(coordinator, "b")).action == "continue"
    assert coordinator.record().rung_values(640) == {"a": 60.0}


def test_a_trial_whose_last_evaluation_is_missing_has_no_value(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.report(_report("a", 640, 60.0), _attempt(coordinator, "a"))
    end = TrialReport(trial_id="a", images=6400, rows=(_row(6400, evaluation__missing=1.0),), final=True)
    coordinator.report(end, _attempt(coordinator, "a"))
    trial = coordinator.record().trials["a"]
    assert (trial.state, METRIC in trial.metrics, trial.history[640]) == ("finished", False, {METRIC: 60.0})


def test_an_interrupted_trial_is_neither_stopped_nor_decided(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.stop_all("interrupted")
    assert coordinator.report(_report("a", 640, 50.0, rung=640), _attempt(coordinator, "a")).action == "stop"
    trial = Coordinator(str(tmp_path), CONFIG).record().trials["a"]
    assert trial.state == "pending"
    assert trial.decisions == {}


def test_placement_groups_of_a_dead_slot_are_handed_over_once(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.slot_started("slot-a", "feed")
    coordinator.slot_started("slot-a", "beef")
    assert coordinator.slot_closed("slot-a", "lost")[1] == ["beef", "feed"]
    assert coordinator.slot_closed("slot-a", "lost")[1] == []


def test_a_trial_whose_workers_died_goes_to_the_next_free_slot(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.submit("b", 1, Point({"masks.num_target_blocks": 2}), 0, "b")
    coordinator.slot_started("slot-a", "feed")
    job = coordinator.next_trial("slot-x").job
    assert job is not None
    assert job.trial_id == "a"


def test_an_attempt_whose_slot_was_given_up_is_sent_home_unheard(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.slot_failed("slot-a")
    assert (
        coordinator.report(_report("a", 6400, 2.0, final=True), _attempt(coordinator, "a")).action == "stop"
    )
    assert coordinator.next_trial("slot-x").kind == "run"
    assert coordinator.record().trials["a"].history == {}
    assert coordinator.report(_report("a", 64, 1.0), _attempt(coordinator, "a")).action == "continue"


def test_an_attempt_that_could_not_be_journaled_has_not_begun() -> None:
    store = FailingStore()
    coordinator = Coordinator("memory", CONFIG, store=store)
    coordinator.submit("a", 0, Point({"masks.num_target_blocks": 1}), 0, "a")
    store.refused = "attempt_started"
    with pytest.raises(StorageError, match="full"):
        coordinator.next_trial("slot-0")
    store.refused = ""
    coordinator.slot_started("slot-0", None)
    assert coordinator.next_trial("slot-0").kind == "run"
    assert fold_events(read_events(store)).trials["a"].state == "running"


def test_an_event_whose_answer_was_lost_is_recognised_and_not_taken_for_another_drivers() -> None:
    store = LosingAnswers()
    coordinator = Coordinator("memory", CONFIG, store=store)
    coordinator.submit("a", 0, Point({"masks.num_target_blocks": 1}), 0, "a")
    coordinator.next_trial("slot-0")
    store.lost = '"images": 64'
    with pytest.raises(StorageError, match="reset"):
        coordinator.report(_report("a", 64, 1.0), _attempt(coordinator, "a"))
    assert coordinator.report(_report("a", 128, 2.0), _attempt(coordinator, "a")).action == "continue"
    assert coordinator.record().trials["a"].history == {64: {METRIC: 1.0}, 128: {METRIC: 2.0}}
    assert coordinator.events() == read_events(store)
    assert [entry.sequence for entry in coordinator.events()] == list(range(len(coordinator.events())))


def test_a_slot_whose_start_could_not_be_journaled_may_end() -> None:
    store = FailingStore()
    coordinator = Coordinator("memory", CONFIG, store=store)
    store.refused = "slot_started"
    with pytest.raises(StorageError, match="full"):
        coordinator.slot_opened("slot-0", 0.0, 1.0)
    coordinator.slot_closed("slot-0", "lost")
    assert fold_events(read_events(store)).slots == {}


def test_a_trial_that_fails_too_often_is_failed_with_its_last_error(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    for _ in range(CONFIG.train.max_failures + 1):
        coordinator.attempt_ended("a", _attempt(coordinator, "a"), Outcome(error="no space left"))
        coordinator.next_trial("slot-a")
    trial = coordinator.record().trials["a"]
    assert (trial.state, trial.reason) == ("failed", "no space left")
    assert len(trial.attempts) == CONFIG.train.max_failures + 1


def test_a_failure_for_good_is_not_tried_again(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.attempt_ended("a", _attempt(coordinator, "a"), Outcome(error="no such split", permanent=True))
    assert coordinator.record().trials["a"].state == "failed"
    assert coordinator.next_trial("slot-a").kind == "wait"


def test_slots_end_when_the_last_expected_trial_has_been_taken(tmp_path: Path) -> None:
    coordinator = Coordinator(str(tmp_path), CONFIG)
    coordinator.expect(2)
    coordinator.submit("a", 0, Point({"masks.num_target_blocks": 1}), 0, "a")
    assert coordinator.next_trial("slot-0").kind == "run"
    assert coordinator.next_trial("slot-1").kind == "wait"
    coordinator.submit("b", 1, Point({"masks.num_target_blocks": 2}), 0, "b")
    assert coordinator.next_trial("slot-1").kind == "run"
    assert coordinator.next_trial("slot-2").kind == "end"


def test_a_proposal_that_is_repeated_counts_once(tmp_path: Path) -> None:
    coordinator = Coordinator(str(tmp_path), CONFIG)
    coordinator.expect(2)
    for _ in range(2):
        coordinator.submit("a", None, Point({"masks.num_target_blocks": 1}), 0, "a", "first")
    assert coordinator.next_trial("slot-0").kind == "run"
    assert coordinator.next_trial("slot-1").kind == "wait"
    coordinator.submit("a", None, Point({"masks.num_target_blocks": 1}), 0, "a", "second")
    assert coordinator.next_trial("slot-1").kind == "end"


def test_a_trial_that_is_done_is_not_run_again(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.report(_report("a", 6400, 2.0, final=True), _attempt(coordinator, "a"))
    again = Coordinator(str(tmp_path), CONFIG)
    again.submit("a", 0, Point({"masks.num_target_blocks": 1}), 0, "a")
    assert again.next_trial("slot-0").kind == "wait"
    assert again.outcome("a") == 2.0


def test_the_search_hears_of_a_failed_trial_as_of_the_worst(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a", "b")
    coordinator.report(_report("a", 6400, 2.0, final=True), _attempt(coordinator, "a"))
    assert coordinator.outcome("b") is None
    coordinator.attempt_ended("b", _attempt(coordinator, "b"), Outcome(error="lost", permanent=True))
    assert coordinator.outcome("b") == 2.0


def test_a_slot_is_resized_at_its_next_report_and_its_trial_goes_first(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.submit("b", 1, Point({"masks.num_target_blocks": 2}), 0, "b")
    coordinator.slot_started("slot-a", None)  # its trial is lost with the workers, and taken again
    coordinator.next_trial("slot-a")
    coordinator.report(_report("a", 64, 1.0), _attempt(coordinator, "a"))
    assert coordinator.resize("slot-a", 2)
    assert coordinator.report(_report("a", 128, 1.0), _attempt(coordinator, "a")).action == "stop"
    coordinator.attempt_ended("a", _attempt(coordinator, "a"), Outcome())
    assert coordinator.next_trial("slot-a").kind == "end"
    assert coordinator.slot_closed("slot-a") == (True, [])
    assert coordinator.starts_again("slot-a")
    coordinator.slot_opened("slot-a", 0.0, 2.0, num_workers=2)
    coordinator.slot_started("slot-a", None)
    job = coordinator.next_trial("slot-a").job
    assert job is not None
    assert job.trial_id == "a"
    assert coordinator.report(_report("a", 192, 1.0), _attempt(coordinator, "a")).action == "continue"


def test_a_slot_is_not_resized_before_it_has_reported_nor_while_another_is(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a", "b")
    assert not coordinator.resize("slot-a", 2)
    for trial in ("a", "b"):
        coordinator.report(_report(trial, 64, 1.0), _attempt(coordinator, trial))
    assert coordinator.resize("slot-a", 2)
    assert not coordinator.resize("slot-b", 2)
    coordinator.slot_closed("slot-a", "its node is gone")
    assert not coordinator.starts_again("slot-a")
    assert coordinator.resize("slot-b", 2)


def test_a_slot_that_is_resized_when_nothing_is_left_to_run_ends(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.expect(0)
    coordinator.report(_report("a", 64, 1.0), _attempt(coordinator, "a"))
    assert coordinator.resize("slot-a", 2)
    assert (
        coordinator.report(_report("a", 6400, 2.0, final=True), _attempt(coordinator, "a")).action
        == "continue"
    )
    coordinator.attempt_ended("a", _attempt(coordinator, "a"), Outcome())
    coordinator.slot_closed("slot-a")
    assert coordinator.record().trials["a"].state == "finished"
    assert not coordinator.starts_again("slot-a")


def test_an_interrupted_sweep_sends_its_slots_home(tmp_path: Path) -> None:
    coordinator = _coordinator(tmp_path, "a")
    coordinator.submit("b", 1, Point({"masks.num_target_blocks": 2}), 0, "b")
    coordinator.stop_all("interrupted")
    coordinator.attempt_ended("a", _attempt(coordinator, "a"), Outcome())
    assert coordinator.next_trial("slot-a").kind == "end"
    assert coordinator.record().trials["a"].state == "pending"


def test_slot_time_without_a_trial_is_counted(tmp_path: Path) -> None:
    events = [
        {"kind": "slot_started", "time_ms": 0, "slot_id": "l", "num_gpus": 1.0, "num_cpus": 2.0},
        {"kind": "slot_ended", "time_ms": 60_000, "slot_id": "l", "error": ""},
        {"kind": "slot_started", "time_ms": 100_000, "slot_id": "l", "num_gpus": 1.0, "num_cpus": 2.0},
        {"kind": "driver_started", "time_ms": 900_000},
    ]
    assert record_of(events).slots["l"].seconds == pytest.approx(60.0)


def test_a_clock_that_is_set_an_hour_on_or_back_adds_nothing_to_the_ledger() -> None:
    wall, steady = [1_000_000.0], [50.0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    coordinator = Coordinator("memory", CONFIG, store=MemoryStore(), clock=clock)
    coordinator.submit("a", 0, Point({"masks.num_target_blocks": 1}), 0, "a")
    coordinator.slot_opened("slot-0", 0.0, 1.0)
    coordinator.next_trial("slot-0")
    for images, jump_s in ((64, 0.0), (128, 3600.0), (192, -7200.0)):
        steady[0] += 10.0
        wall[0] += 10.0 + jump_s
        coordinator.report(_report("a", images, 1.0), _attempt(coordinator, "a"))
    trial, slot = coordinator.record().trials["a"], coordinator.record().slots["slot-0"]
    assert slot.seconds == pytest.approx(30.0)
    assert next(iter(trial.attempts.values())).seconds == pytest.approx(30.0)
    assert trial.longest_gap_s == pytest.approx(10.0)


def test_core_hours_count_every_attempt() -> None:
    planned = {"trial_id": "a", "index": 0, "point": {}, "seed": 0, "name": "a", "total_images": 1}
    events = [
        {"kind": "trial_planned", "time_ms": 0, **planned},
        {
            "kind": "attempt_started",
            "time_ms": 0,
            "trial_id": "a",
            "attempt_id": "1",
            "num_gpus": 2.0,
            "num_cpus": 4.0,
        },
        {"kind": "attempt_ended", "time_ms": 1_800_000, "trial_id": "a", "attempt_id": "1"},
        {
            "kind": "attempt_started",
            "time_ms": 3_600_000,
            "trial_id": "a",
            "attempt_id": "2",
            "num_gpus": 2.0,
            "num_cpus": 4.0,
        },
        {"kind": "attempt_ended", "time_ms": 5_400_000, "trial_id": "a", "attempt_id": "2"},
    ]
    trial = record_of(events).trials["a"]
    assert trial.hours.gpu == pytest.approx(2.0)
    assert trial.hours.cpu_core == pytest.approx(4.0)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), StorageConfig())
    first, second = Journal(store), Journal(store)
    first.append(SweepResumed())
    with pytest.raises(StorageError, match="another driver"):
        second.append(SweepResumed())


def test_a_coordinator_that_takes_over_fences_the_earlier_one_off(tmp_path: Path) -> None:
    earlier = _coordinator(tmp_path, "a")
    later = Coordinator(str(tmp_path), CONFIG)
    with pytest.raises(StorageError, match="another driver"):
        earlier.report(_report("a", 64, 1.0), _attempt(earlier, "a"))
    later.append(SweepResumed())
    assert later.record().trials["a"].images == 0


def test_taking_over_waits_for_what_a_dying_writer_still_appends(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), StorageConfig())
    dying, next_one = Journal(store), Journal(store)
    dying.append(SweepResumed())
    assert next_one.take_over().sequence == 1
    assert [entry.sequence for entry in read_events(store)] == [0, 1]


def test_trials_are_compared_within_their_bracket(tmp_path: Path) -> None:
    asha = AshaConfig(variant="stopping", first_rung_images=640, reduction_factor=2, brackets=2)
    config = CONFIG.model_copy(update={"sweep": CONFIG.sweep.model_copy(update={"asha": asha})})
    coordinator = Coordinator(str(tmp_path), config)
    for number, trial in enumerate(("a", "b", "c")):
        coordinator.submit(trial, number, Point({"masks.num_target_blocks": number + 1}), 0, trial)
        assignment = coordinator.next_trial(f"slot-{trial}")
        assert assignment.job is not None
        assert (640 in assignment.job.rungs_images) == (trial != "b")
    assert (
        coordinator.report(_report("a", 1280, 60.0, rung=1280), _attempt(coordinator, "a")).action
        == "continue"
    )
    assert (
        coordinator.report(_report("b", 1280, 50.0, rung=1280), _attempt(coordinator, "b")).action
        == "continue"
    )
    assert (
        coordinator.report(_report("c", 1280, 50.0, rung=1280), _attempt(coordinator, "c")).action == "stop"
    )
