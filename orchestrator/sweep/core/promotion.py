"""Successive halving in which trials wait at a rung: who goes on from there, and who is out. Pure, read off the record.

A trial that reaches a rung writes its checkpoint and gives its slot to one that has not begun. Once nothing else
waits for a slot, the best of those that have come to a rung go on: one in `reduction_factor`, counted over those that
have come, and at least one when nobody else can come; then the others are out. So where there is one slot every rung
sees all its trials before it decides, and where there are many none waits longer than the last trial of a rung takes.
Geometries are compared, by the mean over the seeds of each; all seeds of one go on, or none (within a bracket).
Called by the coordinator, which journals what comes out before anybody goes on.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), Algorithm 2.
Deviates: begins every trial before it promotes any, since the number of trials is given; the rest is that of its free
slots. One goes on from the last rung even where fewer than `reduction_factor` came to it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from orchestrator.config import first_seeds
from orchestrator.config.models import RunConfig
from orchestrator.protocol.point import Point
from orchestrator.sweep.core.record import SweepRecord, TrialRecord
from orchestrator.sweep.core.rungs import bracket_of, promotes, rungs_images


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a rung says of a trial that waits at it: goes on (`promoted`) or is out, and why."""

    trial_id: str
    rung: int
    promoted: bool
    reason: str


@dataclass
class _Geometry:
    """The trials of one point, and the mean of what they had at a rung."""

    trials: list[TrialRecord]
    rung: int

    @property
    def value(self) -> float:
        values = [trial.rungs[self.rung] for trial in self.trials if self.rung in trial.rungs]
        mean = sum(values) / len(values)
        return mean if math.isfinite(mean) else -math.inf


def waits(config: RunConfig, trial: TrialRecord) -> bool:
    """Whether a trial has come to a rung and has not heard yet whether it goes on."""
    return promotes(config.sweep) and not trial.done and bool(trial.waits_at)


def verdicts(config: RunConfig, record: SweepRecord, *, begins_more: bool = True) -> list[Verdict]:
    """What can be said now of trials that wait: who goes on, the lowest rung and the best first, and then who is out.

    `begins_more` false judges as if no trial would begin any more, as when the budget does not allow it.
    """
    asha = config.sweep.asha
    if asha is None or not promotes(config.sweep):
        return []
    found: list[Verdict] = []
    for bracket in range(asha.brackets):
        trials = [
            trial
            for trial in record.in_order()
            if trial.seed in first_seeds(config.sweep)
            and bracket_of(asha, trial.index) == bracket
            and (begins_more or trial.images or trial.attempts)
        ]
        out: set[str] = set()
        for rung in rungs_images(asha, config.train.images, bracket=bracket):
            for verdict in _at_rung(trials, rung, asha.reduction_factor, out):
                found.append(verdict)
                out |= set() if verdict.promoted else {verdict.trial_id}
    return sorted(found, key=lambda verdict: (not verdict.promoted, verdict.rung))


def _at_rung(trials: list[TrialRecord], rung: int, factor: int, out: Collection[str]) -> Iterator[Verdict]:
    """The verdicts of one rung; `out` are trials that a lower rung has just dropped."""

    def can_come(trial: TrialRecord) -> bool:
        is_over = trial.done or trial.trial_id in out
        return not is_over and rung not in trial.rungs and trial.images <= rung

    points: dict[Point, _Geometry] = {}
    for trial in trials:
        points.setdefault(trial.point, _Geometry([], rung)).trials.append(trial)
    come = [
        point
        for point in points.values()
        if any(rung in trial.rungs for trial in point.trials) and not any(map(can_come, point.trials))
    ]
    ranked = sorted(come, key=lambda point: -point.value)
    is_settled = not any(map(can_come, trials))
    share = len(ranked) // factor
    num_promoted = max(1, share) if is_settled else share
    for place, point in enumerate(ranked):
        promoted = place < num_promoted
        if not promoted and not is_settled:
            return
        which = "the mean over its seeds, " if len(point.trials) > 1 else ""
        said = "is among the" if promoted else "is below the"
        reason = f"{which}{point.value:.2f} at {rung:,} images, {said} best {num_promoted} of {len(ranked)}"
        for trial in point.trials:
            if not trial.done and trial.waits_at == rung:
                yield Verdict(trial_id=trial.trial_id, rung=rung, promoted=promoted, reason=reason)
