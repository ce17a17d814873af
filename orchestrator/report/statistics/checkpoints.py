"""What is said of a trial's best checkpoint: where its curve was highest, and what a picked figure is worth.

The highest of several probes of one curve reads high: part of it is luck. It is marked as picked, and the verdict goes
by the values at the end alone, at equal images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from orchestrator.config.models import RunConfig
from orchestrator.protocol.reports import BestCheckpoint
from orchestrator.sweep.core import TrialRecord
from orchestrator.text import counted
from orchestrator.train.loop import TakenCheckpoint, first_best_step


@dataclass(frozen=True, kw_only=True)
class ProbeCurve:
    """The probes that a trial's best checkpoint is picked from, by images, and the one that is kept.

    They are those after the learning rate's warm-up and, of a member of a population, after it last took over weights.
    """

    metric: str = ""
    total_images: int = 0
    values: Mapping[int, float] = field(default_factory=dict)
    best: BestCheckpoint | None = None

    @property
    def last_images(self) -> int:
        """Images at the newest probe; 0 before any."""
        return max(self.values, default=0)

    @property
    def last_value(self) -> float:
        """The ranking metric at the newest probe; NaN before any."""
        return self.values.get(self.last_images, math.nan)

    @property
    def peak_images(self) -> int:
        """Images at the highest probe, of equal ones the latest; 0 before any."""
        return max(self.values, key=lambda images: (self.values[images], images), default=0)

    @property
    def fall(self) -> float:
        """Points from the highest probe down to the newest; 0 where the newest is the highest."""
        return self.values[self.peak_images] - self.last_value if self.values else 0.0

    @property
    def is_picked(self) -> bool:
        """Whether the best checkpoint's figure was chosen as the highest, and is not that of the newest probe."""
        return self.best is not None and self.best.images < self.last_images

    def best_text(self) -> str:
        """Which weights the best checkpoint has, and what its figure is worth."""
        if self.best is None:
            return "none is kept: no probe since warm-up, or an earlier version; the newest is taken"
        text = (
            f"{self.best.name}, after {self.best.images:,} of {self.total_images:,} images, {self.metric} "
            f"{self.best.value:.1f} %"
        )
        if not self.is_picked:
            return f"{text}: the newest probe, and none since warm-up was higher"
        is_highest = self.best.value >= self.values.get(self.peak_images, -math.inf)
        of = "the highest" if is_highest else "the highest whose weights were kept"
        return (
            f"{text}, picked as {of} of {counted(len(self.values), 'probe')} since warm-up, so it reads high; "
            f"{self.last_value:.1f} % at the newest probe"
        )

    def peak_text(self) -> str:
        """That the curve was highest before its newest probe; empty where it was not."""
        if self.fall <= 0:
            return ""
        return (
            f"peaked after {self.peak_images:,} of {self.total_images:,} images with "
            f"{self.values[self.peak_images]:.1f} % (picked of {counted(len(self.values), 'probe')}) and came to "
            f"{self.last_value:.1f} % after {self.last_images:,}"
        )

    def to_json(self) -> dict[str, Any] | None:
        """The best checkpoint as a JSON-able dictionary; None when none is kept."""
        if self.best is None:
            return None
        return {
            **self.best.to_json(),
            "picked": self.is_picked,
            "num_probes": len(self.values),
            "fall_points": self.fall,
        }


def taken_text(curve: ProbeCurve, taken: TakenCheckpoint) -> str:
    """Which of a trial's checkpoints was taken, what its figure is worth, and why where it is not the best."""
    if taken.best is None:
        return f"{taken.name}, {taken.note or 'as asked'}"
    return replace(curve, best=taken.best).best_text()


def taken_json(curve: ProbeCurve, taken: TakenCheckpoint) -> dict[str, Any]:
    """The same as a JSON-able dictionary."""
    best = None if taken.best is None else replace(curve, best=taken.best).to_json()
    return {"name": taken.name, "step": taken.checkpoint.step, "best": best, "note": taken.note}


def probe_curve(config: RunConfig, trial: TrialRecord) -> ProbeCurve:
    """The probes of a trial that its best checkpoint is picked from, out of its record."""
    # Of the point alone: its other settings may keep the rules of an earlier version.
    batch_size = cast(int, trial.point.get("train.batch_size", config.train.batch_size))
    warmup = cast(float, trial.point.get("optimizer.warmup_fraction", config.optimizer.warmup_fraction))
    first = first_best_step(warmup, max(1, trial.total_images // batch_size)) * batch_size
    begun = max((each.images for each in trial.takeovers), default=0)
    metric = config.sweep.metric
    values = {
        images: row[metric]
        for images, row in sorted(trial.history.items())
        if images >= first and images > begun and math.isfinite(row.get(metric, math.nan))
    }
    return ProbeCurve(metric=metric, total_images=trial.total_images, values=values, best=trial.best)
