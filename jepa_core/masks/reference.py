"""The published sampler with its quirks, vectorised.

What it keeps of the published one: block sizes drawn once a batch; one number for scale and aspect ratio; block
sides under the grid's, and a first row and column that stop one short, so that the last row and column are never
used; a context that must avoid all targets and, where too little is left after 20 attempts, may cover the last
target blocks one by one; and contexts cut to the smallest of the batch in raster order, which makes the batch on
each GPU part of the geometry.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jepa_core.geometry.feasibility import Plan
from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.settings import MaskSettings
from jepa_core.geometry.shapes import REFERENCE_BITS
from jepa_core.masks.blocks import BlockTables, DrawnBlocks, count_true, union
from jepa_core.masks.draws import below, low_bits, mix, mix_int, sample_keys, streams
from jepa_core.masks.grid import Layout, MaskBatch, MaskSampler

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
        shapes = plan.targets.shapes + plan.contexts.shapes
        self._sides = [(height, width) for height, width, _ in shapes]
        self._num_places = [
            torch.tensor([grid.rows - height, grid.columns - width])[:, None, None]
            for height, width in self._sides
        ]
        self._target_streams = streams(0, settings.num_target_blocks)[:, None]
        self._only_places: dict[int, Tensor] = {}

    def layout(
        self, sample_ids_B: Tensor, epochs_B: Tensor, *, seed: int, step: int, device: torch.device
    ) -> Layout:
        """Where the blocks of a batch lie, on the CPU."""
        keys_B = sample_keys(seed, epochs_B.to(_CPU, torch.int64), sample_ids_B.to(_CPU, torch.int64))
        return self.layout_of(keys_B, *self.draw_cells(seed, step))

    def layout_of(self, keys_B: Tensor, target_cell: int, context_cell: int) -> Layout:
        """Where the blocks of a batch lie, given the two numbers below `NUM_CELLS` that set the shapes."""
        target_shape = int(self.plan.targets.cells[target_cell])
        context_shape = int(self.plan.contexts.cells[context_cell]) + len(self.plan.targets.shapes)
        targets = self._place(mix(self._target_streams + keys_B), target_shape)
        hit_MBN = self._tables.membership(targets)
        covered_BN = union(hit_MBN)
        contexts = [
            self._place_context(keys_B, hit_MBN, covered_BN, context_shape, block)
            for block in range(self.settings.num_context_blocks)
        ]
        inside, available, relaxed = (list(parts) for parts in zip(*contexts, strict=True))
        return Layout(
            target_indices_MBT=self._tables.indices_of_one(targets, target_shape),
            target_valid_MBT=None,
            covered_BN=covered_BN,
            inside_CBN=torch.stack(inside),
            available_CBN=torch.stack(available),
            adjusted_B=union(torch.stack(relaxed)),
            keys_B=keys_B,
        )

    def keep(self, layout: Layout, device: torch.device) -> MaskBatch:
        """Cut every context to the smallest of the batch, in raster order."""
        num_blocks, batch_size, num_patches = layout.available_CBN.shape
        first_R = np.arange(num_blocks * batch_size) * num_patches
        # In NumPy, which finds the places four times as fast as torch does; R counts context blocks of all images.
        places = np.flatnonzero(layout.available_CBN.numpy())
        starts_R = np.searchsorted(places, first_R)
        num_kept = int(np.diff(starts_R, append=len(places)).min())
        kept_RK = places[starts_R[:, None] + np.arange(num_kept)]
        kept_RK -= first_R[:, None]
        kept = torch.from_numpy(kept_RK)
        masks = MaskBatch(
            kept.view(num_blocks, batch_size, num_kept), layout.target_indices_MBT, keys_B=layout.keys_B
        )
        return masks if device == _CPU else masks.to(device, non_blocking=True)

    def draw_cells(self, seed: int, step: int) -> tuple[int, int]:
        """The numbers that set the shapes of target and context blocks at a step."""
        step_key = mix_int(mix_int(seed) + _SIZE_STREAM + step)
        return mix_int(step_key + 1) & (NUM_CELLS - 1), mix_int(step_key + 2) & (NUM_CELLS - 1)

    def _place(self, draws: Tensor, shape: int) -> DrawnBlocks:
        """Blocks of one shape, by its number in the tables, at places drawn with the published, exclusive bound."""
        place_2MB = below(low_bits(torch.stack([draws, draws >> 31]), 31), self._num_places[shape])
        return DrawnBlocks(torch.full_like(draws, shape), place_2MB)

    def _place_context(
        self, keys_B: Tensor, hit_MBN: Tensor, covered_BN: Tensor, shape: int, block: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One context block: its patches [B, N], those that it may keep [B, N], and whether it was relaxed [B].

        All images are tried at once, then those that are left; there are at most M + 1 levels of relaxation, of which
        the last accepts anything.
        """
        num_regions = 0 if self.settings.allow_overlap else len(hit_MBN)
        free_BN = ~covered_BN if num_regions else torch.ones_like(covered_BN)
        stream = _CONTEXT_STREAM * (block + 1)
        inside_BN, available_BN, found_B = self._attempt(keys_B, free_BN, shape, stream)
        if bool(found_B.all()):
            return inside_BN, available_BN, ~found_B
        inside_BN = inside_BN.clone()
        pending_P = (~found_B).nonzero().squeeze(-1)
        for level in range(1, num_regions + 1):
            if not len(pending_P):
                break
            regions = hit_MBN[: num_regions - level, pending_P]
            free_PN = ~union(regions) if len(regions) else torch.ones_like(covered_BN[pending_P])
            stream += NUM_ATTEMPTS
            inside_PN, available_PN, found_P = self._attempt(keys_B[pending_P], free_PN, shape, stream)
            inside_BN[pending_P], available_BN[pending_P] = inside_PN, available_PN
            pending_P = pending_P[~found_P]
        return inside_BN, available_BN, ~found_B

    def _attempt(
        self, keys_P: Tensor, free_PN: Tensor, shape: int, first_stream: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first of 20 places that holds enough free patches.

        Returns the block [P, N], its free patches [P, N], and whether there was such a place [P]. A block that fits in
        one place only is tried once.
        """
        least, (height, width) = self.settings.min_context_patches, self._sides[shape]
        if self.grid.rows - height == self.grid.columns - width == 1:
            block_PN = self._only_place(shape).expand(len(keys_P), -1)
            available_PN = block_PN & free_PN
            return block_PN, available_PN, count_true(available_PN) >= least
        first = self._place(mix(streams(first_stream, 1) + keys_P)[None], shape)
        block_PN = self._tables.membership(first)[0]
        available_PN = block_PN & free_PN
        found_P = count_true(available_PN) >= least
        if bool(found_P.all()):
            return block_PN, available_PN, found_P
        draws = mix(streams(first_stream, NUM_ATTEMPTS)[:, None] + keys_P)
        blocks_APN = self._tables.membership(self._place(draws, shape))
        enough_AP = count_true(blocks_APN & free_PN) >= least
        block_PN = blocks_APN[enough_AP.to(torch.int8).argmax(0), torch.arange(len(keys_P))]
        return block_PN, block_PN & free_PN, enough_AP.any(0)

    def _only_place(self, shape: int) -> Tensor:
        """The patches of a block that fits in one place only: bool [N]."""
        if shape not in self._only_places:
            block = self._place(torch.zeros(1, 1, dtype=torch.int64), shape)
            self._only_places[shape] = self._tables.membership(block)[0, 0]
        return self._only_places[shape]
