"""The masking strategies of the paper's table 6."""

import pytest
import torch

from jepa_core.masks import MaskSettings, PatchGrid, audit_geometry, build_sampler, geometry_key
from jepa_core.masks.metrics import patch_counts

GRID = PatchGrid(14, 14)


def single(sampler: str, **changes) -> MaskSettings:
    return MaskSettings(
        sampler=sampler, target_scale=(0.6, 0.6), num_target_blocks=1, context_keep="all", **changes
    )


@pytest.mark.parametrize("sampler", ["random", "block"])
def test_one_target_of_sixty_per_cent_leaves_the_rest_as_context(sampler):
    audit = audit_geometry(single(sampler), GRID)
    assert audit.target_fraction.mean == pytest.approx(0.6, abs=0.002)
    assert audit.context_fraction.mean == pytest.approx(0.4, abs=0.002)
    assert audit.overlap_fraction == 0


def test_random_targets_reach_every_patch_equally_often():
    audit = audit_geometry(single("random"), GRID, num_samples=20_000, batch_size=1000)
    assert float((torch.tensor(audit.target_coverage) - 0.6).abs().max()) < 0.02


def test_random_targets_are_not_blocks():
    masks = build_sampler(single("random"), GRID).sample(
        torch.arange(8), torch.zeros(8).long(), seed=0, step=0
    )
    target_BN = patch_counts(masks.target_indices_MBT, masks.target_valid_MBT, 196)
    assert all(len({int(row.sum()) for row in image.view(14, 14)}) > 2 for image in target_BN)


@pytest.mark.parametrize("grid", [PatchGrid(14, 14), PatchGrid(7, 9)])
def test_one_quadrant_predicts_the_other_three(grid):
    mask_settings = MaskSettings(sampler="rasterized", num_target_blocks=3, context_keep="all")
    audit = audit_geometry(mask_settings, grid, num_samples=20_000, batch_size=1000)
    assert audit.target_union_fraction.mean == pytest.approx(0.75, abs=0.01)
    assert audit.target_overlap_fraction == audit.overlap_fraction == 0
    assert audit.context_fraction.mean == pytest.approx(0.25, abs=0.01)
    covered = torch.tensor(audit.context_coverage)
    assert all(float((covered - covered.flip(side)).abs().max()) < 0.02 for side in (0, 1))


def test_a_block_is_the_exact_sampler_with_the_whole_grid_as_context():
    exact = single("exact", context_scale=(1.0, 1.0))
    assert geometry_key(single("block"), GRID) == geometry_key(exact, GRID)
    ids_B = torch.arange(16)
    one, other = (
        build_sampler(item, GRID).sample(ids_B, ids_B * 0, seed=0, step=0)
        for item in (single("block"), exact)
    )
    assert torch.equal(one.context_indices_CBK, other.context_indices_CBK)
