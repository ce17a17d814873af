"""The coordinator as the driver and its search call it: a typed door to its actor.

Below the rooms of a sweep, as both `search` and `run` hold it. What the calls mean is said at the coordinator
(`orchestrator.sweep.run.coordinator`), which mypy holds to `CoordinatorCalls` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import ray

from orchestrator.protocol.events import Entry, Event
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.train.ray.client import SlotCalls, SlotClient


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

    def plan_trial(
        self, trial_id: str, index: int | None, point: Mapping[str, Any], seed: int, name: str
    ) -> None:
        """Journal a trial once."""
        ...

    def submit(
        self,
        trial_id: str,
        index: int | None,
        point: Mapping[str, Any],
        seed: int,
        name: str,
        proposal: str = "",
    ) -> None:
        """Plan a trial and have a slot run it."""
        ...

    def go_on(self, environment: Mapping[str, Any], folder: str = "") -> None:
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


class CoordinatorClient(SlotClient):
    """The coordinator's actor, called from the driver; every call waits for its answer."""

    def append(self, event: Event) -> None:
        """Journal an event."""
        ray.get(self._actor.append.remote(event))

    def events(self, after: int = 0) -> list[Entry]:
        """The events from number `after` on."""
        entries: list[Entry] = ray.get(self._actor.events.remote(after))
        return entries

    def record(self) -> SweepRecord:
        """The state of the sweep."""
        record: SweepRecord = ray.get(self._actor.record.remote())
        return record

    def stop_all(self, reason: str) -> None:
        """Ask every trial and slot to end."""
        ray.get(self._actor.stop_all.remote(reason))

    def cancel_rest(self) -> None:
        """End every trial that is not done."""
        ray.get(self._actor.cancel_rest.remote())

    def expect(self, num_trials: int | None) -> None:
        """How many trials will still be submitted; None: not known yet."""
        ray.get(self._actor.expect.remote(num_trials))

    def plan_trial(
        self, trial_id: str, index: int | None, point: Mapping[str, Any], seed: int, name: str
    ) -> None:
        """Journal a trial once."""
        ray.get(self._actor.plan_trial.remote(trial_id, index, point, seed, name))

    def submit(
        self,
        trial_id: str,
        index: int | None,
        point: Mapping[str, Any],
        seed: int,
        name: str,
        proposal: str = "",
    ) -> None:
        """Plan a trial and have a slot run it."""
        ray.get(self._actor.submit.remote(trial_id, index, point, seed, name, proposal))

    def go_on(self, environment: Mapping[str, Any], folder: str = "") -> None:
        """Journal that a sweep goes on."""
        ray.get(self._actor.go_on.remote(environment, folder))

    def revive(self, trial_id: str) -> None:
        """Undo a stop."""
        ray.get(self._actor.revive.remote(trial_id))

    def outcome(self, trial_id: str) -> float | None:
        """The ranking metric of a trial; None while it waits or runs."""
        value: float | None = ray.get(self._actor.outcome.remote(trial_id))
        return value

    def hours(self, trial_id: str) -> float:
        """Device hours of a trial at its full length."""
        return float(ray.get(self._actor.hours.remote(trial_id)))

    def slot_opened(self, slot_id: str, num_gpus: float, num_cpus: float, *, num_workers: int = 1) -> None:
        """Resources are allocated to a slot."""
        ray.get(self._actor.slot_opened.remote(slot_id, num_gpus, num_cpus, num_workers=num_workers))

    def resize(self, slot_id: str, num_workers: int) -> bool:
        """Have a slot start again with another number of workers; returns whether it will."""
        return bool(ray.get(self._actor.resize.remote(slot_id, num_workers)))

    def starts_again(self, slot_id: str) -> bool:
        """Whether a slot that has ended was to be resized."""
        return bool(ray.get(self._actor.starts_again.remote(slot_id)))

    def slot_closed(self, slot_id: str, error: str = "") -> tuple[bool, list[str]]:
        """A slot's workers are gone: whether any trial reported from it, and the placement groups it may have left."""
        told: tuple[bool, list[str]] = ray.get(self._actor.slot_closed.remote(slot_id, error))
        return told

    def slot_wanted(self) -> tuple[bool, bool]:
        """Whether a slot would still find a trial, and whether another slot has one."""
        told: tuple[bool, bool] = ray.get(self._actor.slot_wanted.remote())
        return told
