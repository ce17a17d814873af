"""The verdict: which geometry, how sure, at what cost. Pure statistics on trial summaries.

Only finished trials are ranked; a trial that was stopped early is compared at the images where it stopped and never
with a finished one. A winner is named only when it can be told from every other geometry and is better than the
encoder nobody trained. `sentences` puts a verdict into sentences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.protocol.hours import ShareHours
from orchestrator.protocol.intervals import Interval
from orchestrator.protocol.point import Point
from orchestrator.protocol.writing import FLAT
from orchestrator.report.statistics import (
    DEFAULT_TEST_IMAGES,
    Geometry,
    Noise,
    TrialSummary,
    accuracy_around,
    difference_error,
    difference_noise,
    estimate_noise,
    group_geometries,
    interval_factor,
    labels_of,
    mean_error,
    pool_noise,
)
from orchestrator.sweep.core import critical_range

_NOTABLE_SAVING = 0.1

SOLVED_PERCENT = 99.95
"""From here on an accuracy reads as 100.0 %."""

SolvedBy = Literal["untrained", "pixels", "both"]
Against = Literal["above", "level", "below", "unknown"]


@dataclass(frozen=True, kw_only=True)
class LabelResult:
    """One label of one geometry in per cent, and where it stands to the baselines beyond noise."""

    accuracy: float
    untrained: float
    pixels: float
    against_untrained: Against
    against_pixels: Against


@dataclass(frozen=True, kw_only=True)
class GeometryResult:
    """One geometry's place; `interval` is its mean's, `share` of a trial."""

    rank: int
    name: str
    point: Point
    trial_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    mean: float
    interval: Interval = field(metadata=FLAT)
    behind_best: float
    margin: float
    """How far behind the best it would have to be to be told from it."""
    tied: bool
    share: ShareHours = field(metadata=FLAT)
    images: int
    labels: Mapping[str, LabelResult]

    @property
    def beats_untrained(self) -> tuple[str, ...]:
        """Labels on which it is better than the untrained encoder beyond noise."""
        return tuple(name for name, label in self.labels.items() if label.against_untrained == "above")

    @property
    def beats_pixels(self) -> tuple[str, ...]:
        """Labels on which it is better than raw pixels beyond noise."""
        return tuple(name for name, label in self.labels.items() if label.against_pixels == "above")


@dataclass(frozen=True, kw_only=True)
class StoppedResult:
    """A trial that did not finish; `rivals_low` and `rivals_high` are the finished ones at the same images."""

    name: str
    trial_id: str
    seed: int
    state: str
    reason: str
    images: int
    value: float
    rivals_low: float
    rivals_high: float


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the highest gained over its untrained encoder, in points.

    `least` is what it must exceed to be more than luck (95 %, corrected for having picked the highest), `seeds` how
    many seeds each would show a gain as large as it seems; None when it is shown, or there is none to show.
    """

    points: float
    least: float
    seeds: int | None = None

    @property
    def is_shown(self) -> bool:
        """Whether it is more than luck."""
        return self.points > self.least


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What can be said about a sweep.

    `outcome` is "winner" (one geometry stands above all others), "tied", "alone" (a single geometry
    finished), "no_gain" (the best is not shown to be better than its untrained encoder) or "none" (nothing finished).
    """

    outcome: Literal["winner", "tied", "alone", "no_gain", "none"]
    metric: str
    ranking: tuple[GeometryResult, ...]
    noise: Noise | None
    """Spread of one run over seeds: what the intervals of means rest on."""
    difference_noise: Noise | None
    """The same for differences: paired by seed where the design allows."""
    stopped: tuple[StoppedResult, ...]
    seeds_to_separate: int | None
    """Seeds each that would separate the best two, were their means what they seem; None when they are apart."""
    unequal_images: bool
    gain: Gain | None = None
    """Of the highest over its untrained encoder; None where nobody measured that."""

    @property
    def solved(self) -> dict[str, SolvedBy]:
        """Labels of the metric that the untrained encoder or raw pixels tell apart without a fault, and which does."""
        labels = self.ranking[0].labels if self.ranking else {}
        found: dict[str, SolvedBy] = {}
        for name in labels_of(self.metric, sorted(labels)):
            untrained, pixels = (
                value >= SOLVED_PERCENT for value in (labels[name].untrained, labels[name].pixels)
            )
            if untrained or pixels:
                found[name] = "both" if untrained and pixels else "untrained" if untrained else "pixels"
        return found

    @property
    def ranks_nothing(self) -> bool:
        """Whether every label of the metric is told apart without learning: then no geometry can be better."""
        labels = self.ranking[0].labels if self.ranking else {}
        return bool(labels) and set(self.solved) == set(labels_of(self.metric, sorted(labels)))

    @property
    def best(self) -> GeometryResult | None:
        """The highest mean, crowned or not."""
        return self.ranking[0] if self.ranking else None

    @property
    def tied(self) -> tuple[GeometryResult, ...]:
        """The geometries that cannot be told from the best, itself among them."""
        return tuple(result for result in self.ranking if result.tied)

    @property
    def cheapest(self) -> GeometryResult | None:
        """The cheapest of the tied: fewest GPU hours, or CPU core hours where no GPU was used."""
        uses_gpus = any(result.share.has_gpus for result in self.ranking)
        return min(
            self.tied, key=lambda each: each.share.gpu if uses_gpus else each.share.cpu_core, default=None
        )

    @property
    def saves(self) -> bool:
        """Whether the cheapest of the tied costs notably less than the highest, by a tenth at least."""
        best, cheapest = self.best, self.cheapest
        return (
            best is not None
            and cheapest is not None
            and cheapest.share.counted <= (1 - _NOTABLE_SAVING) * best.share.counted
        )


def judge(trials: Sequence[TrialSummary], metric: str) -> Verdict:
    """The verdict on a sweep's trials."""
    geometries = group_geometries(trials)
    stopped = tuple(_stopped(trial, trials) for trial in trials if not trial.comparable)
    if not geometries:
        return Verdict(
            outcome="none",
            metric=metric,
            ranking=(),
            noise=None,
            difference_noise=None,
            stopped=stopped,
            seeds_to_separate=None,
            unequal_images=False,
        )
    noise, differences = estimate_noise(geometries), difference_noise(geometries)
    ranking = tuple(_ranked(rank, geometries, noise, differences, metric) for rank in range(len(geometries)))
    gain = _gain(geometries, metric)
    return Verdict(
        outcome=_outcome(ranking, gain),
        metric=metric,
        ranking=ranking,
        noise=noise,
        difference_noise=differences,
        stopped=stopped,
        seeds_to_separate=_seeds_to_separate(geometries, differences, ranking),
        unequal_images=len({result.images for result in ranking}) > 1,
        gain=gain,
    )


def _ranked(
    rank: int, geometries: Sequence[Geometry], noise: Noise, differences: Noise, metric: str
) -> GeometryResult:
    geometry, best = geometries[rank], geometries[0]
    half_width = interval_factor(noise.freedom) * mean_error(geometry, noise, metric)
    margin = 0.0
    if rank > 0:
        margin = critical_range(len(geometries), differences.freedom) * difference_error(
            best, geometry, differences, metric
        )
    behind = best.mean - geometry.mean
    return GeometryResult(
        rank=rank + 1,
        name=geometry.name,
        point=geometry.point,
        trial_ids=tuple(trial.trial_id for trial in geometry.trials),
        seeds=tuple(trial.seed for trial in geometry.trials),
        mean=geometry.mean,
        interval=accuracy_around(geometry.mean, half_width),
        behind_best=behind,
        margin=margin,
        tied=behind <= margin,
        share=geometry.share,
        images=max(trial.images for trial in geometry.trials),
        labels=_label_results(geometry, geometries),
    )


def _outcome(
    ranking: Sequence[GeometryResult], gain: Gain | None
) -> Literal["winner", "tied", "alone", "no_gain"]:
    if gain is not None and not gain.is_shown:
        return "no_gain"
    if len(ranking) == 1:
        return "alone"
    return "tied" if ranking[1].tied else "winner"


def _gain(geometries: Sequence[Geometry], metric: str) -> Gain | None:
    """What the best gained over its untrained encoder, and what luck alone may give; None where nobody measured it.

    Each run is set against the untrained encoder of its own seed, so the spread of the gains holds the baseline's too.
    The best was picked after looking: corrected for the number of geometries (Bonferroni).
    """
    gains = [[trial.value - trial.untrained_value for trial in each.trials] for each in geometries]
    points = sum(gains[0]) / len(gains[0])
    if not math.isfinite(points):
        return None
    noise = pool_noise([group for group in gains if all(map(math.isfinite, group))])
    least = interval_factor(noise.freedom, num_intervals=len(geometries)) * mean_error(
        geometries[0], noise, metric
    )
    if points > least or points <= 0:
        return Gain(points=points, least=least)
    standard = interval_factor(math.inf, num_intervals=len(geometries)) * noise.seed_sd / points
    return Gain(points=points, least=least, seeds=max(len(gains[0]) + 1, math.ceil(standard**2)))


def _label_results(geometry: Geometry, geometries: Sequence[Geometry]) -> dict[str, LabelResult]:
    labels = sorted({label for trial in geometry.trials for label in trial.accuracies})
    results = {}
    for label in labels:
        groups = [
            [trial.accuracies[label] for trial in each.trials if label in trial.accuracies]
            for each in geometries
        ]
        noise = pool_noise(groups)
        accuracy = geometry.label_mean("accuracies", label)
        untrained, pixels = geometry.label_mean("untrained", label), geometry.label_mean("pixels", label)
        results[label] = LabelResult(
            accuracy=accuracy,
            untrained=untrained,
            pixels=pixels,
            against_untrained=_against(geometry, label, untrained, noise, len(labels)),
            against_pixels=_against(geometry, label, pixels, noise, len(labels)),
        )
    return results


def _against(geometry: Geometry, label: str, baseline: float, noise: Noise, num_labels: int) -> Against:
    """Compare with a baseline beyond seed and test noise, corrected for the number of labels (Bonferroni)."""
    accuracy = geometry.label_mean("accuracies", label)
    if not (math.isfinite(accuracy) and math.isfinite(baseline)):
        return "unknown"
    num_images = max((len(trial.hits.get(label, ())) for trial in geometry.trials), default=0)
    shares = (accuracy / 100, baseline / 100)
    test = sum(share * (1 - share) for share in shares) / (num_images or DEFAULT_TEST_IMAGES) * 1e4
    error = math.sqrt(noise.seed_sd**2 / len(geometry.trials) + test)
    needed = interval_factor(noise.freedom, num_intervals=num_labels) * error
    difference = accuracy - baseline
    return "above" if difference > needed else "below" if difference < -needed else "level"


def _stopped(trial: TrialSummary, trials: Sequence[TrialSummary]) -> StoppedResult:
    """What a trial that did not finish had reached, beside the finished ones at the same images."""
    measured = [images for images in trial.curve if images > 0]
    at = max(measured, default=0)
    rivals = [other.curve[at] for other in trials if other.comparable and at in other.curve]
    return StoppedResult(
        name=f"{trial.title}, seed {trial.seed}" if trial.point else trial.name,
        trial_id=trial.trial_id,
        seed=trial.seed,
        state=trial.state,
        reason=trial.reason,
        images=trial.images,
        value=trial.curve.get(at, math.nan),
        rivals_low=min(rivals, default=math.nan) if at else math.nan,
        rivals_high=max(rivals, default=math.nan) if at else math.nan,
    )


def _seeds_to_separate(
    geometries: Sequence[Geometry], noise: Noise, ranking: Sequence[GeometryResult]
) -> int | None:
    """Seeds each after which the gap between the best two would exceed its margin; None when it does, or is nil."""
    if len(ranking) < 2 or not ranking[1].tied or ranking[1].behind_best <= 0:
        return None
    gap = ranking[1].behind_best
    standard = critical_range(len(geometries), math.inf) * noise.seed_sd * math.sqrt(2) / gap
    return max(2, math.ceil(standard**2))
