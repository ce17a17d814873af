"""How far the target encoder lags behind at the end of a sweep's trials, as a share of the run.

Probes read the target encoder, a mean of the weights of the last steps. What its momentum means depends on the run's
length, so the figure is told before anything is spent. Pure; called by `plan` and by `orchestrator doctor`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jepa_core.settings.ema import EmaSettings
from orchestrator.config import has_teacher
from orchestrator.config.models import RunConfig
from orchestrator.train.loop import plan_run

LARGE_LAG = 0.1
"""Share of the run above which a lag is warned of."""


@dataclass(frozen=True, kw_only=True)
class TeacherLag:
    """The smallest and the largest lag of the trials with a teacher, as shares of their runs, and that one's steps."""

    least: float
    most: float
    most_steps: float
    total_steps: int

    @property
    def is_large(self) -> bool:
        """Whether any trial's lag is to be warned of."""
        return self.most > LARGE_LAG

    def text(self) -> str:
        """In one line."""
        span = f"{100 * self.most:.2g} %"
        if f"{self.least:.2g}" != f"{self.most:.2g}":
            span = f"{100 * self.least:.2g} to {span}"
        steps = f"{self.most_steps:,.0f} of {self.total_steps:,} steps"
        return f"the target encoder lags {span} of the run behind at its end (mean age of its weights, up to {steps})"

    def warning(self) -> str:
        """What a large lag means and how to reduce it; empty where it is not large."""
        if not self.is_large:
            return ""
        return (
            f"the target encoder, which probes read, lags {100 * self.most:.2g} % of the run behind at its end, above "
            f"{100 * LARGE_LAG:.0f} %: a lower ema.final_momentum or an ema.window (0.05 averages over 5 % of the run) "
            "shortens that; try it on a short run first, as it can also make features worse, or compare with "
            "probe.encoder: both"
        )

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {"least": self.least, "most": self.most, "most_steps": self.most_steps}


def teacher_lag(configs: Iterable[RunConfig]) -> TeacherLag | None:
    """The lags of the trials of these configurations; None where no method has a teacher."""
    found = {_schedule(config) for config in configs if has_teacher(config)}
    lags = [(ema.lag_at_end(steps, schedule_stretch=stretch), steps) for ema, steps, stretch in found]
    if not lags:
        return None
    shares = [lag / steps for lag, steps in lags]
    most_steps, total_steps = lags[shares.index(max(shares))]
    return TeacherLag(least=min(shares), most=max(shares), most_steps=most_steps, total_steps=total_steps)


def _schedule(config: RunConfig) -> tuple[EmaSettings, int, float]:
    return config.ema, plan_run(config).total_steps, config.optimizer.schedule_stretch
