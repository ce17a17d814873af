"""`sweep.seeds: auto`: which geometries are trained under one more seed. A pure function of the record.

Every geometry starts with one seed. Those that cannot be told from the best get another, and so on, until the best
stands alone or `sweep.max_seeds` is reached. A geometry that has dropped out stays out. Decisions are journalled by the
caller, so that a sweep that goes on repeats them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import most_seeds
from orchestrator.config.models import RunConfig
from orchestrator.protocol.events import AskedTrial, SeedsAdded, SeedsSettled
from orchestrator.protocol.point import Point
from orchestrator.sweep.core.noise import ASSUMED_SEED_SD_POINTS, critical_range
from orchestrator.sweep.core.record import SweepRecord, TrialRecord
from orchestrator.text import counted

_LEAST_FREEDOM = 4
"""Degrees of freedom from which on the measured spread stands alone; below, the assumed one fills in."""


@dataclass(frozen=True, kw_only=True)
class SeedDecision:
    """One round: `trials` to run as (point, seed), none when the sweep is settled.

    Geometries are named by their trial under the first seed: `contenders` are in, `dropped` went out in this round.
    """

    trials: tuple[tuple[Point, int], ...]
    contenders: tuple[str, ...]
    dropped: tuple[str, ...]
    reason: str

    def event(self) -> SeedsAdded | SeedsSettled:
        """As the journal holds it."""
        if not self.trials:
            return SeedsSettled(reason=self.reason)
        return SeedsAdded(
            trials=tuple(AskedTrial(point=point, seed=seed) for point, seed in self.trials),
            contenders=self.contenders,
            dropped=self.dropped,
            reason=self.reason,
        )


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Geometries' means with the luck of their seeds taken out, and what a difference is uncertain by.

    Geometries and seeds add up in the model: trials under one seed share weights, data order and crops, so a geometry
    that ran under more seeds than another is compared with it fairly. `covariance_GG` is without the noise's variance.
    """

    means_G: NDArray[np.float64]
    covariance_GG: NDArray[np.float64]
    noise_sd: float
    freedom: float
    is_assumed: bool

    def standard_error(self, first: int, second: int) -> float:
        """Of the difference between two geometries, in points."""
        spread = self.covariance_GG
        variance = spread[first, first] + spread[second, second] - 2 * spread[first, second]
        return self.noise_sd * math.sqrt(max(0.0, float(variance)))


def fit_effects(values: Sequence[Mapping[int, float]]) -> Effects:
    """Least squares over every geometry's values by seed; each has one at least."""
    seeds = sorted({seed for group in values for seed in group})
    cells = [
        (place, seeds.index(seed), value)
        for place, group in enumerate(values)
        for seed, value in group.items()
    ]
    design = np.zeros((len(cells), len(values) + len(seeds) - 1))
    for row, (place, column, _) in enumerate(cells):
        design[row, place] = 1.0
        if column:
            design[row, len(values) + column - 1] = 1.0
    measured = np.array([value for *_, value in cells])
    spread = np.linalg.pinv(design.T @ design)
    fitted = spread @ design.T @ measured
    squares = float(((measured - design @ fitted) ** 2).sum())
    freedom = len(cells) - int(np.linalg.matrix_rank(design))
    missing = max(0, _LEAST_FREEDOM - freedom)
    variance = (squares + missing * ASSUMED_SEED_SD_POINTS**2) / (freedom + missing)
    return Effects(
        means_G=fitted[: len(values)],
        covariance_GG=np.asarray(spread[: len(values), : len(values)], dtype=np.float64),
        noise_sd=math.sqrt(variance),
        freedom=math.inf if freedom == 0 else max(freedom, _LEAST_FREEDOM),
        is_assumed=freedom == 0,
    )


def unfinished_round(record: SweepRecord) -> list[tuple[Point, int]]:
    """The trials that journalled rounds asked for and that have not ended: they come before any decision."""
    ended = {(trial.point, trial.seed) for trial in record.trials.values() if trial.done}
    asked = [(each.point, each.seed) for round_ in record.seed_rounds for each in round_.trials]
    return [(point, seed) for point, seed in asked if (point, seed) not in ended]


def next_seeds(config: RunConfig, record: SweepRecord) -> SeedDecision:
    """Who runs under one more seed, once every trial so far has ended."""
    metric, first = config.sweep.metric, most_seeds(config.sweep)[0]
    out = {trial_id for each in record.seed_rounds for trial_id in each.dropped}
    groups = [group for group in _by_point(record) if first in group and group[first].trial_id not in out]
    values = [
        {seed: trial.metrics[metric] for seed, trial in group.items() if _counts(trial, metric)}
        for group in groups
    ]
    known = [place for place, group in enumerate(values) if group]
    groups, values = [groups[place] for place in known], [values[place] for place in known]
    if not groups:
        return SeedDecision(trials=(), contenders=(), dropped=(), reason="no trial finished: no more seeds")
    effects = fit_effects(values)
    inside, largest_margin = _contending(effects)
    names = [group[first].trial_id for group in groups]
    trials = _next_level(config, [groups[place] for place in inside]) if len(inside) > 1 else ()
    return SeedDecision(
        trials=trials,
        contenders=tuple(names[place] for place in inside),
        dropped=tuple(name for place, name in enumerate(names) if place not in inside),
        reason=_reason(config, effects, len(inside), len(groups), largest_margin, trials),
    )


def _contending(effects: Effects) -> tuple[list[int], float]:
    """The places of those that cannot be told from the highest, and the largest lead that does not count."""
    best, count = int(effects.means_G.argmax()), len(effects.means_G)
    critical = critical_range(count, effects.freedom) if count > 1 else 0.0
    margins = [critical * effects.standard_error(best, place) for place in range(count)]
    inside = [
        place
        for place in range(count)
        if effects.means_G[best] - effects.means_G[place] <= margins[place] or place == best
    ]
    return inside, max(margins)


def _next_level(
    config: RunConfig, groups: Sequence[Mapping[int, TrialRecord]]
) -> tuple[tuple[Point, int], ...]:
    """The trials that bring every contender to the same number of seeds, or all of them to one more."""
    seeds = most_seeds(config.sweep)
    tried = [sum(seed in group for seed in seeds) for group in groups]
    level = max(tried) if min(tried) < max(tried) else max(tried) + 1
    return tuple(
        (next(iter(group.values())).point, seed)
        for seed in seeds[:level]
        for group in groups
        if seed not in group
    )


def _reason(
    config: RunConfig,
    effects: Effects,
    num_inside: int,
    num_all: int,
    margin: float,
    trials: Sequence[tuple[Point, int]],
) -> str:
    noise = f"a run's seed noise is {effects.noise_sd:.1f} points"
    noise += " (assumed: no geometry has two seeds)" if effects.is_assumed else ""
    if num_inside == 1:
        return f"the best stands alone: {noise}; no more seeds"
    tied = f"{num_inside} of {num_all} contenders are within {margin:.1f} points of the best, and {noise}"
    if not trials:
        return f"{tied}; all have sweep.max_seeds ({config.sweep.max_seeds}): no more seeds"
    return f"{tied}: {counted(len(trials), 'trial')} under further seeds"


def _by_point(record: SweepRecord) -> list[dict[int, TrialRecord]]:
    """The trials of every point by seed, points in the order they were planned."""
    groups: dict[Point, dict[int, TrialRecord]] = {}
    for trial in record.in_order():
        groups.setdefault(trial.point, {})[trial.seed] = trial
    return list(groups.values())


def _counts(trial: TrialRecord, metric: str) -> bool:
    return trial.state == "finished" and math.isfinite(trial.metrics.get(metric, math.nan))
