"""A sweep without training: recorded or made-up curves run through the real coordinator on a clock of our own.

The journal is in memory, the decisions are the coordinator's, and a sweep of days takes seconds. So a lab can choose
its scheduler and budget before it spends anything, and the rules are tested as a whole.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.config import dump
from orchestrator.config.models import RunConfig
from orchestrator.protocol.events import SeedsSettled, SweepEnded, SweepStarted
from orchestrator.protocol.jobs import Outcome
from orchestrator.protocol.point import Point
from orchestrator.protocol.reports import Row, TrialReport
from orchestrator.storage import MemoryStore, Store
from orchestrator.sweep.core import SweepRecord, next_seeds, trial_rungs, unfinished_round
from orchestrator.sweep.run import Coordinator
from orchestrator.sweep.space import TrialPlan, make_trial
from orchestrator.text import counted
from orchestrator.train.loop import RunPlan, plan_run

_WAIT_S = 1.0


class Curves(Protocol):
    """What trials would have measured, and how long it would have taken."""

    def metrics(self, trial: TrialPlan, images: int) -> Mapping[str, float]:
        """The metrics of a trial after this many images."""
        ...

    def seconds(self, trial: TrialPlan, start_images: int, end_images: int) -> float:
        """The time a slot takes to train a trial from one point to another, probes and checkpoints included."""
        ...


@dataclass(frozen=True, kw_only=True)
class SimulatedCluster:
    """The slots of a simulated sweep; `start_s` is what starting a worker group takes."""

    num_slots: int
    gpus_per_slot: float = 1.0
    cpus_per_slot: float = 1.0
    start_s: float = 15.0


@dataclass
class _Slot:
    slot_id: str
    trial: TrialPlan | None = None
    attempt_id: str = ""
    step: int = 0


@dataclass
class _Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class _Simulation:
    config: RunConfig
    trials: dict[str, TrialPlan]
    curves: Curves
    coordinator: Coordinator
    clock: _Clock
    recorded: Container[str] | None = None
    num_running: int = 0
    queue: list[tuple[float, int, _Slot]] = field(default_factory=list)
    plans: dict[str, RunPlan] = field(default_factory=dict)

    def later(self, after_s: float, slot: _Slot) -> None:
        heapq.heappush(self.queue, (self.clock.now_s + after_s, int(slot.slot_id[5:]), slot))

    def run(self) -> None:
        while self.queue:
            self.clock.now_s, _, slot = heapq.heappop(self.queue)
            if slot.trial is None:
                self._take(slot)
            else:
                self._report(slot, slot.trial)

    def _take(self, slot: _Slot) -> None:
        assignment = self.coordinator.next_trial(slot.slot_id)
        if assignment.kind == "end":
            self.coordinator.slot_closed(slot.slot_id)
        elif assignment.job is None:
            if not self.num_running:
                self._add_seeds()
            self.later(_WAIT_S, slot)
        else:
            slot.trial = self.trials[assignment.job.trial_id]
            slot.attempt_id = assignment.attempt_id
            self.num_running += 1
            plan = self._plan(slot.trial)
            slot.step = self.coordinator.record().trials[slot.trial.trial_id].images // plan.batch_size
            self._advance(slot, slot.trial)

    def _add_seeds(self) -> None:
        """What the driver does under `sweep.seeds: auto` once every trial has ended."""
        record = self.coordinator.record()
        trials = self._known(unfinished_round(record))
        if not trials:
            decision = next_seeds(self.config, record)
            trials = self._known(decision.trials)
            missing = len(decision.trials) - len(trials)
            if not trials:
                never = f"; never recorded: {counted(missing, 'trial')}" if missing else ""
                self.coordinator.append(SeedsSettled(reason=decision.reason + never))
                self.coordinator.expect(0)
                return
            self.coordinator.append(decision.event())
        for trial in trials:
            self.trials[trial.trial_id] = trial
            self.coordinator.submit(trial.trial_id, trial.index, trial.point, trial.seed, trial.name)

    def _known(self, asked: Sequence[tuple[Point, int]]) -> list[TrialPlan]:
        """The trials that are asked for and have curves that can be replayed."""
        first = len(self.coordinator.record().trials)
        trials = [
            make_trial(self.config, point, seed, first + place) for place, (point, seed) in enumerate(asked)
        ]
        return [
            trial
            for trial in trials
            if (self.recorded is None or trial.trial_id in self.recorded)
            and not getattr(self.coordinator.record().trials.get(trial.trial_id), "done", False)
        ]

    def _advance(self, slot: _Slot, trial: TrialPlan) -> None:
        plan = self._plan(trial)
        before = slot.step
        slot.step = min(plan.stops_after(before))
        self.later(self.curves.seconds(trial, plan.images_at(before), plan.images_at(slot.step)), slot)

    def _report(self, slot: _Slot, trial: TrialPlan) -> None:
        plan = self._plan(trial)
        stop = plan.stop_at(slot.step)
        assert stop is not None
        images = plan.images_at(slot.step)
        row = Row(
            images=images,
            timestamp_ms=int(1000 * self.clock.now_s),
            metrics=self.curves.metrics(trial, images),
        )
        report = TrialReport(
            trial_id=trial.trial_id, images=images, rows=(row,), rung=stop.rung, final=stop.final
        )
        decision = self.coordinator.report(report, slot.attempt_id)
        if decision.action == "continue" and not stop.final:
            self._advance(slot, trial)
            return
        self.coordinator.attempt_ended(trial.trial_id, slot.attempt_id, Outcome())
        slot.trial = None
        self.num_running -= 1
        self.later(0.0, slot)

    def _plan(self, trial: TrialPlan) -> RunPlan:
        if trial.trial_id not in self.plans:
            recorded = self.coordinator.record().trials[trial.trial_id]
            rungs = trial_rungs(self.config, index=recorded.index, seed=trial.seed)
            self.plans[trial.trial_id] = plan_run(trial.config, rungs)
        return self.plans[trial.trial_id]


def simulate(
    config: RunConfig,
    trials: Sequence[TrialPlan],
    curves: Curves,
    cluster: SimulatedCluster,
    *,
    store: Store | None = None,
    recorded: Container[str] | None = None,
) -> SweepRecord:
    """Run trials, in their order, through the rungs, health rules and budget of a configuration.

    The journal goes to `store`, or to memory. `recorded` holds the ids of the trials that `curves` knows, where it does
    not know all that `sweep.seeds: auto` may ask for.
    """
    clock = _Clock()
    coordinator = Coordinator(
        "memory", config, store=store if store is not None else MemoryStore(), clock=clock
    )
    coordinator.append(
        SweepStarted(
            sweep_id="simulated",
            name=config.name,
            config=dump(config),
            environment={},
            data={},
            notes=(),
        )
    )
    coordinator.expect(None if config.sweep.seeds == "auto" else len(trials))
    for trial in trials:
        coordinator.submit(trial.trial_id, trial.index, trial.point, trial.seed, trial.name)
    known = {trial.trial_id: trial for trial in trials}
    run = _Simulation(config, known, curves, coordinator, clock, recorded)
    for number in range(cluster.num_slots):
        slot = _Slot(f"slot-{number}")
        coordinator.slot_opened(slot.slot_id, cluster.gpus_per_slot, cluster.cpus_per_slot)
        run.later(cluster.start_s, slot)
    run.run()
    coordinator.append(SweepEnded(state="finished"))
    return coordinator.record()
