"""The coordinator as the driver and its search call it: a typed door to its actor.

Above `core` alone, as both `search` and `run` hold it. What the calls mean is said at the coordinator
(`orchestrator.sweep.run.coordinator`), which mypy holds to `CoordinatorCalls` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from orchestrator.protocol.events import Entry, Event
from orchestrator.protocol.point import Point
from orchestrator.sweep.core import SweepRecord
from orchestrator.train.ray import ActorClient, SlotCalls


class CoordinatorCalls(SlotCalls, Protocol):
    """What the driver's side asks of the coordinator, and tells it."""

    def append(self, event: Event) -> None:
        """Journal an event."""
        ...

    def events(self, after: int = 0) -> list[Entry]:
        """The events from number `after` on."""
        ...

    def record(self) -> SweepRecord:
        """The state of the sweep."""
        ...

    def stop_all(self, reason: str) -> None:
        """Ask every trial and slot to end."""
        ...

    def cancel_rest(self) -> None:
        """End every trial that is not done."""
        ...

    def expect(self, num_trials: int | None) -> None:
        """How many trials will still be submitted; None: not known yet."""
        ...

    def plan_trial(self, trial_id: str, index: int | None, point: Point, seed: int, name: str) -> None:
        """Journal a trial once."""
        ...

    def submit(
        self,
        trial_id: str,
        index: int | None,
        point: Point,
        seed: int,
        name: str,
        proposal: str = "",
    ) -> None:
        """Plan a trial and have a slot run it."""
        ...

    def go_on(self, environment: Mapping[str, object], folder: str = "") -> None:
        """Journal that a sweep goes on."""
        ...

    def revive(self, trial_id: str) -> None:
        """Undo a stop."""
        ...

    def outcome(self, trial_id: str) -> float | None:
        """The ranking metric of a trial; None while it waits or runs."""
        ...

    def hours(self, trial_id: str) -> float:
        """Device hours of a trial at its full length."""
        ...

    def slot_opened(self, slot_id: str, num_gpus: float, num_cpus: float, *, num_workers: int = 1) -> None:
        """Resources are allocated to a slot."""
        ...

    def resize(self, slot_id: str, num_workers: int) -> bool:
        """Have a slot start again with another number of workers; returns whether it will."""
        ...

    def starts_again(self, slot_id: str) -> bool:
        """Whether a slot that has ended was to be resized."""
        ...

    def slot_closed(self, slot_id: str, error: str = "") -> tuple[bool, list[str]]:
        """A slot's workers are gone: whether any trial reported from it, and the placement groups it may have left."""
        ...

    def slot_wanted(self) -> tuple[bool, bool]:
        """Whether a slot would still find a trial, and whether another slot has one."""
        ...


def client_of(actor: Any) -> CoordinatorCalls:
    """The coordinator's actor, to be called as the coordinator itself; every call waits for its answer."""
    return cast(CoordinatorCalls, ActorClient(actor))
