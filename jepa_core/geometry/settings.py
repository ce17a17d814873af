"""The settings of a mask geometry and the rules that hold on every grid.

Rules that need the grid (does a block reach its minimum, can context remain) are in `feasibility`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

Strategy = Literal["exact", "reference", "random", "block", "rasterized"]

_STRATEGIES = ("exact", "reference", "random", "block", "rasterized")
_COUNTS = ("num_target_blocks", "num_context_blocks", "min_target_patches", "min_context_patches")


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """Which patches are context and which are targets.

    Scales are fractions of the grid's area; aspect ratios are height over width, in patches; `context_keep` is the
    number of context patches that reach the encoder: a fraction of the grid (float), a count (int) or "all"
    (ragged, padded). `min_target_patches` and `min_context_patches` are the least that a block may hold.

    `sampler` is "exact" (scale and aspect ratio independent, every position reachable, the default), "reference"
    (the published sampler with its quirks; it ignores `context_keep` and cuts to the batch's minimum), or one of the
    paper's ablations, whose context is all that the targets leave: "random" (target patches at random), "block"
    (a block as in `exact`; the paper takes one of scale 0.6) and "rasterized" (a quadrant predicts the other three).

    Raises:
        ValueError: a value breaks a rule; the message names the field first, then the rule and the value.

    Source: Assran et al. 2023, section 3 and tables 6, 8, 9 and 10.
    Deviates: `context_keep` is ours. In the published sampler the batch on each GPU decides how much is kept. Its
        `min_keep: 10` asks for more than 10 patches, and is written here as a minimum of 11.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    sampler: Strategy = "exact"
    """How blocks are drawn: independently, as published, or as one of the ablations of the paper."""
    target_scale: tuple[float, float] = (0.15, 0.2)
    """Area of a target block as a fraction of the grid, drawn between the two."""
    target_aspect_ratio: tuple[float, float] = (0.75, 1.5)
    """Height over width of a target block, in patches, drawn between the two."""
    num_target_blocks: int = 4
    """Target blocks an image."""
    context_scale: tuple[float, float] = (0.85, 1.0)
    """Area of a context block as a fraction of the grid, before the targets are taken out of it."""
    context_aspect_ratio: tuple[float, float] = (1.0, 1.0)
    """Height over width of a context block, in patches."""
    num_context_blocks: int = 1
    """Context blocks an image."""
    context_keep: int | float | Literal["all"] = 0.25
    """Context patches that reach the encoder: a fraction of the grid, a count, or `all`."""
    allow_overlap: bool = False
    """Whether the context may hold patches of the targets."""
    min_target_patches: int = 4
    """The fewest patches that a target block may hold."""
    min_context_patches: int = 4
    """The fewest patches that a context block may hold."""

    def __post_init__(self) -> None:
        if self.sampler not in _STRATEGIES:
            raise ValueError(f"sampler must be one of {', '.join(_STRATEGIES)}, not {self.sampler!r}")
        for name in ("target_scale", "context_scale"):
            _check_range(name, getattr(self, name), highest=1.0)
        for name in ("target_aspect_ratio", "context_aspect_ratio"):
            _check_range(name, getattr(self, name), highest=math.inf)
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        _check_keep(self.context_keep)


def _check_range(name: str, bounds: tuple[float, float], *, highest: float) -> None:
    if len(bounds) != 2 or not all(math.isfinite(bound) for bound in bounds):
        raise ValueError(f"{name} must be two finite numbers [low, high], not {list(bounds)}")
    low, high = bounds
    if low > high:
        raise ValueError(
            f"{name} must be [low, high] with low at most high, not {list(bounds)}; try {[high, low]}"
        )
    if low <= 0:
        raise ValueError(f"{name} must be above 0, not {list(bounds)}")
    if high > highest:
        raise ValueError(f"{name} must be at most {highest:g}, the whole grid, not {list(bounds)}")


def _check_keep(keep: object) -> None:
    if keep == "all":
        return
    if isinstance(keep, bool) or not isinstance(keep, int | float):
        raise ValueError(f"context_keep must be a count, a fraction of the grid or 'all', not {keep!r}")
    if isinstance(keep, int) and keep < 1:
        raise ValueError(f"context_keep as a count must be at least 1, not {keep}")
    if isinstance(keep, float) and not 0 < keep <= 1:
        raise ValueError(f"context_keep as a fraction of the grid must be above 0 and at most 1, not {keep}")
