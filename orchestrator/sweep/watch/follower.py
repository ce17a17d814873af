"""The driver's ear: carries the journal's events to the tracker and to whoever watches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from orchestrator.config import flatten
from orchestrator.config.models import RunConfig
from orchestrator.protocol.events import (
    AttemptStarted,
    Entry,
    GenerationDecided,
    Reported,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialExtended,
    TrialRevived,
)
from orchestrator.protocol.metrics import CPU_CORE_HOURS, DEVICE_HOURS, ENERGY_KWH, GPU_HOURS
from orchestrator.protocol.reports import Row
from orchestrator.sweep.core import SweepRecord, TrialRecord, apply, schedule_of, schedule_text
from orchestrator.sweep.space import TrialPlan, listed_point, make_trial
from orchestrator.tracking import Dataset, RunStatus, Tracker

POINT_PARAM = "sweep.point"
"""The MLflow parameter that holds a listed point's name."""
_STATUS: dict[str, RunStatus] = {
    "finished": RunStatus.FINISHED,
    "stopped": RunStatus.KILLED,
    "failed": RunStatus.FAILED,
}


class Observer(Protocol):
    """Watches a sweep; called in the driver, one event at a time."""

    def on_event(self, entry: Entry, record: SweepRecord) -> None:
        """An event was journaled; `record` already holds it."""
        ...

    def on_message(self, text: str) -> None:
        """Something happens that no event tells: data being packed, Ray starting, a stop asked for."""
        ...


@runtime_checkable
class OutageObserver(Observer, Protocol):
    """One that also shows, as long as it lasts, that calls wait for MLflow."""

    def on_waiting(self, text: str) -> None:
        """Calls wait, and why; empty once they are delivered."""
        ...


class Follower:
    """Folds events into a record of its own and passes them on."""

    def __init__(self, config: RunConfig, tracker: Tracker, observer: Observer) -> None:
        self.config, self.tracker, self.observer = config, tracker, observer
        self.record = SweepRecord()
        self.num_seen = 0
        self._waiting = ""
        self._left: set[str] = set()
        """Trials whose runs were closed with a sweep that was left before they ended."""

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take the next events, in order."""
        for entry in entries:
            apply(self.record, entry)
            self.num_seen += 1
            self._tell_tracker(entry)
            self.observer.on_event(entry, self.record)
        self._tell_waiting()

    def _tell_tracker(self, entry: Entry) -> None:
        """What an event means to the tracker; the others mean nothing to it."""
        match entry.event:
            case SweepStarted():
                self.tracker.log_dataset(None, self._dataset())
            case SweepEnded():
                self._leave(entry.time_ms)
            case GenerationDecided() as event:
                self._tag_schedules(event)
            case AttemptStarted() as event:
                self._attempt_started(self.record.trials[event.trial_id], entry.time_ms)
            case TrialExtended() as event:
                self._trial_extended(self.record.trials[event.trial_id], entry.time_ms)
            case TrialRevived() as event:
                self._trial_revived(self.record.trials[event.trial_id], entry.time_ms)
            case Reported() as event:
                self._log_report(event, entry.time_ms)
            case TrialEnded() as event:
                self._trial_ended(self.record.trials[event.trial_id], entry.time_ms)

    def _tell_waiting(self) -> None:
        links = self.tracker.links()
        calls = "1 call waits" if links.pending == 1 else f"{links.pending} calls wait"
        text = f"{calls} for MLflow: {links.problem}" if links.problem and links.pending else ""
        if text != self._waiting and isinstance(self.observer, OutageObserver):
            self.observer.on_waiting(text)
        self._waiting = text

    def _dataset(self) -> Dataset:
        data = self.record.data
        profile = {key: value for key, value in data.items() if key not in ("uri", "digest")}
        return Dataset(
            name=self.config.data.source,
            uri=str(data["uri"]),
            digest=str(data.get("digest", "")),
            profile=profile,
        )

    def _attempt_started(self, trial: TrialRecord, time_ms: int) -> None:
        if len(trial.attempts) == 1:  # the first; MLflow's start of a run cannot be moved afterwards
            self._open(trial, time_ms)
        elif trial.trial_id in self._left:
            self._restart(trial, time_ms)

    def _open(self, trial: TrialRecord, time_ms: int) -> None:
        """Make a trial's run, which starts at `time_ms`: when it got its workers, not when it was planned."""
        plan = make_trial(self.config, trial.point, trial.seed, trial.index)
        self._start(trial, plan, time_ms)
        self.tracker.log_dataset(trial.trial_id, self._dataset())
        settings = json.dumps(flatten(plan.config), indent=2).encode()
        self.tracker.log_artifact(trial.trial_id, "config.json", settings)

    def _trial_extended(self, trial: TrialRecord, time_ms: int) -> None:
        if trial.attempts and trial.state == "pending":
            self._restart(trial, time_ms)
            self.tracker.set_tags(
                trial.trial_id, {"orchestrator.state": "extended", "orchestrator.reason": ""}
            )

    def _trial_revived(self, trial: TrialRecord, time_ms: int) -> None:
        self._restart(trial, time_ms)
        self.tracker.set_tags(trial.trial_id, {"orchestrator.state": "revived", "orchestrator.reason": ""})

    def _restart(self, trial: TrialRecord, time_ms: int) -> None:
        self._left.discard(trial.trial_id)
        self._start(trial, make_trial(self.config, trial.point, trial.seed, trial.index), time_ms)

    def _start(self, trial: TrialRecord, plan: TrialPlan, time_ms: int) -> None:
        self.tracker.start_trial(
            trial.trial_id,
            name=f"{trial.index:03d} {trial.name}",
            # What was varied and nothing else: MLflow's contour plot starts with the first two numeric parameters.
            params={**self._varied(trial, plan), "train.seed": trial.seed},
            tags={
                "orchestrator.point": ", ".join(
                    f"{key}={value}" for key, value in trial.point.to_json().items()
                ),
                "orchestrator.seed": str(trial.seed),
            },
            time_ms=time_ms,
        )

    def _varied(self, trial: TrialRecord, plan: TrialPlan) -> Mapping[str, object]:
        """What tells a trial from the others: its point, a listed one's name first; else the whole configuration."""
        listed = listed_point(self.config, trial.point)
        if listed is not None:
            return {POINT_PARAM: listed.name, **trial.point}
        return trial.point or flatten(plan.config)

    def _log_report(self, event: Reported, time_ms: int) -> None:
        trial = self.record.trials[event.trial_id]
        costs = cost_row(trial, event.images, time_ms)
        self.tracker.log_rows(trial.trial_id, [*event.rows, costs])

    def _tag_schedules(self, event: GenerationDecided) -> None:
        for each in event.takeovers:
            text = schedule_text(self.config, schedule_of(self.record, each.trial_id))
            self.tracker.set_tags(each.trial_id, {"orchestrator.schedule": text})

    def _trial_ended(self, trial: TrialRecord, time_ms: int) -> None:
        if not trial.attempts:  # ended before it began, as by a cancelled sweep
            self._open(trial, time_ms)
        self.tracker.set_tags(
            trial.trial_id, {"orchestrator.state": trial.state, "orchestrator.reason": trial.reason}
        )
        self.tracker.finish_trial(trial.trial_id, _STATUS[trial.state], time_ms=time_ms)

    def _leave(self, time_ms: int) -> None:
        """Close the runs that nothing works on any more; a resumed sweep opens them again."""
        for trial in self.record.in_order():
            if trial.attempts and not trial.done:
                self._left.add(trial.trial_id)
                self.tracker.finish_trial(trial.trial_id, RunStatus.KILLED, time_ms=time_ms)


def cost_row(trial: TrialRecord, images: int, time_ms: int) -> Row:
    """What a trial has cost up to a report, as metrics."""
    hours = trial.hours
    metrics = {GPU_HOURS: hours.gpu, CPU_CORE_HOURS: hours.cpu_core, DEVICE_HOURS: hours.counted}
    if trial.energy_kwh is not None:
        metrics[ENERGY_KWH] = trial.energy_kwh
    return Row(images=images, timestamp_ms=time_ms, metrics=metrics)
