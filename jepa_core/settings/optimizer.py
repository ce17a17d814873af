"""The settings of AdamW, and its rates at a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jepa_core.schedules import cosine, warmup_cosine, whole_steps


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW and its schedules; learning rates are absolute, `warmup_fraction` is of the whole run.

    `schedule_stretch` lays the schedules over that many times the run's length, so that a run ends before they do.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    learning_rate: float = 1e-3
    """Learning rate at the end of the warm-up, absolute: it is not scaled by the batch size."""
    start_learning_rate: float = 2e-4
    """Learning rate of the first step."""
    final_learning_rate: float = 1e-6
    """Learning rate at the end of the cosine."""
    warmup_fraction: float = 40 / 300
    """Share of the run, cut down to whole steps, over which the rate rises linearly from `start_learning_rate`."""
    weight_decay: float = 0.04
    """Weight decay of the first step; biases and norms have none."""
    final_weight_decay: float = 0.4
    """Weight decay at the end of its cosine."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the two moments."""
    epsilon: float = 1e-8
    """AdamW's term in the denominator."""
    gradient_clip_norm: float | None = None
    """Norm above which the gradient is scaled down; null leaves it as it is."""
    schedule_stretch: float = 1.0
    """Length of the schedules over the run's: above 1 the run ends before they do."""

    def __post_init__(self) -> None:
        for key in ("learning_rate", "epsilon", "schedule_stretch", "gradient_clip_norm"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ValueError(f"{key} must be above 0, not {value}")
        for key in ("start_learning_rate", "final_learning_rate", "weight_decay", "final_weight_decay"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} must not be negative, not {getattr(self, key)}")
        if not 0 <= self.warmup_fraction <= 1:
            raise ValueError(f"warmup_fraction must be between 0 and 1, not {self.warmup_fraction}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1, not {self.betas}")

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """Learning rate of the step after `step` finished ones, in a run of `total_steps`."""
        return warmup_cosine(
            step,
            start=self.start_learning_rate,
            peak=self.learning_rate,
            final=self.final_learning_rate,
            warmup_steps=whole_steps(self.warmup_fraction, total_steps),
            total_steps=self.stretched_steps(total_steps),
        )

    def weight_decay_at(self, step: int, total_steps: int) -> float:
        """Weight decay of the step after `step` finished ones, in a run of `total_steps`."""
        return cosine(
            step,
            start=self.weight_decay,
            final=self.final_weight_decay,
            total_steps=self.stretched_steps(total_steps),
        )

    def stretched_steps(self, total_steps: int) -> int:
        """Steps that the schedules span."""
        return max(1, whole_steps(self.schedule_stretch, total_steps))
