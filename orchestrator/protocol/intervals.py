"""Intervals of figures, each with its level: 95 % of a verdict, 90 % of a surface."""

from __future__ import annotations

import math
from dataclasses import dataclass


def percent(level: float) -> str:
    """A level from 0 to 1 in words: `95 %`."""
    return f"{100 * level:g} %"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where a figure lies with probability `level`, from 0 to 1, in the figure's own unit; infinite where unknown."""

    low: float
    high: float
    level: float

    @classmethod
    def around(cls, middle: float, half_width: float, level: float) -> Interval:
        """The symmetric one."""
        return cls(low=middle - half_width, high=middle + half_width, level=level)

    @property
    def name(self) -> str:
        """Its level in words: `95 % interval`."""
        return f"{percent(self.level)} interval"

    @property
    def is_known(self) -> bool:
        """Whether it has two ends."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def bounds(self, form: str = ".1f") -> str:
        """Its ends in words: `58.1 to 61.2`."""
        return f"{self.low:{form}} to {self.high:{form}}"

    def text(self, form: str = ".1f") -> str:
        """Level and ends in words: `95 % interval 58.1 to 61.2`."""
        return f"{self.name} {self.bounds(form)}"

    def within(self, least: float, most: float) -> Interval:
        """The part of it that the figure can have; what is cut off holds no possible value, so the level stays."""
        return Interval(low=max(least, self.low), high=min(most, self.high), level=self.level)

    def times(self, factor: float) -> Interval:
        """In another unit."""
        return Interval(low=factor * self.low, high=factor * self.high, level=self.level)

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {"low": self.low, "high": self.high, "level": self.level}


UNKNOWN = Interval(low=math.nan, high=math.nan, level=math.nan)
"""Of a figure that was not measured."""
