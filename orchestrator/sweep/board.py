"""The sweep's board: the one place where trials report and hear whether to go on.

A plain object, run as a Ray actor on the driver's node. It journals a report and its decision before it answers, so
that no trial acts on a decision that a crash could forget. Stopping is cooperative: a trial that is told to stop
writes its checkpoint and returns by itself, and its placement group goes with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.config.models import RunConfig
from orchestrator.storage import open_store
from orchestrator.sweep.journal import Journal
from orchestrator.sweep.record import SweepRecord, fold
from orchestrator.sweep.scheduler import decide_at_rung
from orchestrator.train.plan import plan_run
from orchestrator.train.reporting import Decision, TrialReport


class Board:
    """Journals what trials do and decides at the rungs."""

    def __init__(self, run_uri: str, config: RunConfig) -> None:
        self._journal = Journal(open_store(run_uri, config.storage))
        self._events: list[Mapping[str, Any]] = list(self._journal)
        self._record: SweepRecord = fold(self._events)
        self._metric, self._asha = config.sweep.metric, config.sweep.asha
        plan = plan_run(config)
        self._total_images = plan.images_at(plan.total_steps)
        self._stop_reason: str | None = None
        self._groups: dict[str, set[str]] = {}

    def append(self, kind: str, **fields: Any) -> None:
        """Journal an event of the driver's."""
        event = self._journal.append(kind, **fields)
        self._events.append(event)
        self._record.apply(event)

    def events(self, after: int = 0) -> list[Mapping[str, Any]]:
        """The events from number `after` on, counted from 0."""
        return self._events[after:]

    def record(self) -> SweepRecord:
        """The state of the sweep."""
        return self._record

    def stop_all(self, reason: str) -> None:
        """Ask every trial to checkpoint and return at its next report."""
        self._stop_reason = reason

    def plan_trial(
        self, trial_id: str, index: int | None, point: Mapping[str, Any], seed: int, name: str
    ) -> None:
        """Journal a trial once; planning it again has no effect. An `index` of None takes the next one."""
        if trial_id in self._record.trials:
            return
        self.append(
            "trial_planned",
            trial_id=trial_id,
            index=len(self._record.trials) if index is None else index,
            point=dict(point),
            seed=seed,
            name=name,
            total_images=self._total_images,
        )

    def attempt_started(
        self, trial_id: str, attempt_id: str, num_gpus: float, num_cpus: float
    ) -> tuple[str, list[str]]:
        """Open an attempt; returns the trial's state before it and the placement groups earlier attempts left."""
        state = self._record.trials[trial_id].state
        if not self._record.trials[trial_id].done and self._stop_reason is None:
            self.append(
                "attempt_started",
                trial_id=trial_id,
                attempt_id=attempt_id,
                num_gpus=num_gpus,
                num_cpus=num_cpus,
            )
        return ("interrupted" if self._stop_reason else state), sorted(self._groups.pop(trial_id, set()))

    def worker_started(self, trial_id: str, attempt_id: str, placement_group_id: str | None) -> None:
        """Remember a worker group's placement group, so that it can be freed should its trial die."""
        if placement_group_id is not None:
            self._groups.setdefault(trial_id, set()).add(placement_group_id)

    def attempt_ended(self, trial_id: str, attempt_id: str) -> None:
        """Close an attempt: its workers are gone."""
        self._groups.pop(trial_id, None)
        if attempt_id in self._record.trials[trial_id].attempts:
            self.append("attempt_ended", trial_id=trial_id, attempt_id=attempt_id)

    def trial_ended(self, trial_id: str, state: str, reason: str) -> None:
        """Journal how a trial ended; the first word stands."""
        if not self._record.trials[trial_id].done:
            self.append("trial_ended", trial_id=trial_id, state=state, reason=reason)

    def report(self, report: TrialReport, attempt_id: str) -> Decision:
        """Journal a report and answer it.

        A rung is decided once: a trial that reaches it again after a restart hears the same answer.
        """
        decision = self._decide(report)
        value = _last_value(report, self._metric)
        fields = report.to_json()
        if self._stop_reason is not None:
            fields["rung"] = None  # an interrupted rung is decided when the sweep goes on
        self.append(
            "report",
            attempt_id=attempt_id,
            value=value,
            action=decision.action,
            reason=decision.reason,
            **fields,
        )
        if report.final:
            self.trial_ended(report.trial_id, "finished", "")
        elif decision.action == "stop" and self._stop_reason is None:
            self.trial_ended(report.trial_id, "stopped", decision.reason)
        return decision

    def result(self, trial_id: str) -> dict[str, float]:
        """The newest value of every metric of a trial."""
        return dict(self._record.trials[trial_id].metrics)

    def _decide(self, report: TrialReport) -> Decision:
        if self._stop_reason is not None and not report.final:
            return Decision(action="stop", reason=self._stop_reason)
        if report.rung is None or self._asha is None:
            return Decision()
        earlier = self._record.trials[report.trial_id].decisions.get(report.rung)
        if earlier is not None:
            return Decision(action=earlier[0], reason=earlier[1])  # type: ignore[arg-type]
        return decide_at_rung(
            self._asha,
            rung=report.rung,
            trial_id=report.trial_id,
            value=_last_value(report, self._metric),
            recorded=self._record.rung_values(report.rung),
        )


def _last_value(report: TrialReport, metric: str) -> float:
    for row in reversed(report.rows):
        if metric in row.metrics:
            return row.metrics[metric]
    return math.nan
