"""The target encoder as an exponential moving average of the context encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from jepa_core.sharding import is_sharded, local_parts


@dataclass(frozen=True, kw_only=True)
class EmaSettings:
    """Momentum of the target encoder, linear from `start_momentum` to `final_momentum` over the run."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    start_momentum: float = 0.996
    """Share of itself that the target encoder keeps at the first step."""
    final_momentum: float = 1.0
    """The same at the last step; 1 leaves it where it is."""

    def __post_init__(self) -> None:
        for key in ("start_momentum", "final_momentum"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} must be between 0 and 1, not {getattr(self, key)}")


class MovingAverage:
    """The parameters of `target` and of what it follows, found once: finding them costs more than averaging them.

    Make it after the last change of which parameters the modules hold.

    Source: I-JEPA (arXiv 2301.08243), section 3; momentum schedule in appendix A.1.
    """

    def __init__(self, target: nn.Module, source: nn.Module) -> None:
        self.targets, self.sources = list(target.parameters()), list(source.parameters())
        self._sharded = any(is_sharded(parameter) for parameter in self.targets)

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Move every parameter to momentum * target + (1 - momentum) * source, all in a few kernels."""
        targets: list[torch.Tensor] = [*self.targets]
        sources: list[torch.Tensor] = [*self.sources]
        if self._sharded:
            targets, sources = local_parts(targets), local_parts(sources)
        torch._foreach_lerp_(targets, sources, 1.0 - momentum)


def update_ema(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """One update of a `MovingAverage`.

    Both modules must have the same parameters in the same order; sharded ones must be sharded alike.
    """
    MovingAverage(target, source).update(momentum)
