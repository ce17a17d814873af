"""How far the target encoder's weights move between two reports: near zero when its moving average stands still."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchestrator.protocol.metrics import TARGET_MOVEMENT


class WeightChange:
    """Remembers one weight of a module; `take` tells its relative change since the last call.

    The largest matrix stands for all parameters, since one momentum moves them all. On a sharded module it is this
    rank's part of it.
    """

    def __init__(self, module: nn.Module) -> None:
        matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        self._weight = max(matrices, key=lambda parameter: parameter.numel(), default=None)
        self._before = self._copy()

    @torch.no_grad()
    def take(self) -> dict[str, float]:
        """The change as `health/target_movement`; nothing for a module without a matrix here."""
        now = self._copy()
        before, self._before = self._before, now
        if now is None or before is None or not now.numel():
            return {}
        change = torch.linalg.vector_norm(now - before) / torch.linalg.vector_norm(before).clamp_min(1e-30)
        return {TARGET_MOVEMENT: float(change)}

    def _copy(self) -> Tensor | None:
        if self._weight is None:
            return None
        weight = self._weight.detach()
        local = weight.to_local() if hasattr(weight, "to_local") else weight
        return local.float().clone()
