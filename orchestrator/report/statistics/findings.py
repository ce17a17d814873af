"""What a response surface says: where the best geometry lies, which axes matter, where to look next.

Pure: takes coordinates and values, gives plain values. `explore` is called by the summary; words and pictures of it are
`report.words` and `report.page.surface_plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import norm, qmc

from orchestrator.config.models import RunConfig
from orchestrator.config.space import build_point
from orchestrator.errors import OrchestratorError
from orchestrator.protocol.intervals import Interval
from orchestrator.protocol.point import Point, middle_of, value_key
from orchestrator.protocol.writing import FLAT
from orchestrator.report.statistics.noise import Noise
from orchestrator.report.statistics.realised import (
    AxisChoice,
    SurfaceAxis,
    choose_axes,
    geometry_figures,
    realised_figures,
)
from orchestrator.report.statistics.surface import LEVEL, Array, Surface, fit_surface
from orchestrator.report.statistics.trials import Geometry

_MIN_GEOMETRIES = 5
_LEVELS = 7
_OTHERS = 32
_CANDIDATES = 160
_SUGGESTIONS = 3
_BEYOND = 0.15
_APART = 0.15
_Z = float(norm.ppf(0.5 + LEVEL / 2))


@dataclass(frozen=True, kw_only=True)
class AxisImportance:
    """How much an axis matters: the difference that going along it makes, averaged over the other axes, in points.

    `better_at` is the figure at which the surface is highest. `matters` tells whether the interval leaves out 0.
    """

    name: str
    effect: float
    interval: Interval = field(metadata=FLAT)
    better_at: float
    worse_at: float
    share: float
    """Of the surface's variance that the axes explain one by one, from 0 to 1."""

    @property
    def matters(self) -> bool:
        """Whether the effect is more than noise."""
        return self.interval.low > 0


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A point to try next, with what the surface expects there and what it would cost."""

    name: str
    point: Point
    figures: Mapping[str, float]
    mean: float
    interval: Interval = field(metadata=FLAT)
    chance_of_better: float
    """That its surface is above that of the best geometry so far."""
    device_hours: float
    beyond: tuple[str, ...]
    """Swept keys whose range it leaves."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """A surface over a sweep's geometries and what was read off it."""

    choice: AxisChoice
    surface: Surface
    cost: Surface | None
    """Logarithm of a trial's device hours over the same axes; None when costs are not known."""
    places_GD: Array
    means_G: Array
    names: tuple[str, ...]
    images: int
    best_figures: Mapping[str, float]
    best_mean: float
    best_interval: Interval
    importance: tuple[AxisImportance, ...]
    suggestions: tuple[Suggestion, ...]
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Realised figures by geometry."""


def accuracy_mean(surface: Surface, places_QD: Array) -> Array:
    """What a surface of accuracies expects, within 0 to 100: between points it may overshoot."""
    return surface.mean_and_sd(places_QD)[0].clip(0.0, 100.0)


def accuracy_interval(surface: Surface, places_QD: Array) -> tuple[Array, Array]:
    """The interval of a surface of accuracies, cut to the values that an accuracy can have: 0 to 100."""
    low, high = surface.interval(places_QD)
    return low.clip(0.0, 100.0), high.clip(0.0, 100.0)


def _interval_at(surface: Surface, place_D: Array) -> Interval:
    low, high = accuracy_interval(surface, place_D[None])
    return Interval(low=float(low[0]), high=float(high[0]), level=LEVEL)


def explore(config: RunConfig, geometries: Sequence[Geometry], noise: Noise) -> Findings | None:
    """Fit a surface to the finished geometries; None when fewer than five, or nothing moved."""
    if len(geometries) < _MIN_GEOMETRIES:
        return None
    figures = [_figures_or_none(config, geometry) for geometry in geometries]
    known = [(g, f) for g, f in zip(geometries, figures, strict=True) if f is not None]
    choice = choose_axes([f for _, f in known])
    if len(known) < _MIN_GEOMETRIES or not choice.axes:
        return None
    places = np.array([choice.coordinates(f) for _, f in known])
    surface = _fit(places, [g for g, _ in known], noise)
    cost = _fit_cost(places, [g for g, _ in known])
    mean, _ = surface.mean_and_sd(places)
    top = int(mean.argmax())
    return Findings(
        choice=choice,
        surface=surface,
        cost=cost,
        places_GD=places,
        means_G=np.array([g.mean for g, _ in known]),
        names=tuple(g.name for g, _ in known),
        images=max(trial.images for g, _ in known for trial in g.trials),
        best_figures=known[top][1],
        best_mean=float(mean[top].clip(0.0, 100.0)),
        best_interval=_interval_at(surface, places[top]),
        importance=rank_axes(surface, choice.axes, places),
        suggestions=suggest(config, choice, surface, cost, places, [g.point for g, _ in known]),
        figures={g.name: f for g, f in known},
    )


def _figures_or_none(config: RunConfig, geometry: Geometry) -> dict[str, float] | None:
    """The figures, or None for a geometry that this version can no longer sample."""
    try:
        return geometry_figures(config, geometry)
    except (OrchestratorError, ValueError):
        return None


def _fit(places_GD: Array, geometries: Sequence[Geometry], noise: Noise) -> Surface:
    """One row a trial, so that the seeds speak for the noise."""
    rows = [place for place, g in zip(places_GD, geometries, strict=True) for _ in g.trials]
    values = [trial.value for g in geometries for trial in g.trials]
    return fit_surface(np.array(rows), values, noise_sd=noise.seed_sd, freedom=noise.freedom)


def _fit_cost(places_GD: Array, geometries: Sequence[Geometry]) -> Surface | None:
    hours = [g.share.counted for g in geometries]
    if min(hours) <= 0:
        return None
    return fit_surface(places_GD, np.log(hours), noise_sd=0.05, freedom=math.inf)


def rank_axes(surface: Surface, axes: Sequence[SurfaceAxis], places_GD: Array) -> tuple[AxisImportance, ...]:
    """The axes by what going along them makes, averaged over the geometries that ran; the largest first.

    The effect is the difference between an axis's best and worst level on the surface; its interval comes from the
    surface's joint distribution. `share` divides the variances of the axes' effects.
    """
    others = places_GD[np.linspace(0, len(places_GD) - 1, min(_OTHERS, len(places_GD))).astype(int)]
    found = []
    for index, axis in enumerate(axes):
        levels = (
            np.array([0.0, 1.0])
            if axis.is_flag
            else np.linspace(places_GD[:, index].min(), places_GD[:, index].max(), _LEVELS)
        )
        queries = np.repeat(others[None], len(levels), axis=0).copy()
        queries[:, :, index] = levels[:, None]
        mean, covariance = surface.joint(queries.reshape(-1, places_GD.shape[1]))
        average = np.kron(np.eye(len(levels)), np.full((1, len(others)), 1 / len(others)))
        level_mean, level_covariance = average @ mean, average @ covariance @ average.T
        top, bottom = int(level_mean.argmax()), int(level_mean.argmin())
        contrast = np.zeros(len(levels))
        contrast[top], contrast[bottom] = 1.0, -1.0
        effect = float(contrast @ level_mean)
        error = math.sqrt(max(0.0, float(contrast @ level_covariance @ contrast)))
        found.append((axis, effect, error, levels[top], levels[bottom], float(level_mean.var())))
    total = sum(each[-1] for each in found) or 1.0
    return tuple(
        AxisImportance(
            name=axis.name,
            effect=effect,
            interval=Interval.around(effect, _Z * error, LEVEL).within(-100.0, 100.0),
            better_at=axis.figure(float(top)),
            worse_at=axis.figure(float(bottom)),
            share=variance / total,
        )
        for axis, effect, error, top, bottom, variance in sorted(found, key=lambda each: -each[1])
    )


def suggest(
    config: RunConfig,
    choice: AxisChoice,
    surface: Surface,
    cost: Surface | None,
    places_GD: Array,
    points: Sequence[Point],
) -> tuple[Suggestion, ...]:
    """The points with the largest expected improvement over the best geometry's surface, spread out.

    After each choice the surface is taken as known there, so that the next one is elsewhere.
    """
    candidates = (
        [] if config.sweep.points else _candidates(config, points)
    )  # between listed points is nothing
    if not candidates:
        return ()
    places = np.array([choice.coordinates(figures) for _, figures, _ in candidates])
    top = places_GD[int(surface.mean_and_sd(places_GD)[0].argmax())]
    mean, covariance = surface.joint(np.vstack([top, places]))
    chosen: list[Suggestion] = []
    unit = (places - surface.low_D) / np.maximum(surface.high_D - surface.low_D, 1e-12)
    taken = np.zeros(len(candidates), dtype=bool)
    for _ in range(min(_SUGGESTIONS, len(candidates))):
        gain = mean[1:] - mean[0]
        spread = np.sqrt(
            np.maximum(covariance[0, 0] + np.diag(covariance)[1:] - 2 * covariance[0, 1:], 1e-12)
        )
        improvement = gain * norm.cdf(gain / spread) + spread * norm.pdf(gain / spread)
        improvement[taken] = -1.0
        pick = int(improvement.argmax())
        chosen.append(
            _suggestion(candidates[pick], places[pick], surface, cost, float(norm.cdf((gain / spread)[pick])))
        )
        taken |= np.linalg.norm(unit - unit[pick], axis=1) < _APART
        if taken.all():
            break
        column = covariance[:, pick + 1]
        covariance = covariance - np.outer(column, column) / (column[pick + 1] + surface.noise_sd**2)
    return tuple(sorted(chosen, key=lambda each: -each.chance_of_better))


Candidate = tuple[Point, dict[str, float], tuple[str, ...]]


def _suggestion(
    candidate: Candidate, place_D: Array, surface: Surface, cost: Surface | None, chance: float
) -> Suggestion:
    point, figures, beyond = candidate
    mean = accuracy_mean(surface, place_D[None])
    hours = math.nan if cost is None else math.exp(float(cost.mean_and_sd(place_D[None])[0][0]))
    return Suggestion(
        name=point.words,
        point=point,
        figures=figures,
        mean=float(mean[0]),
        interval=_interval_at(surface, place_D),
        chance_of_better=chance,
        device_hours=hours,
        beyond=beyond,
    )


def _candidates(config: RunConfig, points: Sequence[Point]) -> list[Candidate]:
    """Settings between those that ran and a little beyond, which keep every rule and can be sampled."""
    known = dict.fromkeys(key for point in points for key in point)
    keys = [key for key in known if len({value_key(point.get(key)) for point in points}) > 1]
    if not keys:
        return []
    draws = qmc.Sobol(len(keys), seed=0).random(1 << (_CANDIDATES - 1).bit_length())[:_CANDIDATES]
    spans = {key: _Span.of(key, [point[key] for point in points if key in point]) for key in keys}
    fixed = {key: value for key, value in points[0].items() if key not in keys}
    seen: set[Point] = set()
    found: list[Candidate] = []
    for row in draws:
        drawn = fixed | {key: spans[key].at(float(u)) for key, u in zip(keys, row, strict=True)}
        point = _settled(config, drawn)
        if point is None or point in seen:
            continue
        seen.add(point)
        try:
            figures = realised_figures(config, point)
        except (OrchestratorError, ValueError):
            continue
        beyond = tuple(key for key in keys if key in point and not spans[key].holds(point[key]))
        found.append((point, figures, beyond))
    return found


def _settled(config: RunConfig, drawn: Mapping[str, Any]) -> Point | None:
    """A point without axes that do not exist there, with what is tied to the others; None where a tie does not say."""
    space = config.sweep.space
    if not any(axis.when or axis.also for axis in space.values()):
        return Point(drawn)
    try:
        return build_point(space, lambda key, _: drawn[key])
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True)
class _Span:
    """The values of one swept key: numbers and pairs have a range, words are picked from."""

    key: str
    values: tuple[Any, ...]
    kind: str

    @classmethod
    def of(cls, key: str, values: Sequence[Any]) -> _Span:
        numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in values]
        if all(numbers):
            whole = all(isinstance(value, int) for value in values)
            return cls(key, tuple(values), "whole" if whole else "number")
        pairs = [
            isinstance(value, tuple) and len(value) == 2 and all(_is_positive(item) for item in value)
            for value in values
        ]
        return cls(key, tuple(values), "pair" if all(pairs) else "word")

    def at(self, share: float) -> Any:
        """The value at a share of the range, which is stretched a little at both ends."""
        if self.kind == "word":
            return self.values[min(len(self.values) - 1, int(share * len(self.values)))]
        if self.kind == "pair":
            return self._pair_at(share)
        low, high = min(self.values), max(self.values)
        value = self._stretched(low, high, share)
        return max(1, round(value)) if self.kind == "whole" else float(f"{value:.4g}")

    def holds(self, value: Any) -> bool:
        """Whether a value is inside what was swept."""
        if self.kind == "word":
            return True
        middles = [self._middle(each) for each in self.values]
        return min(middles) - 1e-9 <= self._middle(value) <= max(middles) + 1e-9

    def _pair_at(self, share: float) -> tuple[float, float]:
        """A pair between those that ran: middle and ratio of its ends go together from lowest to highest."""
        ordered = sorted(self.values, key=self._middle)
        middles = [self._middle(pair) for pair in ordered]
        middle = self._stretched(middles[0], middles[-1], share)
        ratio = float(np.interp(middle, middles, [pair[1] / pair[0] for pair in ordered]))
        low = middle / self._middle((1.0, ratio))
        return float(f"{low:.3g}"), float(f"{low * ratio:.3g}")

    def _middle(self, value: Any) -> float:
        middle = middle_of(self.key, value)
        assert middle is not None, f"{self.key}: a {self.kind} has a middle, {value!r} has none"
        return middle

    def _stretched(self, low: float, high: float, share: float) -> float:
        place = -_BEYOND + share * (1 + 2 * _BEYOND)
        if low > 0 and (high / low > 4 or self.kind == "pair"):
            return float(math.exp(math.log(low) + place * (math.log(high) - math.log(low))))
        return float(low + place * (high - low))


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
