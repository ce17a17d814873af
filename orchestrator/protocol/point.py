"""A point of a search space: what it holds, what it is recognised by, how it is said, and where it stands on a plot.

Owns the one form of each: the JSON, the words, the middle of a pair. Leaves out which points there are
(`config.space`, `sweep.space`), what they are called in a list, and whether a configuration takes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias, TypeGuard

from orchestrator.protocol.writing import plain

Value: TypeAlias = "bool | int | float | str | tuple[Value, ...] | Mapping[str, Value] | None"
"""What JSON holds, with tuples in place of lists."""


class Point(Mapping[str, Value]):
    """Values by dotted key, in the order of the axes; never changed.

    Lists become tuples here and stay tuples. Two points are one where they hold the same values under the same keys,
    in whatever order, as JSON writes them: 1 is not 1.0, and true is neither.
    """

    __slots__ = ("_text", "_values")

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = {str(key): frozen(item) for key, item in values.items()}
        self._text = value_key(self._values)

    def __getitem__(self, key: str) -> Value:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Point) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Point({self._values!r})"

    @property
    def text(self) -> str:
        """The point as JSON, the same whatever the order of its keys: what it is recognised by."""
        return self._text

    @property
    def words(self) -> str:
        """For a reader: the last part of every key and its value, pairs as `0.15-0.2`."""
        parts = [
            f"{key.rsplit('.', 1)[-1].replace('_', ' ')} {value_words(value)}" for key, value in self.items()
        ]
        return ", ".join(parts) or "base configuration"

    def middle(self, key: str) -> float | None:
        """The number that stands for a value (`middle_of`); None also where the point has no such key."""
        return middle_of(key, self._values.get(key))

    def to_json(self) -> dict[str, object]:
        """As JSON has it, in the order of the axes; `Point(...)` reads it back."""
        return {key: plain(value) for key, value in self.items()}


def frozen(value: object) -> Value:
    """A value that JSON or YAML holds, as a point holds it: lists are tuples.

    Raises:
        ValueError: JSON does not hold such a value.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    if isinstance(value, Mapping):  # no setting takes one, which the rules say better than this
        return {str(key): frozen(item) for key, item in value.items()}
    raise ValueError(f"a point holds what JSON holds, not a {type(value).__name__}: {value!r:.80}")


def value_key(value: object) -> str:
    """What a value is recognised by: a pair is the same as a list and as a tuple, true is not 1, and 1 is not 1.0."""
    return json.dumps(plain(value), sort_keys=True, default=str)


def value_words(value: object) -> str:
    """A value for a reader: pairs as `0.15-0.2`, numbers with at most four significant digits."""
    if isinstance(value, (list, tuple)):
        return "-".join(value_words(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def middle_of(key: str, value: object) -> float | None:
    """The number that stands for a value of an axis, on a plot and in a fit: a pair's middle, a number itself.

    The middle of an aspect ratio's pair is geometric: 3/4 and 4/3 are equally far from 1, and the samplers draw its
    logarithm evenly. The middle of any other pair is arithmetic, as of a scale, which is drawn evenly itself. The key
    decides, and not the sampler (`reference` draws aspect ratios evenly too), so that the values of one axis stand on
    one scale also where the sampler is an axis.

    None for what has no middle: words, true and false, lists of other lengths.
    """
    if _is_number(value):
        return float(value)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    low, high = value
    if not _is_number(low) or not _is_number(high):
        return None
    if not key.endswith("aspect_ratio"):
        return (float(low) + float(high)) / 2
    return math.sqrt(float(low) * float(high)) if min(low, high) > 0 else None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
