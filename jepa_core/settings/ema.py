"""The settings of the moving average, and the momenta that they come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jepa_core.schedules import linear

_NEGLIGIBLE = 1e-12


@dataclass(frozen=True, kw_only=True)
class EmaSettings:
    """Momentum of the target encoder, linear over the run from `start_momentum` to `final_momentum`.

    A momentum fits one length of run: what it averages over is a number of steps. `window` says the same as a share
    of the run.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    start_momentum: float = 0.996
    """Share of itself that the target encoder keeps at the first step."""
    final_momentum: float = 1.0
    """The same at the last step; 1 leaves it where it is."""
    window: float | None = None
    """Share of the run that the target encoder averages over, in place of both momenta: they are
    1 - 1 / (`window` x steps); null takes the momenta."""
    start_window: float | None = None
    """The same for the first step alone, from which the momentum changes linearly to that of `window`; null is
    `window`."""

    def __post_init__(self) -> None:
        for key in ("start_momentum", "final_momentum"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} must be between 0 and 1, not {getattr(self, key)}")
        for key in ("window", "start_window"):
            value = getattr(self, key)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{key} must be above 0 and at most 1, not {value}")
        self._check_one_form()

    def _check_one_form(self) -> None:
        if self.window is None:
            if self.start_window is not None:
                raise ValueError("start_window needs window, to which it leads; set window too")
            return
        for key in ("start_momentum", "final_momentum"):
            if getattr(self, key) != getattr(type(self), key):
                raise ValueError(
                    f"{key} is not read where window is set, which decides both momenta; remove one of the two"
                )

    def momenta(self, total_steps: int) -> tuple[float, float]:
        """Momentum at the first and at the last step of a run of `total_steps`."""
        if self.window is None:
            return self.start_momentum, self.final_momentum
        first = self.window if self.start_window is None else self.start_window
        return _momentum_of(first * total_steps), _momentum_of(self.window * total_steps)

    def momentum_at(self, step: int, total_steps: int, *, schedule_stretch: float = 1.0) -> float:
        """Momentum of the step after `step` finished ones, in a run of `total_steps`."""
        start, final = self.momenta(total_steps)
        return linear(step, start=start, final=final, total_steps=schedule_stretch * total_steps)

    def lag_at_end(self, total_steps: int, *, schedule_stretch: float = 1.0) -> float:
        """How far the target encoder lags behind at the end of a run: the mean age of its weights, in steps.

        It is a weighted mean of the context encoder's weights after each step, and of the untrained ones, which are as
        old as the run. It follows from the schedule: the age becomes momentum x (age + 1) in every step.
        """
        start, final = self.momenta(total_steps)
        if start == final:
            return float(total_steps) if start == 1 else start * (1 - start**total_steps) / (1 - start)
        age, kept = 0.0, 1.0
        for step in reversed(range(total_steps)):
            kept *= self.momentum_at(step, total_steps, schedule_stretch=schedule_stretch)
            age += kept
            if kept < _NEGLIGIBLE:
                break
        return age


def _momentum_of(window_steps: float) -> float:
    """Momentum that averages over that many steps; a window of a step or less follows at once."""
    return max(0.0, 1 - 1 / window_steps)
