"""The board, its journal and the record: decisions are durable, idempotent and survive a restart."""

from pathlib import Path

import pytest

from orchestrator.config.models import AshaConfig, RunConfig, StorageConfig, SweepConfig, TrainConfig
from orchestrator.errors import StorageError
from orchestrator.storage import open_store
from orchestrator.sweep.board import Board
from orchestrator.sweep.journal import Journal
from orchestrator.sweep.record import fold
from orchestrator.train.reporting import Row, TrialReport

CONFIG = RunConfig(
    train=TrainConfig(images=6400, batch_size=64),
    sweep=SweepConfig(metric="m", asha=AshaConfig(first_rung_images=640, reduction_factor=2)),
)


def _report(
    trial_id: str, images: int, value: float, *, rung: int | None = None, final: bool = False
) -> TrialReport:
    row = Row(images=images, timestamp_ms=images, metrics={"m": value})
    return TrialReport(trial_id=trial_id, images=images, rows=(row,), rung=rung, final=final)


def _board(folder: Path, *trials: str) -> Board:
    board = Board(str(folder), CONFIG)
    for number, trial in enumerate(trials):
        board.plan_trial(trial, number, {"masks.num_target_blocks": number}, 0, trial)
        board.attempt_started(trial, f"{trial}-1", 0.0, 2.0)
    return board


def test_a_trial_below_the_cut_is_stopped_and_the_reason_is_kept(tmp_path: Path) -> None:
    board = _board(tmp_path, "a", "b")
    assert board.report(_report("a", 640, 60.0, rung=640), "a-1").action == "continue"
    assert board.report(_report("b", 640, 50.0, rung=640), "b-1").action == "stop"
    trial = board.record().trials["b"]
    assert trial.state == "stopped"
    assert "50.00" in trial.reason


def test_a_rung_is_decided_once_even_after_a_restart(tmp_path: Path) -> None:
    board = _board(tmp_path, "a", "b")
    assert board.report(_report("a", 640, 50.0, rung=640), "a-1").action == "continue"
    board.report(_report("b", 640, 60.0, rung=640), "b-1")
    again = Board(str(tmp_path), CONFIG)
    assert again.report(_report("a", 640, 50.0, rung=640), "a-2").action == "continue"
    assert again.record().rung_values(640) == {"a": 50.0, "b": 60.0}


def test_the_record_after_a_restart_equals_the_record_before(tmp_path: Path) -> None:
    board = _board(tmp_path, "a")
    board.report(_report("a", 64, 1.0), "a-1")
    board.report(_report("a", 6400, 2.0, final=True), "a-1")
    board.attempt_ended("a", "a-1")
    assert Board(str(tmp_path), CONFIG).record() == board.record()
    assert board.record().trials["a"].state == "finished"


def test_rows_sent_twice_count_once(tmp_path: Path) -> None:
    board = _board(tmp_path, "a")
    board.report(_report("a", 64, 1.0), "a-1")
    board.report(_report("a", 64, 7.0), "a-2")
    assert board.record().trials["a"].history == {64: {"m": 1.0}}


def test_an_interrupted_trial_is_neither_stopped_nor_decided(tmp_path: Path) -> None:
    board = _board(tmp_path, "a")
    board.stop_all("interrupted")
    assert board.report(_report("a", 640, 50.0, rung=640), "a-1").action == "stop"
    trial = Board(str(tmp_path), CONFIG).record().trials["a"]
    assert trial.state == "running"
    assert trial.decisions == {}


def test_placement_groups_of_a_dead_attempt_are_handed_to_the_next(tmp_path: Path) -> None:
    board = _board(tmp_path, "a")
    board.worker_started("a", "a-1", "feed")
    assert board.attempt_started("a", "a-2", 0.0, 2.0) == ("running", ["feed"])
    board.worker_started("a", "a-2", "beef")
    board.attempt_ended("a", "a-2")
    assert board.attempt_started("a", "a-3", 0.0, 2.0) == ("running", [])


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
    trial = fold(events).trials["a"]
    assert trial.gpu_hours == pytest.approx(2.0)
    assert trial.cpu_core_hours == pytest.approx(4.0)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), StorageConfig())
    first, second = Journal(store), Journal(store)
    first.append("sweep_resumed")
    with pytest.raises(StorageError, match="another driver"):
        second.append("sweep_resumed")
