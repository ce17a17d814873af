"""Which trial runs on which slot: waiting, held and failed trials, as plain state without clock or processes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Held:
    """A trial that a slot is running, under one attempt."""

    trial_id: str
    attempt_id: str


@dataclass
class TrialQueue:
    """Trials handed to slots in the order they were asked for; a failed one goes first, on whichever slot is free.

    `expected` counts the trials still to be asked for; None when the search does not know yet. `max_failures` is how
    often a trial may fail and be tried again.
    """

    max_failures: int
    expected: int | None = None
    waiting: deque[str] = field(default_factory=deque)
    held: dict[str, Held] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    proposals: set[str] = field(default_factory=set)

    def holds(self, attempt_id: str) -> bool:
        """Whether a slot runs this attempt."""
        return any(held.attempt_id == attempt_id for held in self.held.values())

    def slot_of(self, attempt_id: str) -> str:
        """The slot that runs an attempt; empty when none does."""
        return next((slot for slot, held in self.held.items() if held.attempt_id == attempt_id), "")

    @property
    def exhausted(self) -> bool:
        """Whether a slot that asks now can be sent home: nothing waits and nothing more is to come."""
        return not self.waiting and self.expected is not None and self.expected <= 0

    def submit(self, trial_id: str, *, is_needed: bool = True, proposal: str = "") -> None:
        """Queue a trial that is needed, unless it waits or runs already; it counts as an expected one either way.

        A `proposal` that is submitted again counts once: its submitter was lost with its node and started anew.
        """
        if self.expected is not None and proposal not in self.proposals:
            self.expected -= 1
        if proposal:
            self.proposals.add(proposal)
        is_held = any(held.trial_id == trial_id for held in self.held.values())
        if is_needed and not is_held and trial_id not in self.waiting:
            self.waiting.append(trial_id)

    def take(self, slot_id: str, attempt_id: str) -> str | None:
        """The next trial for a slot, now held by it; None when nothing waits."""
        if not self.waiting:
            return None
        trial_id = self.waiting.popleft()
        self.held[slot_id] = Held(trial_id=trial_id, attempt_id=attempt_id)
        return trial_id

    def put_back(self, slot_id: str) -> None:
        """Undo `take`: the slot does not run the trial after all, which is the next again."""
        self.waiting.appendleft(self.held.pop(slot_id).trial_id)

    def release(self, attempt_id: str) -> bool:
        """End an attempt; returns whether a slot held it."""
        for slot_id, held in self.held.items():
            if held.attempt_id == attempt_id:
                del self.held[slot_id]
                return True
        return False

    def retry(self, trial_id: str) -> bool:
        """Count a failure and queue the trial again, unless its retries are spent; returns whether it is queued."""
        self.failures[trial_id] = self.failures.get(trial_id, 0) + 1
        if self.failures[trial_id] > self.max_failures:
            return False
        self.waiting.appendleft(trial_id)
        return True
