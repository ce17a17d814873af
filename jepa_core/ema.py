"""The target encoder as an exponential moving average of the context encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from jepa_core.sharding import local_parts


@dataclass(frozen=True, kw_only=True)
class EmaSettings:
    """Momentum of the target encoder, linear from `start_momentum` to `final_momentum` over the run."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    start_momentum: float = 0.996
    final_momentum: float = 1.0

    def __post_init__(self) -> None:
        for key in ("start_momentum", "final_momentum"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} must be between 0 and 1, not {getattr(self, key)}")


@torch.no_grad()
def update_ema(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """Move every parameter of `target` to momentum * target + (1 - momentum) * source, all in a few kernels.

    Both modules must have the same parameters in the same order; sharded ones must be sharded alike.

    Source: I-JEPA (arXiv 2301.08243), section 3; momentum schedule in appendix A.1.
    """
    targets, sources = local_parts(list(target.parameters())), local_parts(list(source.parameters()))
    torch._foreach_lerp_(targets, sources, 1.0 - momentum)
