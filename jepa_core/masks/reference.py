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

from jepa_core.masks.draws import below, low_bits, mix, mix_int, sample_keys, streams
from jepa_core.masks.exact import Rectangles
from jepa_core.masks.feasibility import Plan
from jepa_core.masks.grid import Layout, MaskBatch, MaskSampler, PatchGrid
from jepa_core.masks.settings import MaskSettings
from jepa_core.masks.shapes import REFERENCE_BITS, SIDE_BITS, ShapeTable

NUM_ATTEMPTS = 20
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
        self._place = torch.arange(plan.num_target_patches)
        self._target_table = torch.from_numpy(plan.targets.packed)
        self._context_table = torch.from_numpy(plan.contexts.packed)

    def layout(
        self, sample_ids_B: Tensor, epochs_B: Tensor, *, seed: int, step: int, device: torch.device
    ) -> Layout:
        """Where the blocks of a batch lie, on the CPU."""
        keys_B = sample_keys(seed, epochs_B.to(_CPU, torch.int64), sample_ids_B.to(_CPU, torch.int64))
        step_key = mix_int(mix_int(seed) + _SIZE_STREAM + step)
        target_size = _draw_size(self.plan.targets, mix_int(step_key + 1))
        context_size = _draw_size(self.plan.contexts, mix_int(step_key + 2))
        offsets_M1 = streams(0, self.settings.num_target_blocks, _CPU)[:, None]
        targets = self._place_blocks(mix(keys_B + offsets_M1), target_size)
        hit_MBN = targets.membership(self.grid)
        indices_MBT, _ = targets.indices(self.grid, target_size[0] * target_size[1])
        contexts = [
            self._place_context(keys_B, hit_MBN, context_size, block)
            for block in range(self.settings.num_context_blocks)
        ]
        inside, available, relaxed = (list(parts) for parts in zip(*contexts, strict=True))
        return Layout(
            target_indices_MBT=indices_MBT,
            target_valid_MBT=None,
            covered_BN=hit_MBN.any(0),
            inside_CBN=torch.stack(inside),
            available_CBN=torch.stack(available),
            adjusted_B=torch.stack(relaxed).any(0),
            keys_B=keys_B,
        )

    def keep(self, layout: Layout, device: torch.device) -> MaskBatch:
        """Cut every context to the smallest of the batch, in raster order."""
        available_CBN = layout.available_CBN
        num_blocks, batch_size, _ = available_CBN.shape
        rank_CBN = available_CBN.cumsum(-1)
        num_kept = int(rank_CBN[..., -1].min())
        kept_CBN = available_CBN & (rank_CBN <= num_kept)
        indices_CBK = kept_CBN.nonzero()[:, -1].view(num_blocks, batch_size, num_kept)
        return MaskBatch(indices_CBK, layout.target_indices_MBT).to(device, non_blocking=True)

    def _place_blocks(self, draws: Tensor, size: tuple[int, int]) -> Rectangles:
        """Blocks of one size at places drawn with the published, exclusive bound."""
        top = below(low_bits(draws, 31), self.grid.rows - size[0])
        left = below(low_bits(draws >> 31, 31), self.grid.columns - size[1])
        return Rectangles(top, left, torch.full_like(top, size[0]), torch.full_like(top, size[1]))

    def _place_context(
        self, keys_B: Tensor, hit_MBN: Tensor, size: tuple[int, int], block: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One context block: its patches [B, N], those that it may keep [B, N], and whether it was relaxed [B].

        All images are tried at once, then those that are left; there are at most M + 1 levels of relaxation, of which
        the last accepts anything.
        """
        num_levels = 1 if self.settings.allow_overlap else len(hit_MBN) + 1
        inside_BN = torch.zeros_like(hit_MBN[0])
        available_BN, relaxed_B = torch.zeros_like(inside_BN), torch.zeros_like(inside_BN[:, 0])
        pending_P = torch.arange(len(keys_B))
        for level in range(num_levels):
            num_regions = 0 if self.settings.allow_overlap else len(hit_MBN) - level
            free_PN = ~hit_MBN[:num_regions, pending_P].any(0)
            stream = _CONTEXT_STREAM * (block + 1) + level * NUM_ATTEMPTS
            block_PN, found_P = self._attempt(keys_B[pending_P], free_PN, size, stream)
            done_P = pending_P[found_P]
            inside_BN[done_P] = block_PN[found_P]
            available_BN[done_P] = (block_PN & free_PN)[found_P]
            relaxed_B[done_P] = level > 0
            pending_P = pending_P[~found_P]
            if not len(pending_P):
                break
        return inside_BN, available_BN, relaxed_B

    def _attempt(
        self, keys_P: Tensor, free_PN: Tensor, size: tuple[int, int], stream: int
    ) -> tuple[Tensor, Tensor]:
        """The first of 20 places that holds enough free patches: the block [P, N], and whether there is one [P]."""
        least = self.settings.min_context_patches
        one_place = (self.grid.rows - size[0]) * (self.grid.columns - size[1]) == 1
        draws = mix(keys_P + streams(stream, 1 if one_place else NUM_ATTEMPTS, _CPU)[:, None])
        places = self._place_blocks(draws, size)
        first_PN = Rectangles(*(side[:1] for side in vars(places).values())).membership(self.grid)[0]
        found_P = (first_PN & free_PN).sum(-1) >= least
        if one_place or bool(found_P.all()):
            return first_PN, found_P
        blocks_APN = places.membership(self.grid)
        enough_AP = (blocks_APN & free_PN).sum(-1) >= least
        first_P = enough_AP.to(torch.int8).argmax(0)
        return blocks_APN[first_P, torch.arange(len(keys_P))], enough_AP.any(0)


def _draw_size(table: ShapeTable, draw: int) -> tuple[int, int]:
    packed = int(table.packed[draw & ((1 << REFERENCE_BITS) - 1)])
    return packed & ((1 << SIDE_BITS) - 1), packed >> SIDE_BITS
