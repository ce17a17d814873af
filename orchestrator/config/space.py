"""The search space as values: every point of a grid, and one axis at a number between 0 and 1.

Pure functions over the axis models; no randomness is drawn here. `sweep` brings the numbers and the order of
search.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.config.models import (
    Axis,
    Centered,
    CenteredRatio,
    Choice,
    IntUniform,
    LogUniform,
    SweepConfig,
    Tie,
    Times,
    Uniform,
)
from orchestrator.protocol.point import Point, value_key

SIGNIFICANT_DIGITS = 6
MAX_COUNTED = 100_000


def grid_size(sweep: SweepConfig) -> int:
    """Number of points of a full grid, before `num_trials` caps it; an empty space has one point.

    Where axes are conditional, points are counted up to `MAX_COUNTED` and no further.

    Raises:
        ValueError: An axis is not a list of choices.
    """
    if any(axis.when for axis in sweep.space.values()):
        return sum(1 for _ in itertools.islice(_iterate(sweep), MAX_COUNTED))
    return math.prod(len(_choices(key, axis)) for key, axis in sweep.space.items())


def axis_order(space: Mapping[str, Axis]) -> tuple[str, ...]:
    """The axes in file order, but for those that wait for another one's value: they follow it.

    Axes that wait for each other, or for one that is not there, come last.
    """
    ordered: list[str] = []
    left = list(space)
    while left:
        ready = [key for key in left if all(parent in ordered for parent in space[key].when)]
        if not ready:
            return (*ordered, *left)
        ordered.append(ready[0])
        left.remove(ready[0])
    return tuple(ordered)


def is_active(axis: Axis, point: Mapping[str, Any]) -> bool:
    """Whether an axis exists at a point, which holds the axes that it waits for."""
    return all(
        parent in point and value_key(point[parent]) in map(value_key, values)
        for parent, values in axis.when.items()
    )


def build_point(space: Mapping[str, Axis], draw: Callable[[str, Axis], Any]) -> Point:
    """The point that values, drawn for the axes that exist there and no others, come to; with what is tied to them."""
    point: dict[str, Any] = {}
    for key in axis_order(space):
        axis = space[key]
        if is_active(axis, point):
            point[key] = draw(key, axis)
            point |= {other: tied_value(axis, tie, point[key]) for other, tie in axis.also.items()}
    return Point(point)


def tied_value(axis: Axis, tie: Tie, value: Any) -> Any:
    """What a key that is tied to an axis has where the axis has a value.

    Raises:
        ValueError: The tie does not fit the axis or its value.
    """
    if tie == "same":
        return value
    if isinstance(tie, Times):
        if isinstance(value, (list, tuple)):
            return tuple(_scaled(item, tie.times) for item in value)
        return _scaled(value, tie.times)
    if not isinstance(axis, Choice) or len(tie) != len(axis.choices):
        raise ValueError("a list ties a value to each choice")
    return tie[choice_index(axis, value)]


def choice_index(axis: Choice, value: Any) -> int:
    """Which of an axis' choices a value is.

    Raises:
        ValueError: It is none of them.
    """
    return [value_key(choice) for choice in axis.choices].index(value_key(value))


def _scaled(value: Any, factor: float) -> Any:
    """A number times a factor: whole where the number and the result are."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("only a number, or a pair of numbers, has a multiple")
    scaled = _round(value * factor)
    return int(scaled) if isinstance(value, int) and scaled.is_integer() else scaled


def dimensions(space: Mapping[str, Axis]) -> tuple[str, ...]:
    """What a search draws, one number each: every axis, and the width or spread of a pair that is a range too."""
    return (*space, *(f"{key}.{name}" for key, axis in space.items() if (name := second_dimension(axis))))


def second_dimension(axis: Axis) -> str:
    """`width` or `spread` where an axis draws that too, else an empty string."""
    if isinstance(axis, Centered) and isinstance(axis.width, tuple):
        return "width"
    return "spread" if isinstance(axis, CenteredRatio) and isinstance(axis.spread, tuple) else ""


def driven_keys(sweep: SweepConfig) -> tuple[str, ...]:
    """The keys that follow an axis (`also`)."""
    return tuple(key for axis in sweep.space.values() for key in axis.also)


def first_seeds(sweep: SweepConfig) -> tuple[int, ...]:
    """The seeds under which every geometry is trained."""
    return (0,) if sweep.seeds == "auto" else sweep.seeds


def most_seeds(sweep: SweepConfig) -> tuple[int, ...]:
    """The seeds under which a geometry may be trained at most."""
    return tuple(range(sweep.max_seeds)) if sweep.seeds == "auto" else sweep.seeds


def searched_keys(sweep: SweepConfig) -> tuple[str, ...]:
    """The dotted keys that a sweep varies: its axes and what is tied to them, or what its listed points set."""
    listed = (key for point in sweep.points for key in point.set)
    return (*sweep.space, *driven_keys(sweep)) or tuple(dict.fromkeys(listed))


def space_text(sweep: SweepConfig) -> str:
    """The axes in words, with what they wait for and what is tied to them."""
    return ", ".join(_axis_text(key, axis) for key, axis in sweep.space.items())


def _axis_text(key: str, axis: Axis) -> str:
    name = second_dimension(axis)
    words = [f"centre and {name}"] if name else []
    words += [
        f"when {parent} is {' or '.join(_value_text(value) for value in values)}"
        for parent, values in axis.when.items()
    ]
    words += [f"also sets {other} ({_tie_text(tie)})" for other, tie in axis.also.items()]
    return f"{key} ({'; '.join(words)})" if words else key


def _tie_text(tie: Tie) -> str:
    if isinstance(tie, Times):
        return f"times {tie.times:g}"
    return "same" if tie == "same" else _value_text(tie)


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else value_key(value)


def grid_points(sweep: SweepConfig) -> list[Point]:
    """Every combination of the choices, the last axis varying fastest, capped at `num_trials`.

    An empty space gives one empty point: the base configuration alone.

    Raises:
        ValueError: An axis is not a list of choices.
    """
    return list(itertools.islice(_iterate(sweep), sweep.num_trials))


def axis_value(axis: Axis, fraction: float, second: float = 0.5) -> Any:
    """The value of an axis at a fraction of its range; evenly drawn fractions give the axis' distribution.

    `second` is the fraction of the width or spread of a pair, where that is a range too.

    Numbers are rounded to 6 significant digits, inside the bounds, so that a point reads the same everywhere.

    Raises:
        ValueError: The fraction is outside 0 to 1.
    """
    if not 0.0 <= min(fraction, second) <= max(fraction, second) <= 1.0:
        raise ValueError(f"an axis is read at a fraction from 0 to 1, not at {fraction}, {second}")
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
        return pair_around(axis, _linear(axis.center, fraction), second)
    return pair_around(axis, _logarithmic(axis.center_ratio, fraction), second)


def pair_around(axis: Centered | CenteredRatio, center: float, second: float = 0.5) -> tuple[float, float]:
    """The pair that a pair axis makes of a centre, at a fraction of its width or spread where that is a range."""
    if isinstance(axis, Centered):
        width = _linear(axis.width, second) if isinstance(axis.width, tuple) else axis.width
        return _round(center - width / 2), _round(center + width / 2)
    spread = _logarithmic(axis.spread, second) if isinstance(axis.spread, tuple) else axis.spread
    return _round(center / spread), _round(center * spread)


def center_and_size(axis: Centered | CenteredRatio, pair: tuple[float, float]) -> tuple[float, float]:
    """The way back of `pair_around`: a pair's centre and its width or spread, as its axis draws them.

    Raises:
        ValueError: An axis of ratios has no such pair.
    """
    low, high = float(pair[0]), float(pair[1])
    if isinstance(axis, Centered):
        return (low + high) / 2, high - low
    return math.sqrt(low * high), math.sqrt(high / low)


def _iterate(sweep: SweepConfig) -> Iterator[Point]:
    """Every point, depth first, so that an axis that does not exist somewhere makes no copies there."""
    yield from _extended(sweep.space, axis_order(sweep.space), {})


def _extended(space: Mapping[str, Axis], keys: Sequence[str], point: Mapping[str, Any]) -> Iterator[Point]:
    if not keys:
        yield Point(point)
        return
    key, axis = keys[0], space[keys[0]]
    if not is_active(axis, point):
        yield from _extended(space, keys[1:], point)
        return
    for value in _choices(key, axis):
        tied = {other: tied_value(axis, tie, value) for other, tie in axis.also.items()}
        yield from _extended(space, keys[1:], {**point, key: value, **tied})


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
