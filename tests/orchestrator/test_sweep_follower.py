"""What the journal's events become in the tracker: when runs start and end there."""

from __future__ import annotations

from typing import Any

import pytest
from sweep_records import entries, sweep_config
from tiny_sweeps import Remembering

from orchestrator.sweep.watch.follower import Follower
from orchestrator.tracking import MemoryTracker, RunStatus

POINT = {"masks.target_scale": [0.1, 0.2], "masks.target_aspect_ratio": [0.75, 1.5]}
TRIAL = {"trial_id": "t0"}
STARTED = [
    {
        "kind": "sweep_started",
        "time_ms": 1_000,
        "sweep_id": "s",
        "name": "masks",
        "config": "",
        "environment": {},
        "data": {"uri": "shards"},
        "notes": [],
    },
    {
        "kind": "trial_planned",
        "time_ms": 2_000,
        **TRIAL,
        "index": 0,
        "point": POINT,
        "seed": 3,
        "name": "one",
        "total_images": 100,
    },
]


def attempt(attempt_id: str, time_ms: int) -> dict[str, Any]:
    return {
        "kind": "attempt_started",
        "time_ms": time_ms,
        **TRIAL,
        "attempt_id": attempt_id,
        "num_gpus": 0.0,
        "num_cpus": 1.0,
    }


def ended(state: str, time_ms: int) -> dict[str, Any]:
    return {"kind": "trial_ended", "time_ms": time_ms, **TRIAL, "state": state, "reason": ""}


@pytest.fixture
def tracker() -> MemoryTracker:
    tracker = MemoryTracker()
    tracker.start_sweep("s", "s", {}, {})
    return tracker


def follow(tracker: MemoryTracker, *events: dict[str, Any]) -> Follower:
    follower = Follower(sweep_config(), tracker, Remembering())
    follower.follow(entries([*STARTED, *events]))
    return follower


def test_a_run_lasts_from_the_first_attempt_to_the_end_and_not_from_the_planning(
    tracker: MemoryTracker,
) -> None:
    follow(tracker, attempt("a", 60_000), attempt("b", 70_000), ended("finished", 90_000))
    run = tracker.runs["t0"]
    assert (run.started_ms, run.ended_ms, run.status) == (60_000, 90_000, RunStatus.FINISHED)


def test_a_trial_that_waits_has_no_run_and_one_cancelled_before_it_began_has(tracker: MemoryTracker) -> None:
    follower = follow(tracker)
    assert "t0" not in tracker.runs
    follower.follow(entries([ended("stopped", 5_000)]))
    assert (tracker.runs["t0"].started_ms, tracker.runs["t0"].status) == (5_000, RunStatus.KILLED)


def test_a_paused_sweep_closes_its_runs_and_going_on_opens_them_again(tracker: MemoryTracker) -> None:
    paused = {"kind": "sweep_ended", "time_ms": 80_000, "state": "paused"}
    follower = follow(tracker, attempt("a", 60_000), paused)
    assert (tracker.runs["t0"].ended_ms, tracker.runs["t0"].status) == (80_000, RunStatus.KILLED)
    follower.follow(entries([attempt("b", 95_000)]))
    assert (tracker.runs["t0"].started_ms, tracker.runs["t0"].status) == (60_000, RunStatus.RUNNING)
