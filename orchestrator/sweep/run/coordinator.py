"""The sweep's coordinator: the one place where slots get trials, trials report, and both hear whether to go on.

A plain object, run as a Ray actor on the driver's node. It journals a report and its decision before it answers, so
that no trial acts on a decision that a crash could forget. Stopping is cooperative: a trial that is told to stop
writes its checkpoint and returns by itself; its slot then takes the next.
"""

from __future__ import annotations

import functools
import math
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from jepa_core.settings import IJepaSettings
from orchestrator.config import dump, parse_config
from orchestrator.config.models import RunConfig
from orchestrator.errors import StorageError
from orchestrator.protocol.events import (
    AttemptEnded,
    AttemptStarted,
    BudgetExhausted,
    Entry,
    Event,
    Reported,
    RungDecided,
    SlotEnded,
    SlotResizing,
    SlotStarted,
    SweepExtended,
    SweepResumed,
    TrialEnd,
    TrialEnded,
    TrialExtended,
    TrialPlanned,
    TrialRevived,
)
from orchestrator.protocol.jobs import Assignment, Inheritance, Outcome, TrialJob
from orchestrator.protocol.metrics import MISSING
from orchestrator.protocol.point import Point
from orchestrator.protocol.reports import Decision, TrialReport
from orchestrator.storage import Store, open_store
from orchestrator.sweep.core import (
    BUDGET_REASON,
    STOPPED,
    SweepBudget,
    SweepRecord,
    TrialQueue,
    TrialRecord,
    Verdict,
    apply,
    bracket_of,
    decide_at_rung,
    fold_events,
    full_length_hours,
    generations,
    is_decided,
    judge_health,
    next_generation,
    promotes,
    promotion,
    trial_rungs,
    verdicts,
)
from orchestrator.sweep.journal import Journal
from orchestrator.sweep.run.clock import SteadyClock
from orchestrator.sweep.space import config_at
from orchestrator.train.loop import plan_run

_CONFIGS_KEPT = 256
"""Configurations of trials that are remembered: a trial's is asked for when it is planned, and at every attempt."""


class Coordinator:
    """Journals what trials do, hands them to slots and decides at the rungs."""

    def __init__(
        self,
        run_uri: str,
        config: RunConfig,
        shards_uri: str = "",
        *,
        evaluates_async: bool = False,
        store: Store | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`evaluates_async` says that the cluster has room for what `probe.beside` asks for."""
        self._run_uri, self._config, self._shards_uri = run_uri, config, shards_uri
        self._config_at = functools.lru_cache(_CONFIGS_KEPT)(functools.partial(config_at, config))
        self._clock = clock if clock is not None else SteadyClock()
        store = store if store is not None else open_store(run_uri, config.storage)
        self._journal = Journal(store, self._clock)
        self._journal.take_over()
        self._entries: list[Entry] = list(self._journal)
        self._record: SweepRecord = fold_events(self._entries)
        self._metric, self._asha = config.sweep.metric, config.sweep.asha
        self._evaluates_async = evaluates_async and config.probe.beside is not None
        self._budget = SweepBudget(config, self._record, self._clock, evaluates_async=self._evaluates_async)
        self._queue = TrialQueue(max_failures=config.train.max_failures)
        self._stop_reason: str | None = None
        self._groups: dict[str, set[str]] = {}
        self._progress: set[str] = set()
        self._paused: set[str] = set()
        self._resizing: set[str] = set()
        self._returning: set[str] = set()

    # The driver's side

    def append(self, event: Event) -> None:
        """Journal an event of the driver's."""
        entry = self._journal.append(event)
        for written in (*self._journal.take_found(), entry):
            self._entries.append(written)
            apply(self._record, written)

    def events(self, after: int = 0) -> list[Entry]:
        """The events from number `after` on, counted from 0."""
        return self._entries[after:]

    def record(self) -> SweepRecord:
        """The state of the sweep."""
        return self._record

    def stop_all(self, reason: str) -> None:
        """Ask every trial to checkpoint and return at its next report, and every slot to end."""
        self._stop_reason = reason

    def is_stopping(self) -> bool:
        """Whether the sweep was asked to stop, or cannot pay for more."""
        return self._stop_reason is not None

    def cancel_rest(self) -> None:
        """End every trial that is not done; their checkpoints stay."""
        for trial in self._record.in_order():
            self.trial_ended(trial.trial_id, "stopped", "cancelled")

    def expect(self, num_trials: int | None) -> None:
        """How many trials will still be submitted; slots end when the last has been taken. None: not known yet."""
        self._queue.expected = num_trials

    def plan_trial(self, trial_id: str, index: int | None, point: Point, seed: int, name: str) -> None:
        """Journal a trial once; planning it again has no effect. An `index` of None takes the next one."""
        if trial_id in self._record.trials:
            return
        plan = plan_run(self._config_at(point, seed))
        if index in {trial.index for trial in self._record.trials.values()}:
            index = None  # taken by a trial that was planned before the sweep was extended
        self.append(
            TrialPlanned(
                trial_id=trial_id,
                index=len(self._record.trials) if index is None else index,
                point=point,
                seed=seed,
                name=name,
                total_images=plan.images_at(plan.total_steps),
            )
        )

    def go_on(self, environment: Mapping[str, object], folder: str = "") -> None:
        """Journal that a sweep goes on, and under which configuration: it may hold more than the one before.

        `folder` is where the driver runs, from which the configuration's relative paths are meant.
        Where trials have become longer, finished ones go on from their checkpoint; one that was stopped stays so.
        """
        before = max(parse_config(self._record.config_text).train.images, *self._record.lengths, 0)
        self.append(SweepResumed(environment=dict(environment), config=dump(self._config), folder=folder))
        images = self._config.train.images
        if images > before:
            self.append(SweepExtended(before_images=before, train_images=images))
        for trial in self._record.in_order():
            plan = plan_run(self._config_at(trial.point, trial.seed))
            total_images = plan.images_at(plan.total_steps)
            if total_images > trial.total_images:
                self.append(TrialExtended(trial_id=trial.trial_id, total_images=total_images))
                if not trial.done and trial.trial_id not in self._queue.waiting:
                    self._queue.waiting.append(trial.trial_id)  # before what a search may propose

    def revive(self, trial_id: str) -> None:
        """Undo a stop: the trial goes on from its checkpoint when it is submitted, and no rule stops it again."""
        if self._record.trials[trial_id].state in STOPPED:
            self.append(TrialRevived(trial_id=trial_id))

    def submit(
        self,
        trial_id: str,
        index: int | None,
        point: Point,
        seed: int,
        name: str,
        proposal: str = "",
    ) -> None:
        """Plan a trial and have a slot run it; one that is done already is not run again.

        `proposal` names the search's asking for it, which is counted once however often it is repeated.
        """
        self.plan_trial(trial_id, index, point, seed, name)
        trial = self._record.trials[trial_id]
        is_needed = not trial.done and not self._waits(trial)
        self._queue.submit(trial_id, is_needed=is_needed, proposal=proposal)
        self._end_generation()

    def outcome(self, trial_id: str) -> float | None:
        """The ranking metric of a trial that is done or will not be run now; None while it waits or runs.

        A search must hear something of a trial that failed: the worst value that any trial has reached.
        """
        trial = self._record.trials[trial_id]
        if not trial.done and self._stop_reason is None:
            return None
        value = trial.metrics.get(self._metric, math.nan)
        if trial.state != "failed" and math.isfinite(value):
            return value
        values = [other.metrics.get(self._metric, math.nan) for other in self._record.trials.values()]
        return min((value for value in values if math.isfinite(value)), default=0.0)

    def hours(self, trial_id: str) -> float:
        """Device hours of a trial at its full length; for one that never reported, the most that any took."""
        own = full_length_hours(self._record, self._record.trials[trial_id])
        if math.isfinite(own):
            return own
        known = [full_length_hours(self._record, other) for other in self._record.trials.values()]
        return max((hours for hours in known if math.isfinite(hours)), default=0.0)

    # The slots' side

    def slot_opened(self, slot_id: str, num_gpus: float, num_cpus: float, *, num_workers: int = 1) -> None:
        """Resources are allocated to a slot from now on."""
        self._progress.discard(slot_id)
        self.append(
            SlotStarted(slot_id=slot_id, num_gpus=num_gpus, num_cpus=num_cpus, num_workers=num_workers)
        )

    def resize(self, slot_id: str, num_workers: int) -> bool:
        """Have a slot start again with another number of workers; returns whether it will.

        Its trial writes a checkpoint at its next report and returns. A slot that has not reported since it was opened
        is left alone, and so is any while another one is on its way: it may be about to take the same room.
        """
        if self._resizing or slot_id not in self._progress or self._stop_reason is not None:
            return False
        self._resizing.add(slot_id)
        self.append(SlotResizing(slot_id=slot_id, num_workers=num_workers))
        return True

    def starts_again(self, slot_id: str) -> bool:
        """Whether a slot that has ended without an error was to be resized and is wanted still."""
        if slot_id in self._resizing and self.slot_wanted()[0]:
            return True
        self._resizing.discard(slot_id)
        return False

    def slot_started(self, slot_id: str, placement_group_id: str | None) -> None:
        """A slot's workers are up, for the first time or again; a trial that it still holds was lost with them."""
        if placement_group_id is not None:
            self._groups.setdefault(slot_id, set()).add(placement_group_id)
        self._resizing.discard(slot_id)
        self._drop_held(slot_id, "its workers died")

    def slot_closed(self, slot_id: str, error: str = "") -> tuple[bool, list[str]]:
        """A slot's workers are gone for good.

        Returns whether any trial reported from it since it was opened, and the placement groups it may have left.
        """
        if error:
            self._resizing.discard(slot_id)
        self._drop_held(slot_id, error or "its workers died")
        self.append(SlotEnded(slot_id=slot_id, error=error))
        return slot_id in self._progress, sorted(self._groups.pop(slot_id, set()))

    def slot_failed(self, slot_id: str) -> None:
        """A slot's workers died and may be long in coming back: its trial goes to whichever slot is free."""
        self._drop_held(slot_id, "its workers died")

    def slot_wanted(self) -> tuple[bool, bool]:
        """Whether a slot that could not be placed yet would still find a trial, and whether another slot has one."""
        return self._stop_reason is None and not self._is_exhausted(), bool(self._queue.held)

    def next_trial(self, slot_id: str) -> Assignment[RunConfig]:
        """What a slot does next; a trial that it gets has its attempt opened."""
        if self._stop_reason is None and not self._queue.waiting:
            self._promote()
        if self._stop_reason is not None or self._is_exhausted() or slot_id in self._resizing:
            return Assignment(kind="end")
        if not self._can_start():
            # A slot costs while it waits; what the running trials may leave is for their own slots.
            return Assignment(kind="end")
        attempt_id = uuid.uuid4().hex[:8]
        trial_id = self._queue.take(slot_id, attempt_id)
        if trial_id is None:
            return Assignment(kind="wait")
        slot = self._record.slots.get(slot_id)
        try:
            self.append(
                AttemptStarted(
                    trial_id=trial_id,
                    attempt_id=attempt_id,
                    slot_id=slot_id,
                    num_gpus=slot.num_gpus if slot else 0.0,
                    num_cpus=slot.num_cpus if slot else 0.0,
                )
            )
        except StorageError:
            self._queue.put_back(slot_id)  # an attempt that was not journaled has not begun
            raise
        return Assignment(kind="run", job=self._job(trial_id), attempt_id=attempt_id)

    def attempt_ended(self, trial_id: str, attempt_id: str, outcome: Outcome) -> None:
        """Close an attempt and decide whether its trial is tried again; the first word on an attempt stands."""
        if not self._queue.release(attempt_id):
            return
        self.append(AttemptEnded(trial_id=trial_id, attempt_id=attempt_id, error=outcome.error))
        self._queue_again(trial_id, outcome)
        self._end_generation()

    def _queue_again(self, trial_id: str, outcome: Outcome) -> None:
        """Queue a trial whose attempt has ended, where it is to go on."""
        was_sent_back = trial_id in self._returning
        self._returning.discard(trial_id)
        trial = self._record.trials[trial_id]
        if trial.done or self._stop_reason is not None or self._waits(trial):
            return
        if trial_id in self._paused and not outcome.error:
            self._paused.discard(trial_id)
            self._queue.waiting.append(trial_id)
            return
        if was_sent_back and not outcome.error:
            self._queue.waiting.appendleft(trial_id)
            return
        if outcome.permanent or not self._queue.retry(trial_id):
            self.trial_ended(trial_id, "failed", outcome.error or "it returned before its end")

    def trial_ended(self, trial_id: str, state: TrialEnd, reason: str) -> None:
        """Journal how a trial ended; the first word stands."""
        if not self._record.trials[trial_id].done:
            self.append(TrialEnded(trial_id=trial_id, state=state, reason=reason))

    def report(self, report: TrialReport, attempt_id: str) -> Decision:
        """Journal a report and answer it.

        A rung is decided once: a trial that reaches it again after a restart hears the same answer. An attempt whose
        slot was given up, and which is not dead yet, is sent home: another one may run its trial by now.
        """
        if not self._queue.holds(attempt_id):
            return Decision(action="stop", reason="the attempt was given up")
        decision = self._decide(report)
        value = _value_at_end(report, self._metric)
        rung = report.rung
        if self._stop_reason is not None or (_is_missing(report) and self._config.sweep.pbt is None):
            rung = None  # an interrupted rung is decided when the sweep goes on
        if promotes(self._config.sweep) and decision.action == "stop":
            rung = None  # a trial beyond help would take the place of one that can go on
        self.append(Reported.of(report, decision, attempt_id=attempt_id, value=value, rung=rung))
        self._progress.add(self._queue.slot_of(attempt_id))
        if decision.action == "wait" and self._goes_straight_on(report.trial_id):
            decision = Decision()
        if report.final:
            self.trial_ended(report.trial_id, "finished", "")
        elif decision.action == "stop" and self._stop_reason is None:
            self.trial_ended(report.trial_id, "stopped", decision.reason)
        elif decision.action == "continue":
            decision = self._within_budget(report)
            if decision.action == "continue" and self._queue.slot_of(attempt_id) in self._resizing:
                self._returning.add(report.trial_id)
                return Decision(action="stop", reason="its slot starts again with more workers")
        return decision

    def _is_exhausted(self) -> bool:
        """Whether nothing waits for a slot, nor at a rung or the end of a generation, after which it might."""
        trials = self._record.trials.values()
        return self._queue.exhausted and not any(self._waits(trial) for trial in trials)

    def _waits(self, trial: TrialRecord) -> bool:
        """Whether a trial has come to a rung or to the end of a generation, and goes on from it later, if at all."""
        return generations.waits(self._config, self._record, trial) or promotion.waits(self._config, trial)

    def _promote(self) -> None:
        """Queue the best trial that may go on from the rung it waits at; end those that can no more."""
        best = self._best_waiting()
        if best is not None:
            # Queued first: where the event is lost on its way, the trial hears its verdict at the rung again.
            self._queue.waiting.append(best.trial_id)
            self._decide_rung(best)

    def _goes_straight_on(self, trial_id: str) -> bool:
        """Whether a trial that has come to a rung would be the next for its own slot; it is promoted then."""
        if self._queue.waiting or self._stop_reason is not None:
            return False
        best = self._best_waiting(but=trial_id)
        if best is None or best.trial_id != trial_id:
            return False
        self._decide_rung(best)
        return True

    def _best_waiting(self, *, but: str = "") -> Verdict | None:
        """The best trial that may go on from its rung and has left its slot, which `but` need not have.

        Those that can go on no more are ended.
        """
        found = verdicts(self._config, self._record)
        for each in found:
            if not each.promoted:
                self._decide_rung(each)
                self.trial_ended(each.trial_id, "stopped", each.reason)
        held = {held.trial_id for held in self._queue.held.values()} - {but}
        return next((each for each in found if each.promoted and each.trial_id not in held), None)

    def _decide_rung(self, verdict: Verdict) -> None:
        self.append(
            RungDecided(
                trial_id=verdict.trial_id,
                rung=verdict.rung,
                action="continue" if verdict.promoted else "stop",
                reason=verdict.reason,
            )
        )

    def _end_generation(self) -> None:
        """Decide a generation once every living member has reached its end and left its slot, and queue them again."""
        if self._stop_reason is not None or any(
            self._waits(self._record.trials[held.trial_id]) for held in self._queue.held.values()
        ):
            return
        decision = next_generation(self._config, self._record)
        if decision is None:
            return
        self.append(decision)
        self._queue.waiting.extend(trial.trial_id for trial in self._record.in_order() if not trial.done)

    def _can_start(self) -> bool:
        """Whether the next waiting trial can be paid; when it cannot and nothing runs, the sweep is over.

        Where trials wait at rungs, one of those may come first that can be paid.
        """
        waiting = self._queue.waiting
        if not waiting or self._can_pay(self._record.trials[waiting[0]], num_starts=1):
            return True
        if promotes(self._config.sweep) and self._makes_do():
            return True
        if not self._queue.held:
            self._exhaust()
        return False

    def _makes_do(self) -> bool:
        """Put a trial first that waits at a rung and can be paid, where the next one cannot.

        It is the best of those that may go on if no trial begins any more. When nothing runs and the reserve stands in
        the way of all, it is for the one that has come farthest.
        """
        held = {held.trial_id for held in self._queue.held.values()}
        for each in verdicts(self._config, self._record, begins_more=False):
            trial = self._record.trials[each.trial_id]
            if each.promoted and trial.trial_id not in held and self._can_pay(trial, num_starts=1):
                self._queue.waiting.appendleft(trial.trial_id)
                self._decide_rung(each)
                return True
        begun = [trial for trial in self._record.in_order() if trial.images and not trial.done]
        if held or not begun:
            return False
        trial = max(begun, key=lambda each: (each.images, each.metrics.get(self._metric, -math.inf)))
        if not self._can_pay(trial, num_starts=1, keeps_reserve=False):
            return False
        if trial.trial_id in self._queue.waiting:
            self._queue.waiting.remove(trial.trial_id)
        self._queue.waiting.appendleft(trial.trial_id)
        if self._waits(trial):
            reason = f"has come farthest, and {BUDGET_REASON[:-1]} is left for no other"
            self._decide_rung(
                Verdict(trial_id=trial.trial_id, rung=max(trial.rungs), promoted=True, reason=reason)
            )
        return True

    def _within_budget(self, report: TrialReport) -> Decision:
        """Whether a trial that may go on can be paid: up to its next report, and at a rung up to the next decision.

        One that cannot go on beyond its rung waits, with its checkpoint, for what the running ones may leave.
        """
        if not self._budget.can_pay_next_report():
            return Decision(action="stop", reason=self._exhaust())
        if report.rung is None or self._can_pay(self._record.trials[report.trial_id]):
            return Decision()
        self._paused.add(report.trial_id)
        return Decision(action="stop", reason=f"{BUDGET_REASON} waits for what the running trials leave")

    def _can_pay(self, trial: TrialRecord, *, num_starts: int = 0, keeps_reserve: bool = True) -> bool:
        running = [self._record.trials[held.trial_id] for held in self._queue.held.values()]
        return self._budget.can_pay(trial, running, num_starts=num_starts, keeps_reserve=keeps_reserve)

    def _exhaust(self) -> str:
        if self._stop_reason is None:
            self._stop_reason = self._budget.exhausted_reason
            self.append(BudgetExhausted(reason=self._stop_reason))
        return self._stop_reason

    def _drop_held(self, slot_id: str, error: str) -> None:
        held = self._queue.held.get(slot_id)
        if held is not None:
            self.attempt_ended(held.trial_id, held.attempt_id, Outcome(error=error))

    def _rungs(self, trial: TrialRecord) -> tuple[int, ...]:
        return trial_rungs(self._config, index=trial.index, seed=trial.seed)

    def _job(self, trial_id: str) -> TrialJob[RunConfig]:
        trial = self._record.trials[trial_id]
        config = self._config_of(trial)
        ended = self._record.generations[-1].images if self._record.generations else None
        return TrialJob(
            trial_id=trial_id,
            config=config,
            shards_uri=self._shards_uri,
            run_uri=self._run_uri,
            rungs_images=self._rungs(trial),
            shorter_images=tuple(self._record.lengths[:-1]),
            evaluates_async=self._evaluates_async,
            inherits=self._inheritance(trial),
            pinned_step=None if ended is None else -(-ended // config.train.batch_size),
        )

    def _config_of(self, trial: TrialRecord) -> RunConfig:
        """The sweep's configuration with what a trial goes on under."""
        return self._config_at(trial.settings, trial.seed)

    def _inheritance(self, trial: TrialRecord) -> Inheritance[RunConfig] | None:
        """The weights that a trial took over last, with the settings that they were trained under."""
        if not trial.takeovers:
            return None
        last = trial.takeovers[-1]
        parent = self._record.trials[last.parent]
        config = self._config_at(parent.settings_before(last.images), parent.seed)
        return Inheritance(
            trial_id=last.parent, step=-(-last.images // config.train.batch_size), config=config
        )

    def _decide(self, report: TrialReport) -> Decision:
        if self._stop_reason is not None and not report.final:
            return Decision(action="stop", reason=self._stop_reason)
        trial = self._record.trials[report.trial_id]
        unhealthy = None if trial.revived else self._judge(report, trial)
        if unhealthy is not None:
            return Decision(action="stop", reason=unhealthy)
        if report.rung is not None and self._config.sweep.pbt is not None:
            if is_decided(self._record, report.rung):
                return Decision()
            return Decision(
                action="wait", reason="its generation ends: it goes on when the others have come as far"
            )
        if report.rung is None or self._asha is None or trial.revived or _is_missing(report):
            return Decision()
        earlier = trial.decisions.get(report.rung)
        if earlier is not None:
            return Decision(action=earlier[0], reason=earlier[1])
        value = _value_at_end(report, self._metric)
        if promotes(self._config.sweep) and not math.isnan(value):
            return Decision(action="wait", reason="it goes on if it is among the best that come to this rung")
        return decide_at_rung(
            self._asha,
            rung=report.rung,
            trial_id=report.trial_id,
            value=value,
            recorded={
                other.trial_id: other.rungs[report.rung]
                for other in self._record.trials.values()
                if report.rung in other.rungs
                and bracket_of(self._asha, other.index) == bracket_of(self._asha, trial.index)
            },
        )

    def _judge(self, report: TrialReport, trial: TrialRecord) -> str | None:
        """Why a trial is beyond help, with this report in its history."""
        if report.final:
            return None
        objective = self._config_of(trial).objective
        history = {images: dict(metrics) for images, metrics in trial.history.items()}
        for row in report.rows:
            history[row.images] = {**row.metrics, **history.get(row.images, {})}
        return judge_health(
            history,
            total_images=trial.total_images,
            settings=self._config.health,
            has_scaled_targets=isinstance(objective, IJepaSettings) and objective.target_norm != "none",
        )


def _value_at_end(report: TrialReport, metric: str) -> float:
    """The metric at the report's own images; a row of an earlier evaluation, which came late, is none of it."""
    rows = [row for row in report.rows if row.images == report.images and metric in row.metrics]
    return rows[-1].metrics[metric] if rows else math.nan


def _is_missing(report: TrialReport) -> bool:
    """Whether the evaluation of this very point failed for good; no rung is decided on it."""
    return any(row.images == report.images and row.metrics.get(MISSING) for row in report.rows)


if TYPE_CHECKING:
    from orchestrator.sweep.client import CoordinatorCalls

    _CALLS: type[CoordinatorCalls] = Coordinator  # what the client calls is here, with the same arguments
