"""The coordinator as a slot's workers call it: a typed door to its actor, which other processes hold by a handle.

`SlotCalls` says which methods there are, so that mypy sees every call; the coordinator itself has them too
(`orchestrator.sweep.run.coordinator`).
"""

from __future__ import annotations

from typing import Any, Protocol

import ray

from orchestrator.protocol.reports import Decision, TrialReport
from orchestrator.train.job import Assignment, Outcome


class SlotCalls(Protocol):
    """What a slot's workers ask of the coordinator, and tell it."""

    def next_trial(self, slot_id: str) -> Assignment:
        """What a slot does next."""
        ...

    def report(self, report: TrialReport, attempt_id: str) -> Decision:
        """Deliver a report and wait for the answer."""
        ...

    def attempt_ended(self, trial_id: str, attempt_id: str, outcome: Outcome) -> None:
        """An attempt is over."""
        ...

    def slot_started(self, slot_id: str, placement_group_id: str | None) -> None:
        """A slot's workers are up."""
        ...

    def slot_failed(self, slot_id: str) -> None:
        """A slot's workers died and may be long in coming back."""
        ...

    def is_stopping(self) -> bool:
        """Whether the sweep was asked to stop."""
        ...


class SlotClient:
    """The coordinator's actor, called from a slot; every call waits for its answer."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def next_trial(self, slot_id: str) -> Assignment:
        """What a slot does next."""
        assignment: Assignment = ray.get(self._actor.next_trial.remote(slot_id))
        return assignment

    def report(self, report: TrialReport, attempt_id: str) -> Decision:
        """Deliver a report and wait for the answer."""
        decision: Decision = ray.get(self._actor.report.remote(report, attempt_id))
        return decision

    def attempt_ended(self, trial_id: str, attempt_id: str, outcome: Outcome) -> None:
        """An attempt is over."""
        ray.get(self._actor.attempt_ended.remote(trial_id, attempt_id, outcome))

    def slot_started(self, slot_id: str, placement_group_id: str | None) -> None:
        """A slot's workers are up."""
        ray.get(self._actor.slot_started.remote(slot_id, placement_group_id))

    def slot_failed(self, slot_id: str) -> None:
        """A slot's workers died and may be long in coming back."""
        ray.get(self._actor.slot_failed.remote(slot_id))

    def is_stopping(self) -> bool:
        """Whether the sweep was asked to stop."""
        return bool(ray.get(self._actor.is_stopping.remote()))
