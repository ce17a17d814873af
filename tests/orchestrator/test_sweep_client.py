"""The coordinator's client: every call reaches the coordinator as it was made. Ray's part is stood in for."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.config import default_config
from orchestrator.protocol.events import SweepEnded, SweepStarted
from orchestrator.protocol.jobs import Outcome
from orchestrator.protocol.point import Point
from orchestrator.protocol.reports import Decision, Row, TrialReport
from orchestrator.sweep.client import CoordinatorCalls, client_of
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.train.ray.client import ActorClient


class Handle:
    """An actor's handle as Ray makes it, of an object that is here."""

    def __init__(self, called: Coordinator) -> None:
        self._called = called

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._called, name))


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CoordinatorCalls:
    monkeypatch.setattr("ray.get", lambda answer: answer)
    return client_of(Handle(Coordinator(str(tmp_path), default_config(), "shards")))


def test_a_trial_is_run_through_the_client(calls: CoordinatorCalls) -> None:
    started = {"config": "", "environment": {}, "data": {"uri": "u"}, "notes": ()}
    calls.append(SweepStarted(sweep_id="s", name="s", **started))
    point = Point({"masks.num_target_blocks": 2})
    calls.plan_trial("a", 0, point, 0, "a")
    calls.submit("a", 0, point, 0, "a", "asked once")
    calls.expect(0)
    calls.slot_opened("slot-0", 0.0, 1.0, num_workers=1)
    calls.slot_started("slot-0", "group")
    turn = calls.next_trial("slot-0")
    row = Row(images=64, timestamp_ms=1, metrics={"probe/linear/mean": 40.0})
    report = TrialReport(trial_id="a", images=64, rows=(row,), final=True)
    assert calls.report(report, turn.attempt_id) == Decision()
    calls.attempt_ended("a", turn.attempt_id, Outcome())
    assert (calls.outcome("a"), calls.hours("a") >= 0) == (40.0, True)
    assert calls.slot_closed("slot-0") == (True, ["group"])
    assert [entry.event.kind for entry in calls.events(5)] == [
        "report",
        "trial_ended",
        "attempt_ended",
        "slot_ended",
    ]


def test_a_client_travels_to_another_process() -> None:
    travelled = pickle.loads(pickle.dumps(ActorClient([1, 2])))
    assert travelled._actor == [1, 2]
    with pytest.raises(AttributeError, match="no_such_call"):
        travelled.no_such_call()


def test_a_sweep_is_asked_to_end_through_the_client(calls: CoordinatorCalls) -> None:
    calls.submit("a", 0, Point({}), 0, "a")
    assert calls.slot_wanted() == (True, False)
    assert not calls.resize("slot-0", 2)
    assert not calls.starts_again("slot-0")
    calls.slot_failed("slot-0")
    calls.stop_all("paused")
    assert calls.is_stopping()
    calls.cancel_rest()
    calls.revive("a")
    calls.append(SweepEnded(state="paused"))
    record = calls.record()
    assert (record.state, record.trials["a"].revived) == ("paused", True)
