"""The search space as values: every point of a grid, and one axis at a number between 0 and 1.

Pure functions over the axis models; no randomness is drawn here. `sweep` brings the numbers and the order of
search.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from orchestrator.config.models import (
    Axis,
    Centered,
    CenteredRatio,
    Choice,
    IntUniform,
    LogUniform,
    SweepConfig,
    Uniform,
)

SIGNIFICANT_DIGITS = 6


def grid_size(sweep: SweepConfig) -> int:
    """Number of points of a full grid, before `num_trials` caps it; an empty space has one point.

    Raises:
        ValueError: An axis is not a list of choices.
    """
    return math.prod(len(_choices(key, axis)) for key, axis in sweep.space.items())


def first_seeds(sweep: SweepConfig) -> tuple[int, ...]:
    """The seeds under which every geometry is trained."""
    return (0,) if sweep.seeds == "auto" else sweep.seeds


def most_seeds(sweep: SweepConfig) -> tuple[int, ...]:
    """The seeds under which a geometry may be trained at most."""
    return tuple(range(sweep.max_seeds)) if sweep.seeds == "auto" else sweep.seeds


def searched_keys(sweep: SweepConfig) -> tuple[str, ...]:
    """The dotted keys that a sweep varies: its axes, or what its listed points set."""
    return tuple(sweep.space) or tuple(dict.fromkeys(key for point in sweep.points for key in point.set))


def grid_points(sweep: SweepConfig) -> list[dict[str, Any]]:
    """Every combination of the choices, the last axis varying fastest, capped at `num_trials`.

    An empty space gives one empty point: the base configuration alone.

    Raises:
        ValueError: An axis is not a list of choices.
    """
    return list(itertools.islice(_iterate(sweep), sweep.num_trials))


def axis_value(axis: Axis, fraction: float) -> Any:
    """The value of an axis at a fraction of its range; evenly drawn fractions give the axis' distribution.

    Numbers are rounded to 6 significant digits, inside the bounds, so that a point reads the same everywhere.

    Raises:
        ValueError: The fraction is outside 0 to 1.
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"an axis is read at a fraction from 0 to 1, not at {fraction}")
    if isinstance(axis, Choice):
        return axis.choices[min(int(fraction * len(axis.choices)), len(axis.choices) - 1)]
    if isinstance(axis, IntUniform):
        low, high = axis.int_uniform
        return low + min(int(fraction * (high - low + 1)), high - low)
    if isinstance(axis, Uniform):
        return _linear(axis.uniform, fraction)
    if isinstance(axis, LogUniform):
        return _logarithmic(axis.log_uniform, fraction)
    if isinstance(axis, Centered):
        return pair_around(axis, _linear(axis.center, fraction))
    return pair_around(axis, _logarithmic(axis.center_ratio, fraction))


def pair_around(axis: Centered | CenteredRatio, center: float) -> tuple[float, float]:
    """The pair that a pair axis makes of a centre."""
    if isinstance(axis, Centered):
        return _round(center - axis.width / 2), _round(center + axis.width / 2)
    return _round(center / axis.spread), _round(center * axis.spread)


def _iterate(sweep: SweepConfig) -> Iterator[dict[str, Any]]:
    keys = list(sweep.space)
    for values in itertools.product(*(_choices(key, axis) for key, axis in sweep.space.items())):
        yield dict(zip(keys, values, strict=True))


def _choices(key: str, axis: Axis) -> tuple[Any, ...]:
    if not isinstance(axis, Choice):
        raise ValueError(f"a grid takes choices alone; {key} is a range")
    return axis.choices


def _linear(bounds: tuple[float, float], fraction: float) -> float:
    low, high = bounds
    return min(max(_round(low * (1.0 - fraction) + high * fraction), low), high)


def _logarithmic(bounds: tuple[float, float], fraction: float) -> float:
    low, high = bounds
    value = math.exp(math.log(low) * (1.0 - fraction) + math.log(high) * fraction)
    return min(max(_round(value), low), high)


def _round(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
