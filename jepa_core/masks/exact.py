"""The default sampler, and the frame that it shares with the ablations.

Every draw is a function of (run seed, epoch, sample id) and of what it is for, so that masks do not depend on the
batch, the number of workers or a resume, and two geometries see the same draws. All shapes are static and nothing
waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jepa_core.masks.draws import below, low_bits, mix, sample_keys, streams
from jepa_core.masks.feasibility import Plan
from jepa_core.masks.grid import Layout, MaskBatch, MaskSampler, PatchGrid
from jepa_core.masks.settings import MaskSettings
from jepa_core.masks.shapes import DITHER_BITS, LEVEL_BITS, SIDE_BITS

TARGET_STREAM = 0
CONTEXT_STREAM = 1 << 16
KEEP_STREAM = 1 << 32
_PATCH_BITS = 15
_IN_BLOCK = 1 << 62
_OUT_OF_BLOCK = 1 << 61
_KEY_MASK = (1 << 61) - 1 - ((1 << _PATCH_BITS) - 1)


@dataclass(frozen=True)
class Rectangles:
    """Blocks by their sides and the place of their first patch: int64 [M, B] each (or [C, B])."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def membership(self, grid: PatchGrid) -> Tensor:
        """Which patches lie in each block: bool [M, B, N]."""
        rows = torch.arange(grid.rows, device=self.top.device) - self.top[..., None]
        columns = torch.arange(grid.columns, device=self.top.device) - self.left[..., None]
        in_row = (rows >= 0) & (rows < self.height[..., None])
        in_column = (columns >= 0) & (columns < self.width[..., None])
        return (in_row[..., :, None] & in_column[..., None, :]).flatten(-2)

    def indices(self, grid: PatchGrid, num_patches: int) -> tuple[Tensor, Tensor]:
        """The patches of each block, padded: int64 and bool [M, B, T]."""
        place = torch.arange(num_patches, device=self.top.device)
        row = ((place + 0.5) / self.width[..., None]).to(torch.int64)
        valid = place < (self.height * self.width)[..., None]
        first = self.top * grid.columns + self.left
        index = first[..., None] + place + row * (grid.columns - self.width)[..., None]
        return index * valid, valid

    def replaced(self, copy_MB: Tensor) -> Rectangles:
        """The same blocks, with the first block's place and sides where `copy_MB` is True."""
        return Rectangles(
            *(torch.where(copy_MB, side[:1], side) for side in (self.top, self.left, self.height, self.width))
        )


class ExactSampler(MaskSampler):
    """Blocks whose scale and aspect ratio are drawn independently, each sample and block for itself.

    A block may lie anywhere in the grid. The context is what the targets leave of the context block; of it, K patches
    drawn at random are kept. Where less than `min_context_patches` would be left, the rest is drawn from the patches
    outside both; where the targets cover too much of the grid even for that, later target blocks move onto the
    first one.

    Deviates: published are one number for scale and aspect ratio, one block size a batch, a last row and column
        that are never used, and a context cut in raster order to the smallest of the batch. See `reference`.
    """

    def __init__(self, settings: MaskSettings, grid: PatchGrid, plan: Plan) -> None:
        super().__init__(settings, grid)
        self.plan = plan
        self._tables: dict[tuple[str, torch.device], Tensor] = {}

    def layout(
        self, sample_ids_B: Tensor, epochs_B: Tensor, *, seed: int, step: int, device: torch.device
    ) -> Layout:
        """Where the blocks of a batch lie; `step` plays no part."""
        ids_B = sample_ids_B.to(device, torch.int64, non_blocking=True)
        keys_B = sample_keys(seed, epochs_B.to(device, torch.int64, non_blocking=True), ids_B)
        indices_MBT, valid_MBT, covered_BN, copied_B = self._targets(keys_B)
        inside_CBN = self._contexts(keys_B)
        available_CBN = inside_CBN
        if not self.settings.allow_overlap:
            available_CBN = inside_CBN & ~covered_BN
        return Layout(
            target_indices_MBT=indices_MBT,
            target_valid_MBT=None if self.plan.targets_always_full else valid_MBT,
            covered_BN=covered_BN,
            inside_CBN=inside_CBN,
            available_CBN=available_CBN,
            adjusted_B=copied_B,
            keys_B=keys_B,
        )

    def keep(self, layout: Layout, device: torch.device) -> MaskBatch:
        """Keep K context patches of each block, drawn at random.

        Each patch gets a random number whose top bits say where it lies: in the block, outside it but uncovered (to
        fill up to the minimum), or neither. The K largest are kept.
        """
        plan, num_blocks = self.plan, self.settings.num_context_blocks
        offsets_CN = self._streams("keep", KEEP_STREAM, num_blocks * self.grid.num_patches, device)
        rank_CBN = mix(layout.keys_B[:, None] + offsets_CN.view(num_blocks, 1, -1))
        rank_CBN &= _KEY_MASK
        rank_CBN |= torch.arange(self.grid.num_patches, device=device)
        if not self.settings.allow_overlap:
            rank_CBN += ~layout.covered_BN * _OUT_OF_BLOCK
        rank_CBN += layout.available_CBN * (_IN_BLOCK - _OUT_OF_BLOCK * (not self.settings.allow_overlap))
        best_CBK = rank_CBN.topk(plan.num_context_patches, dim=-1).values
        indices_CBK = low_bits(best_CBK, _PATCH_BITS)
        if plan.context_always_full:
            return MaskBatch(indices_CBK, layout.target_indices_MBT, None, layout.target_valid_MBT)
        bar_K = torch.full((plan.num_context_patches,), _IN_BLOCK, device=device)
        bar_K[: self.settings.min_context_patches] = _OUT_OF_BLOCK
        valid_CBK = best_CBK >= bar_K
        return MaskBatch(
            indices_CBK * valid_CBK, layout.target_indices_MBT, valid_CBK, layout.target_valid_MBT
        )

    def _targets(self, keys_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Target indices and validity [M, B, T], the patches they cover [B, N], images with moved blocks [B]."""
        blocks = self.target_blocks(keys_B)
        hit_MBN = blocks.membership(self.grid)
        moved_B = torch.zeros_like(keys_B, dtype=torch.bool)
        covered_BN = hit_MBN.any(0)
        if self.plan.may_crowd:
            covered_BN, copy_MB = self._uncrowd(hit_MBN)
            blocks, moved_B = blocks.replaced(copy_MB), copy_MB.any(0)
        indices_MBT, valid_MBT = blocks.indices(self.grid, self.plan.num_target_patches)
        return indices_MBT, valid_MBT, covered_BN, moved_B

    def _contexts(self, keys_B: Tensor) -> Tensor:
        """The context blocks: bool [C, B, N]."""
        return self.context_blocks(keys_B).membership(self.grid)

    def target_blocks(self, keys_B: Tensor) -> Rectangles:
        """The target blocks as drawn, before any is moved."""
        return self._draw_blocks("targets", TARGET_STREAM, self.settings.num_target_blocks, keys_B)

    def context_blocks(self, keys_B: Tensor) -> Rectangles:
        """The context blocks as drawn."""
        return self._draw_blocks("contexts", CONTEXT_STREAM, self.settings.num_context_blocks, keys_B)

    def _draw_blocks(self, name: str, first_stream: int, count: int, keys_B: Tensor) -> Rectangles:
        """Two draws a block: the shape's cell and rounding, and the place."""
        offsets = self._streams(name, first_stream, 2 * count, keys_B.device)
        draws = mix(keys_B + offsets[:, None]).view(count, 2, -1)
        packed = self._table(name, keys_B.device)[low_bits(draws[:, 0], 2 * LEVEL_BITS)]
        dither = low_bits(draws[:, 0] >> 2 * LEVEL_BITS, DITHER_BITS)
        grows = (dither < packed >> 2 * SIDE_BITS + 1).to(torch.int64)
        grow_height = low_bits(packed >> 2 * SIDE_BITS, 1)
        height = low_bits(packed, SIDE_BITS) + grows * grow_height
        width = low_bits(packed >> SIDE_BITS, SIDE_BITS) + grows * (1 - grow_height)
        top = below(low_bits(draws[:, 1], 31), self.grid.rows + 1 - height)
        left = below(low_bits(draws[:, 1] >> 31, 31), self.grid.columns + 1 - width)
        return Rectangles(top, left, height, width)

    def _uncrowd(self, hit_MBN: Tensor) -> tuple[Tensor, Tensor]:
        """Which blocks must move onto the first for the context minimum to hold: covered [B, N], copy [M, B]."""
        most = self.grid.num_patches - self.settings.min_context_patches
        covered_BN = hit_MBN[0]
        copies = [torch.zeros_like(covered_BN[:, 0])]
        for hit_BN in hit_MBN[1:]:
            grown_BN = covered_BN | hit_BN
            copies.append(grown_BN.sum(-1) > most)
            covered_BN = torch.where(copies[-1][:, None], covered_BN, grown_BN)
        return covered_BN, torch.stack(copies)

    def _table(self, name: str, device: torch.device) -> Tensor:
        if (name, device) not in self._tables:
            shapes = self.plan.targets if name == "targets" else self.plan.contexts
            self._tables[name, device] = torch.from_numpy(np.ascontiguousarray(shapes.packed)).to(device)
        return self._tables[name, device]

    def _streams(self, name: str, first: int, count: int, device: torch.device) -> Tensor:
        key = (f"streams of {name}", device)
        if key not in self._tables:
            self._tables[key] = streams(first, count, device)
        return self._tables[key]
