"""The default sampler, and the frame that it shares with the ablations.

Every draw is a function of (run seed, epoch, sample id) and of what it is for, so that masks do not depend on the
batch, the number of workers or a resume, and two geometries see the same draws. All shapes are static and nothing
waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_core.masks.blocks import BlockTables, DrawnBlocks, union
from jepa_core.masks.draws import below, low_bits, mix, mix_32, sample_keys, streams, streams_32
from jepa_core.masks.feasibility import Plan
from jepa_core.masks.grid import Layout, MaskBatch, MaskSampler, PatchGrid
from jepa_core.masks.settings import MaskSettings
from jepa_core.masks.shapes import DITHER_BITS, LEVEL_BITS

_CONTEXT_STREAM = 1 << 16
_UNCOVERED = 1 << 29
_AVAILABLE = 1 << 30


class _Constants:
    """What a sampler holds on one device."""

    def __init__(self, plan: Plan, settings: MaskSettings, grid: PatchGrid, device: torch.device) -> None:
        num_targets, num_contexts = settings.num_target_blocks, settings.num_context_blocks
        kinds = [plan.targets, plan.contexts]
        self.blocks = BlockTables(kinds, grid, device)
        first_context = len(plan.targets.shapes)
        low = torch.cat(
            [torch.from_numpy(plan.targets.low), torch.from_numpy(plan.contexts.low) + first_context]
        )
        high = torch.cat(
            [torch.from_numpy(plan.targets.high), torch.from_numpy(plan.contexts.high) + first_context]
        )
        self.low, self.high = low.to(device), high.to(device)
        self.grow = torch.cat([torch.from_numpy(kind.grow) for kind in kinds]).to(device)
        first_cell = torch.tensor([0] * num_targets + [len(plan.targets.low)] * num_contexts)
        self.first_cell = first_cell[:, None].to(device)
        offsets = torch.cat([streams(0, 2 * num_targets), streams(_CONTEXT_STREAM, 2 * num_contexts)])
        self.offsets = offsets.view(-1, 2).T.contiguous()[..., None].to(device)
        self.keep_offsets = streams_32(num_contexts * grid.num_patches).view(num_contexts, 1, -1).to(device)
        patches = torch.arange(grid.num_patches, dtype=torch.int32)
        self.patches = (patches | (0 if settings.allow_overlap else _UNCOVERED)).to(device)
        bar_K = torch.full((plan.num_context_patches,), _AVAILABLE, dtype=torch.int32)
        bar_K[: settings.min_context_patches] = _UNCOVERED
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
        self._index_bits = max(1, (grid.num_patches - 1).bit_length())
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

        Each patch gets a random number. Its top bits say where it lies: in the block and uncovered, uncovered (to
        fill up to the minimum), or neither; its lowest bits are the patch. The K largest are kept.
        """
        constants = self.constants(device)
        rank_CBN = mix_32(constants.keep_offsets + layout.keys_B.to(torch.int32)[:, None])
        rank_CBN &= _UNCOVERED - (1 << self._index_bits)
        rank_CBN |= constants.patches
        if not self.settings.allow_overlap:
            rank_CBN *= ~layout.covered_BN
        rank_CBN.add_(layout.available_CBN, alpha=_AVAILABLE if self.settings.allow_overlap else _UNCOVERED)
        best_CBK = rank_CBN.topk(self.plan.num_context_patches, dim=-1).values
        indices_CBK = low_bits(best_CBK, self._index_bits).to(torch.int64)
        valid_CBK = None
        if not self.plan.context_always_full:
            valid_CBK = best_CBK >= constants.bar_K
            indices_CBK *= valid_CBK
        return MaskBatch(indices_CBK, layout.target_indices_MBT, valid_CBK, layout.target_valid_MBT)

    def draw_blocks(self, keys_B: Tensor) -> DrawnBlocks:
        """All blocks as drawn, targets first: two draws a block, for its shape and for its place."""
        constants = self.constants(keys_B.device)
        shape_draw, place_draw = mix(constants.offsets + keys_B)
        cell = low_bits(shape_draw, 2 * LEVEL_BITS) + constants.first_cell
        dither = low_bits(shape_draw >> 2 * LEVEL_BITS, DITHER_BITS)
        grows = dither < constants.grow.take(cell)
        shape = torch.where(grows, constants.high.take(cell), constants.low.take(cell))
        top = below(low_bits(place_draw, 31), constants.blocks.num_tops.take(shape))
        left = below(low_bits(place_draw >> 31, 31), constants.blocks.num_lefts.take(shape))
        return DrawnBlocks(shape, top, left)

    def constants(self, device: torch.device) -> _Constants:
        """The tables on a device, made once."""
        if device not in self._constants:
            self._constants[device] = _Constants(self.plan, self.settings, self.grid, device)
        return self._constants[device]

    def _blocks(self, keys_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The blocks of a batch.

        Returns target indices and validity [M, B, T], the patches that targets cover [B, N], the images whose blocks
        were moved [B], and the patches inside each context block [C, B, N].
        """
        tables, drawn = self.constants(keys_B.device).blocks, self.draw_blocks(keys_B)
        num_targets = self.settings.num_target_blocks
        hit = tables.membership(drawn)
        covered_BN, copy_MB = self.uncrowd(hit[:num_targets])
        targets = drawn[:num_targets]
        if copy_MB is not None:
            targets = targets.replaced(copy_MB)
        indices_MBT, valid_MBT = tables.indices(targets, self.plan.num_target_patches)
        return indices_MBT, valid_MBT, covered_BN, any_copy(copy_MB, keys_B), hit[num_targets:]

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


def any_copy(copy_MB: Tensor | None, keys_B: Tensor) -> Tensor:
    """Images of which any block was moved: bool [B]."""
    return torch.zeros_like(keys_B, dtype=torch.bool) if copy_MB is None else copy_MB.any(0)
