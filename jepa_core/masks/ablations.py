"""The masking strategies that the paper compares multi-block with (table 6).

`block` is the exact sampler with the whole grid as context block, and needs no class of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_core.masks.draws import low_bits, mix
from jepa_core.masks.exact import ExactSampler, Rectangles
from jepa_core.masks.shapes import DITHER_BITS, LEVEL_BITS, SIDE_BITS

_PATCH_STREAM = 1 << 40
_PATCH_BITS = 15


class RandomSampler(ExactSampler):
    """Targets are patches drawn at random, a share of the grid between the bounds of `target_scale`."""

    def _targets(self, keys_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        num_blocks, num_patches = self.settings.num_target_blocks, self.grid.num_patches
        offsets = self._streams("targets", 0, 2 * num_blocks, keys_B.device)[::2, None]
        draws_MB = mix(keys_B + offsets)
        packed_MB = self._table("targets", keys_B.device)[low_bits(draws_MB, 2 * LEVEL_BITS)]
        dither_MB = low_bits(draws_MB >> 2 * LEVEL_BITS, DITHER_BITS)
        count_MB = low_bits(packed_MB >> SIDE_BITS, SIDE_BITS) + (dither_MB < packed_MB >> 2 * SIDE_BITS + 1)
        offsets = self._streams("patches", _PATCH_STREAM, num_blocks * num_patches, keys_B.device)
        rank_MBN = mix(keys_B[:, None] + offsets.view(num_blocks, 1, num_patches))
        rank_MBN &= ((1 << 63) - 1) - ((1 << _PATCH_BITS) - 1)
        rank_MBN |= torch.arange(num_patches, device=keys_B.device)
        best_MBT = low_bits(rank_MBN.topk(self.plan.num_target_patches, dim=-1).values, _PATCH_BITS)
        valid_MBT = torch.arange(self.plan.num_target_patches, device=keys_B.device) < count_MB[..., None]
        hit_MBN = torch.zeros_like(rank_MBN, dtype=torch.bool).scatter_(-1, best_MBT, valid_MBT)
        moved_B = torch.zeros_like(keys_B, dtype=torch.bool)
        covered_BN = hit_MBN.any(0)
        if self.plan.may_crowd:
            covered_BN, copy_MB = self._uncrowd(hit_MBN)
            copy_MB1, moved_B = copy_MB[..., None], copy_MB.any(0)
            best_MBT = torch.where(copy_MB1, best_MBT[:1], best_MBT)
            valid_MBT = torch.where(copy_MB1, valid_MBT[:1], valid_MBT)
        return best_MBT * valid_MBT, valid_MBT, covered_BN, moved_B


class RasterizedSampler(ExactSampler):
    """A quadrant drawn at random is the context, the other three are the targets, in raster order.

    An odd side is cut before or after its middle, at random.
    """

    def target_blocks(self, keys_B: Tensor) -> Rectangles:
        """The three quadrants that are not context."""
        quadrant_B, draws_B = self._quadrant(keys_B)
        number_M1 = torch.arange(3, device=keys_B.device)[:, None]
        return self._rectangles(number_M1 + (number_M1 >= quadrant_B), draws_B)

    def context_blocks(self, keys_B: Tensor) -> Rectangles:
        """The quadrant that is context."""
        quadrant_B, draws_B = self._quadrant(keys_B)
        return self._rectangles(quadrant_B[None], draws_B)

    def _quadrant(self, keys_B: Tensor) -> tuple[Tensor, Tensor]:
        draws_B = mix(keys_B + self._streams("targets", 0, 1, keys_B.device))
        return low_bits(draws_B, 2), draws_B

    def _rectangles(self, quadrant: Tensor, draws_B: Tensor) -> Rectangles:
        lower, right = quadrant >> 1, low_bits(quadrant, 1)
        top, height = _cut(lower, self.grid.rows, low_bits(draws_B >> 2, 1))
        left, width = _cut(right, self.grid.columns, low_bits(draws_B >> 3, 1))
        return Rectangles(top, left, height, width)


def _cut(half: Tensor, side: int, draw_B: Tensor) -> tuple[Tensor, Tensor]:
    """Start and length of a side's first (0) or second (1) half."""
    middle_B = side // 2 + draw_B * (side % 2)
    return half * middle_B, torch.where(half > 0, side - middle_B, middle_B)
