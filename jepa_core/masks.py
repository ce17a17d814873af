"""Mask geometry: settings, samplers and the audit of what a geometry really masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Strategy = Literal["exact", "reference", "random", "block", "rasterized"]


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """Which patches are context and which are targets.

    Scales are fractions of the grid's area; aspect ratios are height over width; `context_keep` is the number of
    context patches that reach the encoder: a fraction of the grid (float), a count (int) or "all" (ragged, padded).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    sampler: Strategy = "exact"
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect_ratio: tuple[float, float] = (0.75, 1.5)
    num_target_blocks: int = 4
    context_scale: tuple[float, float] = (0.85, 1.0)
    context_aspect_ratio: tuple[float, float] = (1.0, 1.0)
    num_context_blocks: int = 1
    context_keep: int | float | Literal["all"] = 0.25
    allow_overlap: bool = False
    min_target_patches: int = 4
    min_context_patches: int = 4
