"""The default sampler, and the frame that it shares with the ablations.

Every draw is a function of (run seed, epoch, sample id) and of what it is for, so that masks do not depend on the
batch, the number of workers or a resume, and two geometries see the same draws. All shapes are static and nothing
waits for the device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jepa_core.geometry.feasibility import Plan
from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.settings import MaskSettings
from jepa_core.geometry.shapes import CELL_BITS
from jepa_core.masks.blocks import BlockTables, DrawnBlocks, union
from jepa_core.masks.draws import (
    RANK_LIMIT,
    bits_for,
    low_bits,
    mix,
    sample_keys,
    shuffled,
    smallest,
    streams,
    streams_32,
)
from jepa_core.masks.grid import Layout, MaskBatch, MaskSampler

_CONTEXT_STREAM = 1 << 16


class _Constants:
    """What a sampler holds on one device."""

    def __init__(self, plan: Plan, settings: MaskSettings, grid: PatchGrid, device: torch.device) -> None:
        num_targets, num_contexts = settings.num_target_blocks, settings.num_context_blocks
        self.blocks = BlockTables([plan.targets, plan.contexts], grid, device)
        context_cells = plan.contexts.cells + np.int32(len(plan.targets.shapes))
        self.cells = torch.from_numpy(np.concatenate([plan.targets.cells, context_cells])).to(device)
        first_cell = torch.tensor([0] * num_targets + [len(plan.targets.cells)] * num_contexts)
        self.first_cell = first_cell[:, None].to(device)
        offsets = torch.cat([streams(0, 3 * num_targets), streams(_CONTEXT_STREAM, 3 * num_contexts)])
        self.offsets = offsets.view(-1, 3).T.contiguous()[..., None].to(device)
        self.keep_offsets = (
            streams_32(0, num_contexts * grid.num_patches).view(num_contexts, 1, -1).to(device)
        )
        self.patches = torch.arange(grid.num_patches, dtype=torch.int32, device=device)
        self.index_bits = bits_for(grid.num_patches)
        bar_K = torch.full((plan.num_context_patches,), RANK_LIMIT, dtype=torch.int32)
        if not settings.allow_overlap:
            bar_K[: settings.min_context_patches] = 2 * RANK_LIMIT
        self.bar_K = bar_K.to(device)


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
        self._constants: dict[torch.device, _Constants] = {}

    def layout(
        self, sample_ids_B: Tensor, epochs_B: Tensor, *, seed: int, step: int, device: torch.device
    ) -> Layout:
        """Where the blocks of a batch lie; `step` plays no part."""
        ids_B = sample_ids_B.to(device, torch.int64, non_blocking=True)
        keys_B = sample_keys(seed, epochs_B.to(device, torch.int64, non_blocking=True), ids_B)
        indices_MBT, valid_MBT, covered_BN, moved_B, inside_CBN = self._blocks(keys_B)
        available_CBN = inside_CBN if self.settings.allow_overlap else inside_CBN & ~covered_BN
        return Layout(
            target_indices_MBT=indices_MBT,
            target_valid_MBT=None if self.plan.targets_always_full else valid_MBT,
            covered_BN=covered_BN,
            inside_CBN=inside_CBN,
            available_CBN=available_CBN,
            adjusted_B=moved_B,
            keys_B=keys_B,
        )

    def keep(self, layout: Layout, device: torch.device) -> MaskBatch:
        """Keep K context patches of each block, drawn at random.

        Each patch gets a number: its top bits say where it lies (0 in the block and uncovered, 1 uncovered and drawn
        only to fill up to the minimum, 2 neither), then come random bits, and the patch. The K smallest are kept.
        """
        constants = self.constants(device)
        rank_CBN = shuffled(layout.keys_B, constants.keep_offsets, constants.patches)
        tier_CBN = (~layout.available_CBN).view(torch.uint8)
        if not self.settings.allow_overlap:
            tier_CBN += layout.covered_BN
        rank_CBN.add_(tier_CBN, alpha=RANK_LIMIT)
        best_CBK = smallest(rank_CBN, self.plan.num_context_patches)
        indices_CBK, valid_CBK = low_bits(best_CBK, constants.index_bits), None
        if not self.plan.context_always_full:
            valid_CBK = best_CBK < constants.bar_K
            indices_CBK *= valid_CBK
        return MaskBatch(
            indices_CBK,
            layout.target_indices_MBT,
            valid_CBK,
            layout.target_valid_MBT,
            keys_B=layout.keys_B,
        )

    def draw_blocks(self, keys_B: Tensor) -> DrawnBlocks:
        """All blocks as drawn, targets first: three draws a block, for its shape, top and left."""
        constants = self.constants(keys_B.device)
        draws = mix(constants.offsets + keys_B)
        cell = low_bits(draws[0], CELL_BITS) + constants.first_cell
        shape = constants.cells.index_select(0, cell.view(-1))
        return constants.blocks.draw_places(shape.view(draws.shape[1:]), draws[1:])

    def constants(self, device: torch.device) -> _Constants:
        """The tables on a device, made once."""
        if device not in self._constants:
            self._constants[device] = _Constants(self.plan, self.settings, self.grid, device)
        return self._constants[device]

    def _blocks(self, keys_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """The blocks of a batch.

        Returns target indices and validity [M, B, T], the patches that targets cover [B, N], the images whose blocks
        were moved [B] (None: none ever is), and the patches inside each context block [C, B, N].
        """
        tables, drawn = self.constants(keys_B.device).blocks, self.draw_blocks(keys_B)
        num_targets = self.settings.num_target_blocks
        hit = tables.membership(drawn)
        covered_BN, copy_MB = self.uncrowd(hit[:num_targets])
        targets = drawn[:num_targets]
        if copy_MB is not None:
            targets = targets.replaced(copy_MB)
        indices_MBT, valid_MBT = tables.indices(targets, self.plan.num_target_patches)
        return (
            indices_MBT,
            valid_MBT,
            covered_BN,
            None if copy_MB is None else copy_MB.any(0),
            hit[num_targets:],
        )

    def uncrowd(self, hit_MBN: Tensor) -> tuple[Tensor, Tensor | None]:
        """The patches that targets cover [B, N], and which blocks must move onto the first for that [M, B].

        A block moves if the context minimum would not hold with it; None where that cannot happen.
        """
        if not self.plan.may_crowd:
            return union(hit_MBN), None
        most = self.grid.num_patches - self.settings.min_context_patches
        covered_BN = hit_MBN[0]
        copies = [torch.zeros_like(covered_BN[:, 0])]
        for hit_BN in hit_MBN[1:]:
            grown_BN = covered_BN | hit_BN
            copies.append(grown_BN.sum(-1) > most)
            covered_BN = torch.where(copies[-1][:, None], covered_BN, grown_BN)
        return covered_BN, torch.stack(copies)
