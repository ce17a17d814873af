"""From a point back to its place in a search space, so that a search can be told of trials it did not propose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.config.models import (
    Axis,
    Centered,
    CenteredRatio,
    Choice,
    IntUniform,
    LogUniform,
    Uniform,
)
from orchestrator.config.space import axis_order, center_and_size, is_active, second_dimension, tied_value
from orchestrator.protocol.point import Point, value_key

_TOLERANCE = 1e-3
"""Share of a range by which a value, which is rounded to six digits, may lie outside; relative, for widths."""


def units_of(space: Mapping[str, Axis], point: Point) -> dict[str, float | int] | None:
    """Where a point lies: a fraction for a range, an index for a choice; None where the space does not hold it.

    Keys of the point that the space knows nothing of are passed over.
    """
    units: dict[str, float | int] = {}
    for key in axis_order(space):
        axis = space[key]
        if not is_active(axis, point):
            continue
        unit = _units(axis, point[key]) if key in point else None
        if unit is None or not _ties_hold(axis, point, key):
            return None
        units[key] = unit[0]
        if len(unit) > 1:
            units[f"{key}.{second_dimension(axis)}"] = unit[1]
    return units


def _ties_hold(axis: Axis, point: Point, key: str) -> bool:
    return all(
        other in point and value_key(tied_value(axis, tie, point[key])) == value_key(point[other])
        for other, tie in axis.also.items()
    )


def _units(axis: Axis, value: Any) -> tuple[float, ...] | None:
    """One number, or two for a pair whose width or spread is a range too; None when the axis never has the value."""
    if isinstance(axis, Choice):
        keys = [value_key(choice) for choice in axis.choices]
        return (keys.index(value_key(value)),) if value_key(value) in keys else None
    if isinstance(axis, (Centered, CenteredRatio)):
        return _pair_units(axis, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(axis, IntUniform):
        low, high = axis.int_uniform
        inside = isinstance(value, int) and low <= value <= high
        return ((value - low + 0.5) / (high - low + 1),) if inside else None
    if isinstance(axis, Uniform):
        return _one(_fraction(axis.uniform, value))
    assert isinstance(axis, LogUniform)
    return _one(_log_fraction(axis.log_uniform, value))


def _pair_units(axis: Centered | CenteredRatio, value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    if isinstance(axis, CenteredRatio) and min(value) <= 0:
        return None
    center, size = center_and_size(axis, value)
    if isinstance(axis, Centered):
        unit, given = _fraction(axis.center, center), axis.width
        second = _fraction(given, size) if isinstance(given, tuple) else None
    else:
        unit, given = _log_fraction(axis.center_ratio, center), axis.spread
        second = _log_fraction(given, size) if isinstance(given, tuple) else None
    if isinstance(given, tuple):
        return None if unit is None or second is None else (unit, second)
    return _one(unit) if math.isclose(size, given, rel_tol=_TOLERANCE, abs_tol=1e-6) else None


def _one(fraction: float | None) -> tuple[float] | None:
    return None if fraction is None else (fraction,)


def _fraction(bounds: tuple[float, float], value: float) -> float | None:
    low, high = bounds
    share = (value - low) / (high - low) if high > low else 0.0 if math.isclose(value, low) else math.inf
    return min(max(share, 0.0), 1.0) if -_TOLERANCE <= share <= 1 + _TOLERANCE else None


def _log_fraction(bounds: tuple[float, float], value: float) -> float | None:
    return None if value <= 0 else _fraction((math.log(bounds[0]), math.log(bounds[1])), math.log(value))
