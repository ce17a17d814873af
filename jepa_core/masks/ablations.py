"""The masking strategies that the paper compares multi-block with (table 6).

`block` is the exact sampler with the whole grid as context block, and needs no class of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_core.geometry.feasibility import Plan
from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.settings import MaskSettings
from jepa_core.geometry.shapes import CELL_BITS
from jepa_core.masks.blocks import Rectangles, union
from jepa_core.masks.draws import low_bits, mix, shuffled, smallest, streams_32
from jepa_core.masks.exact import ExactSampler

_FIRST_STREAM = 1 << 28
"""Streams before this one shuffle the context."""


class RandomSampler(ExactSampler):
    """Targets are patches drawn at random, a share of the grid between the bounds of `target_scale`."""

    def __init__(self, settings: MaskSettings, grid: PatchGrid, plan: Plan) -> None:
        super().__init__(settings, grid, plan)
        self._offsets: dict[torch.device, Tensor] = {}

    def _blocks(self, keys_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        num_blocks, num_patches = self.settings.num_target_blocks, self.grid.num_patches
        device, constants = keys_B.device, self.constants(keys_B.device)
        offsets = (
            streams_32(_FIRST_STREAM, num_blocks * num_patches).view(num_blocks, 1, num_patches).to(device)
        )
        rank_MBN = shuffled(keys_B, offsets, constants.patches)
        best_MBT = smallest(rank_MBN, self.plan.num_target_patches)
        best_MBT = low_bits(best_MBT, constants.index_bits).to(torch.int64)
        count_MB = self._counts(keys_B)
        valid_MBT = torch.arange(self.plan.num_target_patches, device=device) < count_MB[..., None]
        hit_MBN = torch.zeros(rank_MBN.shape, dtype=torch.bool, device=device).scatter_(
            -1, best_MBT, valid_MBT
        )
        covered_BN, copy_MB = self.uncrowd(hit_MBN)
        if copy_MB is not None:
            best_MBT = torch.where(copy_MB[..., None], best_MBT[:1], best_MBT)
            valid_MBT = torch.where(copy_MB[..., None], valid_MBT[:1], valid_MBT)
        inside_CBN = torch.ones_like(covered_BN).expand(self.settings.num_context_blocks, -1, -1)
        return (
            best_MBT * valid_MBT,
            valid_MBT,
            covered_BN,
            None if copy_MB is None else copy_MB.any(0),
            inside_CBN,
        )

    def _counts(self, keys_B: Tensor) -> Tensor:
        """The patches of each target: the width of a block on a grid of one row."""
        constants = self.constants(keys_B.device)
        draw_MB = mix(constants.offsets[0, : self.settings.num_target_blocks] + keys_B)
        return constants.blocks.width[constants.cells[low_bits(draw_MB, CELL_BITS)]]


class RasterizedSampler(ExactSampler):
    """A quadrant drawn at random is the context, the other three are the targets, in raster order.

    An odd side is cut before or after its middle, at random.
    """

    def _blocks(self, keys_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        draws_B = mix(self.constants(keys_B.device).offsets[0, 0] + keys_B)
        quadrant_B = low_bits(draws_B, 2)
        number_M1 = torch.arange(3, device=keys_B.device)[:, None]
        targets = self._rectangles(number_M1 + (number_M1 >= quadrant_B), draws_B)
        indices_MBT, valid_MBT = targets.indices(self.grid, self.plan.num_target_patches)
        covered_BN = union(targets.membership(self.grid))
        return indices_MBT, valid_MBT, covered_BN, None, ~covered_BN[None]

    def _rectangles(self, quadrant: Tensor, draws_B: Tensor) -> Rectangles:
        lower, right = quadrant >> 1, low_bits(quadrant, 1)
        top, height = _cut(lower, self.grid.rows, low_bits(draws_B >> 2, 1))
        left, width = _cut(right, self.grid.columns, low_bits(draws_B >> 3, 1))
        return Rectangles(top, left, height, width)


def _cut(half: Tensor, side: int, draw_B: Tensor) -> tuple[Tensor, Tensor]:
    """Start and length of a side's first (0) or second (1) half."""
    middle_B = side // 2 + draw_B * (side % 2)
    return half * middle_B, torch.where(half > 0, side - middle_B, middle_B)
