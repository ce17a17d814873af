"""The recorded curves of a sweep under another scheduler or budget: what would have been found, and for how much."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config import first_seeds, parse_config
from orchestrator.config.models import PROPOSING, RunConfig
from orchestrator.errors import ConfigError, Fault
from orchestrator.protocol.point import Point
from orchestrator.sweep.core import SweepRecord, TrialRecord, ledger_of
from orchestrator.sweep.foresight.simulate import SimulatedCluster, simulate
from orchestrator.sweep.journal import deciding_differences
from orchestrator.sweep.space import TrialPlan, config_at, make_trial, plan_sweep, units_of
from orchestrator.text import counted


class RecordedCurves:
    """What the trials of a sweep measured; a trial is recognised by its id, which is its point and seed."""

    def __init__(self, record: SweepRecord) -> None:
        self.record = record

    def metrics(self, trial: TrialPlan, images: int) -> Mapping[str, float]:
        """The newest values measured up to here; those of the end for a trial that was stopped before."""
        found: dict[str, float] = {}
        for at, metrics in sorted(self._recorded(trial).history.items()):
            if at > images:
                break
            found.update(metrics)
        return found

    def seconds(self, trial: TrialPlan, start_images: int, end_images: int) -> float:
        """At the pace of the recorded trial over its whole length."""
        recorded = self._recorded(trial)
        held_s = sum(attempt.seconds for attempt in recorded.attempts.values())
        return held_s / max(1, recorded.images) * (end_images - start_images)

    def _recorded(self, trial: TrialPlan) -> TrialRecord:
        return self.record.trials[trial.trial_id]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A replayed sweep beside the recorded one; values are the ranking metric, `rank` counts from 1."""

    record: SweepRecord
    recorded: SweepRecord
    metric: str
    hours: float
    recorded_hours: float
    device: str
    notes: tuple[str, ...]
    num_missing: int
    num_short: int

    @property
    def winner(self) -> TrialRecord | None:
        """The replayed sweep's best finished trial."""
        done = [trial for trial in self.record.trials.values() if trial.state == "finished"]
        return max(done, key=lambda trial: trial.metrics.get(self.metric, -math.inf), default=None)

    @property
    def rank(self) -> int | None:
        """Where the winner stands among all trials as they were recorded."""
        if self.winner is None:
            return None
        values = {
            key: trial.metrics.get(self.metric, -math.inf) for key, trial in self.recorded.trials.items()
        }
        own = values[self.winner.trial_id]
        return 1 + sum(value > own for value in values.values())

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {
            "hours": self.hours,
            "recorded_hours": self.recorded_hours,
            "device": self.device,
            "winner": None if self.winner is None else self.winner.trial_id,
            "rank_of_winner": self.rank,
            "states": {trial.trial_id: trial.state for trial in self.record.in_order()},
            "reasons": {trial.trial_id: trial.reason for trial in self.record.in_order() if trial.reason},
            "trials_not_recorded": self.num_missing,
            "trials_recorded_in_part": self.num_short,
            "notes": [*self.notes, *self.record.notes],
        }

    def text(self) -> str:
        """As lines for a person."""
        states = [trial.state for trial in self.record.in_order()]
        saved = 1 - self.hours / self.recorded_hours if self.recorded_hours else 0.0
        lines = [
            f"{counted(len(states), 'trial')}: "
            + ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
            f"{self.hours:.3f} {self.device} hours of trials, {self.recorded_hours:.3f} recorded "
            f"({100 * saved:.0f} % saved)",
        ]
        if self.winner is not None:
            lines.append(
                f"winner: {self.winner.name}, {self.metric} {self.winner.metrics[self.metric]:.1f}; "
                f"rank {self.rank} of {len(self.recorded.trials)} as recorded"
            )
        if self.num_missing:
            lines.append(
                f"note: never recorded, and left out: {counted(self.num_missing, 'trial')} of the file"
            )
        if self.num_short:
            lines.append(
                f"note: {counted(self.num_short, 'trial')} ended early when recorded; the last value is held"
            )
        return "\n".join([*lines, *(f"note: {note}" for note in (*self.notes, *self.record.notes))])


def replay_sweep(config: RunConfig, recorded: SweepRecord, *, num_slots: int) -> Replay:
    """Run the recorded trials that a configuration plans through its own rules.

    Raises:
        ConfigError: None of them was recorded, or they were trained otherwise than the configuration says.
    """
    if config.sweep.pbt is not None or recorded.generations:
        raise ConfigError(
            "a population cannot be replayed: its members go on from each other's weights, and what those would have "
            "come to under another decision was not recorded; replay a sweep without sweep.pbt"
        )
    is_proposed = config.sweep.search in PROPOSING
    planned = _as_proposed(config, recorded) if is_proposed else plan_sweep(config).trials
    known = [trial for trial in planned if recorded.trials.get(trial.trial_id, _NOBODY).images]
    if not known:
        ids = json.dumps([trial.name for trial in planned[:3]])
        raise ConfigError(f"{recorded.sweep_id} has no curve of any trial of this file, such as {ids}")
    _check_trained_alike(known, recorded)
    last = [next(reversed(recorded.trials[trial.trial_id].attempts.values())) for trial in known]
    cluster = SimulatedCluster(
        num_slots=num_slots,
        gpus_per_slot=last[0].num_gpus,
        cpus_per_slot=last[0].num_cpus,
        start_s=0.0,
    )
    measured = {trial_id for trial_id, trial in recorded.trials.items() if trial.images}
    record = simulate(config, known, RecordedCurves(recorded), cluster, recorded=measured)
    ran = [recorded.trials[trial_id] for trial_id in record.trials]
    replayed, spent = ledger_of(record, config.budget), ledger_of(recorded, config.budget)
    return Replay(
        record=record,
        recorded=recorded,
        metric=config.sweep.metric,
        hours=replayed.total.total - replayed.idle,
        recorded_hours=sum(spent.trials[trial.trial_id].total for trial in ran),
        device=spent.device,
        notes=_proposed_notes(config, recorded) if is_proposed else (),
        num_missing=len(planned) - len(known),
        num_short=sum(trial.images < trial.total_images for trial in ran),
    )


def _as_proposed(config: RunConfig, recorded: SweepRecord) -> list[TrialPlan]:
    """The trials of a proposing search as they were recorded, at most as many as it is to propose now."""
    seeds, limit = first_seeds(config.sweep), config.sweep.num_trials
    trials = [
        make_trial(config, trial.point, trial.seed, trial.index)
        for trial in recorded.in_order()
        if trial.seed in seeds and units_of(config.sweep.space, trial.point) is not None
    ]
    points = list(dict.fromkeys(trial.point for trial in trials))[:limit]
    return [trial for trial in trials if trial.point in points]


def _proposed_notes(config: RunConfig, recorded: SweepRecord) -> tuple[str, ...]:
    outside = sum(
        units_of(config.sweep.space, trial.point) is None
        for trial in recorded.trials.values()
        if trial.images
    )
    left_out = f"recorded trials outside the space of the file, which are left out: {outside}"
    return (_AS_PROPOSED, *([left_out] if outside else []))


def _check_trained_alike(trials: Sequence[TrialPlan], recorded: SweepRecord) -> None:
    """The trials were recorded under the very settings that are asked about, but for those that train nothing.

    Raises:
        ConfigError: They were not; every setting that differs is named.
    """
    started = parse_config(recorded.config_text, source=f"{recorded.sweep_id}/config.yaml")
    different: dict[str, tuple[object, object]] = {}
    for trial in trials:
        before = config_at(started, trial.point, trial.seed)
        different |= deciding_differences(before, trial.config)
    faults = [
        Fault(
            key=key,
            rule=f"was {json.dumps(before, default=str)} when {recorded.sweep_id} was recorded: its curves are no "
            "other setting's",
            given=json.dumps(now, default=str),
            remedy="leave it as it was; other rungs, seeds, health rules and budgets can be replayed",
        )
        for key, (before, now) in different.items()
    ]
    if faults:
        raise ConfigError(faults)


_AS_PROPOSED = (
    "the points are those that were proposed then; a search that hears of other values proposes others"
)
_NOBODY = TrialRecord(trial_id="", index=-1, point=Point({}), seed=0)
