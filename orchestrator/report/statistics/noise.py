"""How much two geometries differ by chance: seed noise and test-set noise. Pure.

With several seeds of a geometry the spread between them is pooled over the geometries, and Student's
distribution carries how well it is known; that spread already holds the noise of the test images on which
two runs disagree. With one seed each, the spread is an assumption and is said to be one. Differences are
judged with the studentized range (Tukey-Kramer), which allows for picking the best of many after the fact:
when all geometries are equal, some pair is called different in at most 5 of 100 sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from orchestrator.protocol.intervals import Interval
from orchestrator.report.statistics.trials import Geometry, TrialSummary
from orchestrator.sweep.core import ASSUMED_SEED_SD_POINTS, CONFIDENCE

_LEAST_PAIRED_FREEDOM = 4
DEFAULT_TEST_IMAGES = 1000
"""Taken for the test set's size where no trial says which images it got right."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Spread of the ranking metric over seeds, in points; `freedom` is infinite for an assumption."""

    seed_sd: float
    freedom: float
    assumed: bool
    paired: bool = False
    """Whether the part of a seed's luck that all geometries share is taken out: for differences, not for means."""


def estimate_noise(geometries: Sequence[Geometry]) -> Noise:
    """The noise of the ranking metric."""
    return pool_noise([[trial.value for trial in geometry.trials] for geometry in geometries])


def difference_noise(geometries: Sequence[Geometry]) -> Noise:
    """The noise of differences between geometries, paired by seed where every geometry ran under the same seeds."""
    return pool_differences([{trial.seed: trial.value for trial in each.trials} for each in geometries])


def pool_differences(groups: Sequence[Mapping[int, float]]) -> Noise:
    """Pool what is left of values by seed once geometry and seed are accounted for (two-way residuals).

    Runs under one seed share initial weights and data order, so part of their luck is common and drops out of a
    difference. Whether to pair is decided by the design alone, never by the values, so that error rates hold.
    """
    seeds = {tuple(sorted(group)) for group in groups}
    freedom = (len(groups) - 1) * (len(next(iter(seeds))) - 1) if len(seeds) == 1 else 0
    if freedom < _LEAST_PAIRED_FREEDOM:
        return pool_noise([list(group.values()) for group in groups])
    values_GS = np.array([[group[seed] for seed in next(iter(seeds))] for group in groups])
    rest = values_GS - values_GS.mean(axis=1, keepdims=True) - values_GS.mean(axis=0) + values_GS.mean()
    deviation = math.sqrt(float((rest**2).sum()) / freedom)
    return Noise(seed_sd=deviation, freedom=freedom, assumed=False, paired=True)


def pool_noise(groups: Sequence[Sequence[float]]) -> Noise:
    """Pool the spread inside groups of equal configuration, or assume one when no group has two values."""
    freedom = sum(len(group) - 1 for group in groups if group)
    if freedom == 0:
        return Noise(seed_sd=ASSUMED_SEED_SD_POINTS, freedom=math.inf, assumed=True)
    squares = sum(float(np.var(group)) * len(group) for group in groups if group)
    return Noise(seed_sd=math.sqrt(squares / freedom), freedom=freedom, assumed=False)


def difference_error(first: Geometry, second: Geometry, noise: Noise, metric: str) -> float:
    """Standard error of the difference of two means, in points.

    An assumed seed noise knows nothing of the test set, so the test images' noise is added; a measured one holds it
    already, and is raised where two geometries are known to disagree on more images than their own seeds do.
    """
    seeds = noise.seed_sd**2 * (1 / len(first.trials) + 1 / len(second.trials))
    images = paired_variance(first, second, metric)
    if not noise.assumed:
        return math.sqrt(max(seeds, images or 0.0))
    if images is None:
        images = _binomial_variance(first.trials, metric) + _binomial_variance(second.trials, metric)
    return math.sqrt(seeds + images)


def mean_error(geometry: Geometry, noise: Noise, metric: str) -> float:
    """Standard error of one geometry's mean, in points."""
    seeds = noise.seed_sd**2 / len(geometry.trials)
    if not noise.assumed:
        return math.sqrt(seeds)
    return math.sqrt(seeds + _binomial_variance(geometry.trials, metric))


def paired_variance(first: Geometry, second: Geometry, metric: str) -> float | None:
    """Variance of a difference due to the choice of test images, in points squared.

    None unless both sides know which images they got right.
    """
    ours, theirs = _scores(first.trials, metric), _scores(second.trials, metric)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return None
    return float(np.var(100 * (ours - theirs), ddof=1) / len(ours))


def interval_factor(freedom: float, *, num_intervals: int = 1) -> float:
    """Half-width in standard errors of intervals that hold together with 95 % (Bonferroni)."""
    return float(stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * max(1, num_intervals)), min(freedom, 10_000.0)))


def accuracy_around(mean: float, half_width: float) -> Interval:
    """An accuracy's interval in per cent, cut to what an accuracy can have; the half-width is for 95 %."""
    return Interval.around(mean, half_width, CONFIDENCE).within(0.0, 100.0)


def difference_around(points: float, half_width: float, level: float = CONFIDENCE) -> Interval:
    """The same for a difference of accuracies in points, -100 to 100; one that is not known stays infinite."""
    found = Interval.around(points, half_width, level)
    return found.within(-100.0, 100.0) if found.is_known else found


def labels_of(metric: str, available: Sequence[str]) -> list[str]:
    """The labels that a metric is an average of."""
    name = metric.rsplit("/", 1)[-1]
    return [name] if name in available else list(available)


def _scores(trials: Sequence[TrialSummary], metric: str) -> np.ndarray | None:
    """The share of labels got right, for each test image, averaged over seeds; None when any is unknown."""
    scores = []
    for trial in trials:
        hits = [trial.hits[label] for label in labels_of(metric, sorted(trial.hits))]
        if not hits or len({len(values) for values in hits}) != 1 or len(hits[0]) < 2:
            return None
        scores.append(np.mean([values.astype(np.float64) for values in hits], axis=0))
    if len({len(values) for values in scores}) != 1:
        return None
    average: np.ndarray = np.mean(scores, axis=0)
    return average


def _binomial_variance(trials: Sequence[TrialSummary], metric: str) -> float:
    """Upper bound on one mean's variance from the test images, when only accuracies are known."""
    variances = []
    for trial in trials:
        for label in labels_of(metric, sorted(trial.accuracies)):
            share = trial.accuracies[label] / 100
            num_images = len(trial.hits.get(label, ())) or DEFAULT_TEST_IMAGES
            variances.append(share * (1 - share) / num_images * 1e4)
    return max(variances, default=0.0)
