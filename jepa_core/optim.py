"""AdamW with the published parameter groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW and its schedules; learning rates are absolute, `warmup_fraction` is of the whole run."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    learning_rate: float = 1e-3
    start_learning_rate: float = 2e-4
    final_learning_rate: float = 1e-6
    warmup_fraction: float = 40 / 300
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    gradient_clip_norm: float | None = None
    schedule_stretch: float = 1.0
