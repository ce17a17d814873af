"""The target encoder as an exponential moving average of the context encoder."""

from __future__ import annotations

import torch
from torch import nn

from jepa_core.settings import EmaSettings as EmaSettings
from jepa_core.sharding import is_sharded, local_parts


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
