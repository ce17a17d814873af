"""A cluster in this process whose trials train in no time, and a journal that kills its driver at any event."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from orchestrator.config import dump
from orchestrator.config.models import RunConfig
from orchestrator.protocol.events import SweepStarted
from orchestrator.protocol.jobs import Outcome, TrialJob
from orchestrator.protocol.reports import Decision, Row, TrialReport
from orchestrator.storage import MemoryStore, Store
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.train.loop.plan import plan_run

METRIC = "probe/linear/mean"
BEST_RATE = 0.01


class Killed(Exception):
    """The driver dies."""


class Mortal(MemoryStore):
    """Kills its driver when the journal holds so many events."""

    limit = 10**9

    def create(self, key: str, data: bytes) -> bool:
        if key.startswith("journal/") and len(list(self.list("journal/"))) >= self.limit:
            raise Killed
        return super().create(key, data)


@dataclass
class Cluster:
    """Slots that train in no time: weights are one number, which grows the faster the nearer the rate is to the best.

    Checkpoints outlive the driver, as those on a disk do.
    """

    config: RunConfig
    num_slots: int = 2
    report: Callable[[TrialJob, int, float], dict[str, float]] = lambda job, images, weight: {METRIC: weight}
    outcome: Callable[[TrialJob, int], Outcome | None] = lambda job, images: None
    store: Store = field(default_factory=Mortal)
    checkpoints: dict[tuple[str, int], float] = field(default_factory=dict)

    def drive(self) -> SweepRecord:
        """Begin the sweep, or go on with it, to its end."""
        coordinator = Coordinator("memory", self.config, store=self.store, clock=lambda: 0.0)
        plans = plan_sweep(self.config).trials
        if not coordinator.record().sweep_id:
            facts = {"name": "s", "environment": {}, "data": {"uri": "u", "digest": "d"}, "notes": ()}
            coordinator.append(SweepStarted(sweep_id="s", config=dump(self.config), **facts))
        for plan in plans:
            coordinator.plan_trial(plan.trial_id, plan.index, plan.point, plan.seed, plan.name)
        for plan in plans:
            coordinator.submit(plan.trial_id, plan.index, plan.point, plan.seed, plan.name)
        coordinator.expect(0)
        slots = [f"slot-{number}" for number in range(self.num_slots)]
        for slot_id in slots:
            coordinator.slot_opened(slot_id, 0.0, 1.0)
        while slots:
            turns = {slot_id: coordinator.next_trial(slot_id) for slot_id in slots}
            slots = [slot_id for slot_id in slots if turns[slot_id].kind != "end"]
            for turn in turns.values():
                if turn.job is not None:
                    outcome = self._train(coordinator, turn.job, turn.attempt_id)
                    coordinator.attempt_ended(turn.job.trial_id, turn.attempt_id, outcome)
        return coordinator.record()

    def _train(self, coordinator: Coordinator, job: TrialJob, attempt_id: str) -> Outcome:
        plan = plan_run(job.config, job.rungs_images)
        own = [step for trial_id, step in self.checkpoints if trial_id == job.trial_id]
        step, weight = max(own, default=0), 0.0
        if job.inherits is not None and step <= job.inherits.step:
            step = job.inherits.step
            weight = self.checkpoints[job.inherits.trial_id, step]
        elif step:
            weight = self.checkpoints[job.trial_id, step]
            stop = plan.stop_at(step)
            assert stop is not None
            if (
                self._tell(
                    coordinator, job, attempt_id, step, weight, rung=stop.rung, final=stop.final
                ).action
                != "continue"
            ):
                return Outcome()
        gain = math.exp(-abs(math.log10(job.config.optimizer.learning_rate / BEST_RATE)))
        for at, stop in plan.stops_after(step).items():
            weight, step = weight + gain * (at - step), at
            failed = self.outcome(job, plan.images_at(at))
            if failed is not None:
                return failed
            if stop.checkpoint:
                self.checkpoints[job.trial_id, at] = weight
            if (
                self._tell(coordinator, job, attempt_id, at, weight, rung=stop.rung, final=stop.final).action
                != "continue"
            ):
                return Outcome()
        return Outcome()

    def _tell(
        self,
        coordinator: Coordinator,
        job: TrialJob,
        attempt_id: str,
        step: int,
        weight: float,
        *,
        rung: int | None,
        final: bool,
    ) -> Decision:
        images = step * job.config.train.batch_size
        row = Row(images=images, timestamp_ms=images, metrics=self.report(job, images, weight))
        report = TrialReport(trial_id=job.trial_id, images=images, rows=(row,), rung=rung, final=final)
        return coordinator.report(report, attempt_id)

    def killed_at(self, num_events: int) -> Cluster:
        """Drive until the journal holds so many events and the driver dies; the next one is left alone."""
        assert isinstance(self.store, Mortal)
        self.store.limit = num_events
        with pytest.raises(Killed):
            self.drive()
        self.store.limit = 10**9
        return self


def check_kills(
    make: Callable[[], Cluster], told: Callable[[SweepRecord], object], moments: Callable[[int], range]
) -> None:
    """A driver that is killed at each of `moments(number of events undisturbed)`, and goes on, comes to the same."""
    undisturbed = make()
    expected = told(undisturbed.drive())
    for moment in moments(len(list(undisturbed.store.list("journal/")))):
        assert told(make().killed_at(moment).drive()) == expected, f"killed at event {moment}"
