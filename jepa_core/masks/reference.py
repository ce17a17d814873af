"""The published sampler with its quirks, vectorised.

What it keeps of the published one: block sizes drawn once a batch; one number for scale and aspect ratio; block
sides under the grid's, and a first row and column that stop one short, so that the last row and column are never
used; a context that must avoid all targets and, where too little is left after 20 attempts, may cover the last
target blocks one by one; and contexts cut to the smallest of the batch in raster order, which makes the batch on
each GPU part of the geometry.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_core.masks.blocks import BlockTables, DrawnBlocks, count_true, union
from jepa_core.masks.draws import below, low_bits, mix, mix_int, sample_keys, streams
from jepa_core.masks.feasibility import Plan
from jepa_core.masks.grid import Layout, MaskBatch, MaskSampler, PatchGrid
from jepa_core.masks.settings import MaskSettings
from jepa_core.masks.shapes import REFERENCE_BITS

NUM_ATTEMPTS = 20
NUM_CELLS = 1 << REFERENCE_BITS
_SIZE_STREAM = 1 << 48
_CONTEXT_STREAM = 1 << 16
_CPU = torch.device("cpu")


class ReferenceSampler(MaskSampler):
    """Masks as the published implementation draws them; for comparison with the paper.

    Sizes are drawn for (run seed, step), the same on every rank; places for (run seed, epoch, sample id). The masks
    are drawn on the CPU whatever the device, because their size depends on the draws.

    Deviates: blocks are never under their minimum, where the published loop does not end; `build_sampler` refuses
        such geometries.
    """

    def __init__(self, settings: MaskSettings, grid: PatchGrid, plan: Plan) -> None:
        super().__init__(settings, grid)
        self.plan = plan
        self._tables = BlockTables([plan.targets, plan.contexts], grid, _CPU)
        self._target_streams = streams(0, settings.num_target_blocks)[:, None]

    def layout(
        self, sample_ids_B: Tensor, epochs_B: Tensor, *, seed: int, step: int, device: torch.device
    ) -> Layout:
        """Where the blocks of a batch lie, on the CPU."""
        keys_B = sample_keys(seed, epochs_B.to(_CPU, torch.int64), sample_ids_B.to(_CPU, torch.int64))
        return self.layout_of(keys_B, *self.draw_cells(seed, step))

    def layout_of(self, keys_B: Tensor, target_cell: int, context_cell: int) -> Layout:
        """Where the blocks of a batch lie, given the two numbers below `NUM_CELLS` that set the shapes."""
        target_shape = int(self.plan.targets.low[target_cell])
        context_shape = int(self.plan.contexts.low[context_cell])
        targets = self._place(mix(self._target_streams + keys_B), target_shape)
        hit_MBN = self._tables.membership(targets)
        height, width, _ = self.plan.targets.shapes[target_shape]
        indices_MBT, _ = self._tables.indices(targets, height * width)
        contexts = [
            self._place_context(keys_B, hit_MBN, context_shape, block)
            for block in range(self.settings.num_context_blocks)
        ]
        inside, available, relaxed = (list(parts) for parts in zip(*contexts, strict=True))
        return Layout(
            target_indices_MBT=indices_MBT,
            target_valid_MBT=None,
            covered_BN=union(hit_MBN),
            inside_CBN=torch.stack(inside),
            available_CBN=torch.stack(available),
            adjusted_B=torch.stack(relaxed).any(0),
            keys_B=keys_B,
        )

    def keep(self, layout: Layout, device: torch.device) -> MaskBatch:
        """Cut every context to the smallest of the batch, in raster order."""
        num_blocks, batch_size, num_patches = layout.available_CBN.shape
        counts = count_true(layout.available_CBN).flatten()
        num_kept = int(counts.min())
        first = counts.cumsum(0) - counts
        all_places = layout.available_CBN.view(-1).nonzero().squeeze(-1)
        kept = all_places.take(first[:, None] + torch.arange(num_kept))
        kept -= torch.arange(len(counts))[:, None] * num_patches
        masks = MaskBatch(kept.view(num_blocks, batch_size, num_kept), layout.target_indices_MBT)
        return masks if device == _CPU else masks.to(device, non_blocking=True)

    def draw_cells(self, seed: int, step: int) -> tuple[int, int]:
        """The numbers that set the shapes of target and context blocks at a step."""
        step_key = mix_int(mix_int(seed) + _SIZE_STREAM + step)
        return mix_int(step_key + 1) & (NUM_CELLS - 1), mix_int(step_key + 2) & (NUM_CELLS - 1)

    def _place(self, draws: Tensor, shape: int) -> DrawnBlocks:
        """Blocks of one shape, by its number in the tables, at places drawn with the published, exclusive bound."""
        tops, lefts = (int(count) - 1 for count in self._tables.num_places_2S[:, shape])
        top, left = below(low_bits(draws, 31), tops), below(low_bits(draws >> 31, 31), lefts)
        return DrawnBlocks(torch.full_like(draws, shape), torch.stack([top, left]))

    def _place_context(
        self, keys_B: Tensor, hit_MBN: Tensor, shape: int, block: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One context block: its patches [B, N], those that it may keep [B, N], and whether it was relaxed [B].

        All images are tried at once, then those that are left; there are at most M + 1 levels of relaxation, of which
        the last accepts anything.
        """
        num_regions = 0 if self.settings.allow_overlap else len(hit_MBN)
        first_stream = _CONTEXT_STREAM * (block + 1)
        inside_BN, found_B, free_BN = self._attempt(keys_B, hit_MBN[:num_regions], shape, first_stream)
        available_BN = inside_BN & free_BN
        relaxed_B = ~found_B
        pending_P = relaxed_B.nonzero().squeeze(-1)
        for level in range(1, num_regions + 1):
            if not len(pending_P):
                break
            regions = hit_MBN[: num_regions - level, pending_P]
            stream = first_stream + level * NUM_ATTEMPTS
            block_PN, found_P, free_PN = self._attempt(keys_B[pending_P], regions, shape, stream)
            inside_BN[pending_P], available_BN[pending_P] = block_PN, block_PN & free_PN
            pending_P = pending_P[~found_P]
        return inside_BN, available_BN, relaxed_B

    def _attempt(
        self, keys_P: Tensor, regions: Tensor, shape: int, first_stream: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first of 20 places that holds enough patches outside the regions.

        Returns the block [P, N], whether it holds enough [P], and what is outside the regions [P, N]. A block that
        fits in one place only is tried once.
        """
        free_PN = ~union(regions) if len(regions) else torch.ones(len(keys_P), self.grid.num_patches) > 0
        height, width, _ = self.plan.contexts.shapes[shape]
        one_place = self.grid.rows - height == self.grid.columns - width == 1
        draws = mix(streams(first_stream, 1 if one_place else NUM_ATTEMPTS)[:, None] + keys_P)
        places = self._place(draws, shape + len(self.plan.targets.shapes))
        least = self.settings.min_context_patches
        first_PN = self._tables.membership(places[:1])[0]
        found_P = count_true(first_PN & free_PN) >= least
        if one_place or bool(found_P.all()):
            return first_PN, found_P, free_PN
        blocks_APN = self._tables.membership(places)
        enough_AP = count_true(blocks_APN & free_PN) >= least
        first_P = enough_AP.to(torch.int8).argmax(0)
        return blocks_APN[first_P, torch.arange(len(keys_P))], enough_AP.any(0), free_PN
