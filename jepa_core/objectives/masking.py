"""How the methods beside I-JEPA hide patches: a fixed number of them, at random or in blocks.

Every draw is a function of (run seed, epoch, sample id), as in `jepa_core.masks`. Sizes are fixed, so that shapes are
static and nothing is padded.

Shape suffixes: B images, N patches of the grid, S splits of an image, K visible patches, J blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jepa_core.masks import MaskBatch, PatchGrid
from jepa_core.masks.draws import (
    RANK_LIMIT,
    below,
    bits_for,
    low_bits,
    mix,
    sample_keys,
    shuffled,
    smallest,
    streams,
    streams_32,
)

_BLOCK_STREAM = 1 << 20
"""Streams before this one shuffle the patches."""
_LEVELS = 32
"""Steps that the areas and the aspect ratios of blocks are drawn from."""


@dataclass(frozen=True, kw_only=True)
class BlockDraws:
    """Blocks that are laid one after another until enough patches are covered.

    `shapes` lists equally likely (height, width) in patches, a power of two of them. With `overhang` a block may
    stick out of the grid, which makes every patch equally likely; without it blocks lie inside.
    """

    shapes: tuple[tuple[int, int], ...]
    num_blocks: int
    overhang: bool = False


def beit_blocks(grid: PatchGrid, *, max_area_patches: int, num_blocks: int = 12) -> BlockDraws:
    """Blocks of 8 % of the grid up to `max_area_patches`, of aspect ratios from 0.3 to 1 / 0.3.

    Source: Bao et al. 2022 (BEiT, arXiv 2106.08254), algorithm 1: at least 16 of 196 patches a block.
    Deviates: areas and aspect ratios come in 32 steps each, and a block that is too long for the grid is cut to it
        instead of drawn again.
    """
    least = max(1.0, 16 / 196 * grid.num_patches)
    shapes = []
    for area_level in range(_LEVELS):
        area = least + (area_level + 0.5) / _LEVELS * max(0.0, max_area_patches - least)
        for ratio_level in range(_LEVELS):
            ratio = math.exp(math.log(0.3) * (1 - 2 * (ratio_level + 0.5) / _LEVELS))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            shapes.append((min(max(height, 1), grid.rows), min(max(width, 1), grid.columns)))
    return BlockDraws(shapes=tuple(shapes), num_blocks=num_blocks)


def square_blocks(grid: PatchGrid, *, side_patches: int, covered_patches: int) -> BlockDraws:
    """Squares that may stick out of the grid, about twice as many as cover `covered_patches` without overlap."""
    side = min(side_patches, grid.rows, grid.columns)
    return BlockDraws(
        shapes=((side, side),), num_blocks=2 + math.ceil(2 * covered_patches / side**2), overhang=True
    )


@dataclass(frozen=True, kw_only=True)
class SplitSampler:
    """Splits the grid into visible patches, the context, and hidden ones, the target; `num_splits` times an image.

    Without `blocks` the hidden patches are drawn at random. With `blocks` they are the first that blocks laid one
    after another cover, or the visible ones are (`blocks_are_visible`); of the block that would cover too many,
    patches are drawn at random, and so is what all blocks together leave short.
    """

    grid: PatchGrid
    num_visible: int
    num_splits: int = 1
    blocks: BlockDraws | None = None
    blocks_are_visible: bool = False
    _constants: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        if not 1 <= self.num_visible < self.grid.num_patches:
            raise ValueError(
                f"{self.num_visible} visible patches of a {self.grid} grid leave nothing to see or nothing to "
                "predict; change the share of patches that is hidden"
            )

    def sample(
        self,
        sample_ids_B: Tensor,
        epochs_B: Tensor,
        *,
        seed: int,
        step: int,
        device: torch.device | str = "cpu",
    ) -> MaskBatch:
        """Context [S, B, K] and target [S, B, N - K], split by split; `step` plays no part."""
        device = torch.device(device)
        keys_B = keys_on(device, sample_ids_B, epochs_B, seed=seed)
        offsets_S1N, patches_N = self._on(device)
        rank_SBN = shuffled(keys_B, offsets_S1N, patches_N).to(torch.int64)
        if self.blocks is not None:
            order_SBN = self._first_block(keys_B, self.blocks)
            rank_SBN += RANK_LIMIT * (order_SBN if self.blocks_are_visible else -order_SBN)
        ordered_SBN = low_bits(smallest(rank_SBN, self.grid.num_patches), bits_for(self.grid.num_patches))
        return MaskBatch(
            ordered_SBN[..., : self.num_visible].contiguous(),
            ordered_SBN[..., self.num_visible :].contiguous(),
            keys_B=keys_B,
        )

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._constants:
            patches = self.grid.num_patches
            offsets = streams_32(0, self.num_splits * patches).view(self.num_splits, 1, patches)
            self._constants[device] = (
                offsets.to(device),
                torch.arange(patches, dtype=torch.int32, device=device),
            )
        return self._constants[device]

    def _first_block(self, keys_B: Tensor, blocks: BlockDraws) -> Tensor:
        """The number of the first block that covers each patch, J where none does: int64 [S, B, N]."""
        count, grid = blocks.num_blocks, self.grid
        offsets = streams(_BLOCK_STREAM, 3 * self.num_splits * count).to(keys_B.device)
        draws = mix(offsets.view(3, self.num_splits, count, 1) + keys_B)
        sides_2Z = torch.tensor(blocks.shapes, device=keys_B.device).T
        height, width = sides_2Z[:, low_bits(draws[0], bits_for(len(blocks.shapes))) % len(blocks.shapes)]
        top = _place(draws[1], grid.rows, height, overhang=blocks.overhang)
        left = _place(draws[2], grid.columns, width, overhang=blocks.overhang)
        patch_N = torch.arange(grid.num_patches, device=keys_B.device)
        row_N, column_N = patch_N // grid.columns, patch_N % grid.columns
        first = torch.full((self.num_splits, len(keys_B), grid.num_patches), count, device=keys_B.device)
        for block in reversed(range(count)):
            inside = _within(row_N, top[:, block], height[:, block]) & _within(
                column_N, left[:, block], width[:, block]
            )
            first.masked_fill_(inside, block)
        return first


@dataclass(frozen=True)
class WholeSampler:
    """Hides nothing: gives the keys from which a method draws its augmentations."""

    grid: PatchGrid

    def sample(
        self,
        sample_ids_B: Tensor,
        epochs_B: Tensor,
        *,
        seed: int,
        step: int,
        device: torch.device | str = "cpu",
    ) -> MaskBatch:
        """Every patch as context [1, B, N], no target, and the keys; `step` plays no part."""
        device = torch.device(device)
        keys_B = keys_on(device, sample_ids_B, epochs_B, seed=seed)
        patches = torch.arange(self.grid.num_patches, device=device)
        return MaskBatch(
            patches.expand(1, len(keys_B), -1), patches.new_empty(0, len(keys_B), 0), keys_B=keys_B
        )


def keys_on(device: torch.device, sample_ids_B: Tensor, epochs_B: Tensor, *, seed: int) -> Tensor:
    """The keys of a batch's samples, on a device."""
    ids_B = sample_ids_B.to(device, torch.int64, non_blocking=True)
    return sample_keys(seed, epochs_B.to(device, torch.int64, non_blocking=True), ids_B)


def num_hidden(grid: PatchGrid, fraction: float) -> int:
    """Patches that a share of the grid comes to, at least 1 and not all."""
    return min(max(1, round(fraction * grid.num_patches)), grid.num_patches - 1)


def block_sampler(grid: PatchGrid, hidden_fraction: float) -> SplitSampler:
    """The sampler that lays blocks until a share of the grid is hidden."""
    hidden = num_hidden(grid, hidden_fraction)
    return SplitSampler(
        grid=grid,
        num_visible=grid.num_patches - hidden,
        blocks=beit_blocks(grid, max_area_patches=hidden),
    )


def _place(draws: Tensor, side: int, length: Tensor, *, overhang: bool) -> Tensor:
    bits = low_bits(draws, 31)
    if overhang:
        return below(bits, side + length - 1) - (length - 1)
    return below(bits, side - length + 1)


def _within(place_N: Tensor, start_SB: Tensor, length_SB: Tensor) -> Tensor:
    start = start_SB[..., None]
    return (place_N >= start) & (place_N < start + length_SB[..., None])
