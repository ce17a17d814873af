"""The coordinator as a slot's workers call it: a typed door to its actor, which other processes hold by a handle.

`SlotCalls` says which methods there are, so that mypy sees every call; the coordinator itself has them too
(`orchestrator.sweep.run.coordinator`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import ray

from orchestrator.config.models import RunConfig
from orchestrator.protocol.jobs import Assignment, Outcome
from orchestrator.protocol.reports import Decision, TrialReport


class SlotCalls(Protocol):
    """What a slot's workers ask of the coordinator, and tell it."""

    def next_trial(self, slot_id: str) -> Assignment[RunConfig]:
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


class ActorClient:
    """An actor's methods as calls that wait for their answer; cast it to the protocol that says which there are."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):  # what pickle looks for before `_actor` is there
            raise AttributeError(name)
        method = getattr(self._actor, name)
        return lambda *arguments, **named: ray.get(method.remote(*arguments, **named))
