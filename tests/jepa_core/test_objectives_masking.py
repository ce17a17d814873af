from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jepa_core.masks import MaskBatch, PatchGrid
from jepa_core.masks.draws import GOLDEN, mix_int, sample_keys
from jepa_core.objectives.masking import (
    _BLOCK_STREAM,
    BlockDraws,
    SplitSampler,
    WholeSampler,
    beit_blocks,
    num_hidden,
    square_blocks,
)

GRID = PatchGrid(14, 14)


def draw(
    sampler: SplitSampler | WholeSampler, count: int = 64, *, first: int = 0, seed: int = 0
) -> MaskBatch:
    ids = torch.arange(first, first + count)
    return sampler.sample(ids, torch.zeros_like(ids), seed=seed, step=0)


def samplers() -> dict[str, SplitSampler]:
    return {
        "random": SplitSampler(grid=GRID, num_visible=49),
        "blocks": SplitSampler(grid=GRID, num_visible=76, blocks=beit_blocks(GRID, max_area_patches=120)),
        "squares": SplitSampler(
            grid=GRID,
            num_visible=39,
            num_splits=3,
            blocks=square_blocks(GRID, side_patches=3, covered_patches=39),
            blocks_are_visible=True,
        ),
    }


@pytest.mark.parametrize("kind", samplers())
def test_visible_and_hidden_patches_are_all_patches_once(kind: str) -> None:
    sampler = samplers()[kind]
    masks = draw(sampler)
    both = torch.cat([masks.context_indices_CBK, masks.target_indices_MBT], dim=-1)
    assert masks.context_indices_CBK.shape == (sampler.num_splits, 64, sampler.num_visible)
    assert torch.equal(both.sort(-1).values, torch.arange(196).expand_as(both))


@pytest.mark.parametrize("kind", samplers())
def test_masks_depend_on_the_sample_and_the_seed_and_on_nothing_else(kind: str) -> None:
    sampler = samplers()[kind]
    whole, part = draw(sampler), draw(sampler, 5, first=7)
    assert torch.equal(part.context_indices_CBK, whole.context_indices_CBK[:, 7:12])
    assert not torch.equal(draw(sampler, seed=1).context_indices_CBK, whole.context_indices_CBK)


def naive_order(key: int, split: int, blocks: BlockDraws, splits: int, grid: PatchGrid) -> list[int]:
    """The number of the first block over each patch, one block and one patch at a time."""

    def number(kind: int, block: int) -> int:
        stream = _BLOCK_STREAM + (kind * splits + split) * blocks.num_blocks + block
        return mix_int(key + (stream + 1) * GOLDEN)

    order = [blocks.num_blocks] * grid.num_patches
    for block in reversed(range(blocks.num_blocks)):
        height, width = blocks.shapes[number(0, block) % len(blocks.shapes)]
        extra = (height - 1, width - 1) if blocks.overhang else (0, 0)
        places = [
            (
                (number(kind, block) & 0x7FFFFFFF) * (side + (length - 1 if blocks.overhang else 1 - length))
                >> 31
            )
            - more
            for kind, side, length, more in (
                (1, grid.rows, height, extra[0]),
                (2, grid.columns, width, extra[1]),
            )
        ]
        for patch in range(grid.num_patches):
            row, column = divmod(patch, grid.columns)
            if 0 <= row - places[0] < height and 0 <= column - places[1] < width:
                order[patch] = block
    return order


@pytest.mark.parametrize("kind", ["blocks", "squares"])
def test_blocks_cover_patches_in_the_order_in_which_they_are_laid(kind: str) -> None:
    sampler = samplers()[kind]
    assert sampler.blocks is not None
    masks = draw(sampler, 6)
    keys = sample_keys(0, torch.zeros(6, dtype=torch.int64), torch.arange(6))
    for split in range(sampler.num_splits):
        for image in range(6):
            order = torch.tensor(
                naive_order(int(keys[image]), split, sampler.blocks, sampler.num_splits, GRID)
            )
            visible, hidden = masks.context_indices_CBK[split, image], masks.target_indices_MBT[split, image]
            covered, rest = (visible, hidden) if kind == "squares" else (hidden, visible)
            assert order[covered].max() <= order[rest].min()


def neighbours_alike(hidden_BN: Tensor) -> float:
    """Share of pairs of neighbouring patches in a row of which both are hidden or both visible."""
    rows = hidden_BN.view(-1, 14, 14)
    return (rows[..., 1:] == rows[..., :-1]).float().mean().item()


def test_hidden_blocks_hang_together_and_hidden_random_patches_do_not() -> None:
    alike = {}
    for kind in ("random", "blocks"):
        masks = draw(samplers()[kind], 200)
        hidden = torch.zeros(200, 196, dtype=torch.bool).scatter_(1, masks.target_indices_MBT[0], True)
        alike[kind] = neighbours_alike(hidden)
    assert alike["random"] == pytest.approx(0.75**2 + 0.25**2, abs=0.02)
    assert alike["blocks"] > 0.85


@pytest.mark.parametrize("kind", ["random", "squares"])
def test_every_patch_is_hidden_equally_often(kind: str) -> None:
    sampler = samplers()[kind]
    hidden = draw(sampler, 4000).target_indices_MBT[0].flatten()
    share = torch.bincount(hidden, minlength=196) / 4000
    assert (share - (1 - sampler.num_visible / 196)).abs().max() < 0.04


def test_a_method_that_hides_nothing_gets_the_keys_of_its_samples() -> None:
    masks = draw(WholeSampler(GRID), 3)
    assert masks.keys_B is not None
    assert torch.equal(masks.keys_B, sample_keys(0, torch.zeros(3, dtype=torch.int64), torch.arange(3)))
    assert masks.target_indices_MBT.shape == (0, 3, 0)


def test_a_share_leaves_something_to_see_and_something_to_predict() -> None:
    assert [num_hidden(PatchGrid(2, 2), share) for share in (0.01, 0.5, 0.99)] == [1, 2, 3]
    with pytest.raises(ValueError, match="share of patches that is hidden"):
        SplitSampler(grid=PatchGrid(1, 1), num_visible=1)
