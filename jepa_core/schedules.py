"""Schedules as pure functions of the step, so that resuming needs no replay.

Every function takes `step`, the number of finished steps, and gives the value for the step that comes next: the
first step of a run is step 0. Leaves out who uses the values: `optim` and `ema` hold the settings.
"""

from __future__ import annotations

import math

_ROUNDING_STEPS = 1e-6


def warmup_cosine(
    step: int, *, start: float, peak: float, final: float, warmup_steps: int, total_steps: int
) -> float:
    """Linear from `start` to `peak` in `warmup_steps`, then half a cosine to `final` at the last step.

    The published implementation counts the step before it uses it: step 0 is already one step up the ramp, and the
    last of `total_steps` has exactly `final`.

    Source: I-JEPA (arXiv 2301.08243), appendix A.1.
    Deviates: the value stays `final` beyond `total_steps`, where the published cosine would rise again.
    """
    position = step + 1
    if position < warmup_steps:
        return start + position / warmup_steps * (peak - start)
    fraction = (position - warmup_steps) / max(1, total_steps - warmup_steps)
    return _half_cosine(fraction, start=peak, final=final)


def cosine(step: int, *, start: float, final: float, total_steps: int) -> float:
    """Half a cosine from `start` to `final` at the last step; counts as `warmup_cosine` does.

    Source: the published implementation; the paper's appendix A.1 says linear.
    Deviates: the value stays `final` beyond `total_steps`.
    """
    return _half_cosine((step + 1) / max(1, total_steps), start=start, final=final)


def linear(step: int, *, start: float, final: float, total_steps: float) -> float:
    """Linear from `start` at step 0 to `final`, which is reached one step after the last.

    Source: I-JEPA (arXiv 2301.08243), appendix A.1.
    Deviates: the value stays `final` beyond `total_steps`.
    """
    if step >= total_steps:
        return final
    return start + step * (final - start) / total_steps


def whole_steps(fraction: float, total_steps: int) -> int:
    """The whole steps of a share of a run, cut down: a warm-up of 1.5 steps is one.

    Source: the published implementation, which truncates.
    Deviates: what is short of a whole step by rounding alone, such as 1.15 of 100, counts as whole.
    """
    return math.floor(fraction * total_steps + _ROUNDING_STEPS)


def _half_cosine(fraction: float, *, start: float, final: float) -> float:
    return final + (start - final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))
