"""The time that a sweep is accounted in."""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyClock:
    """Unix time as it has passed in this process, in seconds.

    The machine's clock is read once. When it is set later, forward or back, what a slot held does not become an hour
    more or less, and no budget is spent by it.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._steady = steady
        self._offset_s = wall() - steady()

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self._offset_s + self._steady()
