"""The reference sampler against the published sampler's statistics and a plain re-implementation."""

import itertools

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from jepa_core.masks import MaskSettings, PatchGrid, audit_geometry, build_sampler
from jepa_core.masks.draws import sample_keys
from jepa_core.masks.reference import NUM_CELLS, ReferenceSampler

REFERENCE = MaskSettings(sampler="reference")
GRID = PatchGrid(14, 14)


def mean_kept(grid: PatchGrid, batch_size: int, num_batches: int) -> float:
    return audit_geometry(
        REFERENCE, grid, num_samples=batch_size * num_batches, batch_size=batch_size
    ).context_patches.mean


def test_single_images_keep_as_much_context_as_published():
    audit = audit_geometry(REFERENCE, GRID, num_samples=2500, batch_size=1)
    assert audit.context_patches.mean == pytest.approx(81.8, abs=1.0)
    assert audit.context_patches.sd == pytest.approx(13.5, abs=0.7)
    assert audit_geometry(
        REFERENCE, PatchGrid(16, 16), num_samples=2500, batch_size=1
    ).context_patches.mean == (pytest.approx(109.9, abs=1.3))


def test_batches_of_128_are_cut_as_published():
    assert mean_kept(GRID, 128, 300) == pytest.approx(51, abs=1.6)
    assert mean_kept(PatchGrid(16, 16), 128, 300) == pytest.approx(69, abs=1.6)


def test_larger_batches_keep_less_context():
    kept = [mean_kept(GRID, size, 200) for size in (1, 16, 64, 256)]
    assert kept == pytest.approx([82, 60, 52, 47], abs=1.7)


def test_block_shapes_come_as_often_as_published():
    audit = audit_geometry(REFERENCE, GRID, num_samples=128)
    shares = {(shape.height, shape.width): shape.share for shape in audit.target_shapes}
    published = {(7, 5): 0.37, (5, 6): 0.27, (6, 6): 0.21, (6, 5): 0.13, (8, 5): 0.03}
    assert shares == pytest.approx(published, abs=0.01)
    assert [(shape.height, shape.width, shape.share) for shape in audit.context_shapes] == [(13, 13, 1.0)]
    assert audit.target_fraction.mean * 196 == pytest.approx(33, abs=0.7)


@pytest.mark.parametrize(
    ("low", "sides"), [(0.75, {12, 13}), (0.65, {11, 12, 13}), (0.4, {9, 10, 11, 12, 13})]
)
def test_context_sides_come_as_published(low, sides):
    mask_settings = MaskSettings(sampler="reference", context_scale=(low, 1.0))
    audit = audit_geometry(mask_settings, GRID, num_samples=128)
    assert {shape.height for shape in audit.context_shapes} == sides


def test_target_blocks_of_16x16_have_the_published_size():
    audit = audit_geometry(REFERENCE, PatchGrid(16, 16), num_samples=128)
    assert 43 < audit.target_fraction.mean * 256 < 45


def test_last_row_and_column_are_never_used():
    audit = audit_geometry(REFERENCE, GRID, num_samples=16_384)
    assert audit.target_row_coverage[-1] == audit.target_column_coverage[-1] == 0
    assert audit.context_row_coverage[-1] == audit.context_column_coverage[-1] == 0
    assert min(audit.target_row_coverage[:-1]) > 0
    assert "rows 13 and columns 13" in audit.warnings[0]


def test_the_top_of_the_image_is_kept_more_often_than_the_bottom():
    audit = audit_geometry(REFERENCE, GRID, num_samples=16_384)
    top, bottom = audit.context_row_coverage[:7], audit.context_row_coverage[7:]
    assert sum(top) / 7 == pytest.approx(0.41, abs=0.03)
    assert sum(bottom) / 7 == pytest.approx(0.10, abs=0.02)


def test_context_is_cut_in_raster_order_to_the_smallest_of_the_batch():
    sampler = build_sampler(REFERENCE, GRID)
    ids_B = torch.arange(32)
    layout = sampler.layout(ids_B, ids_B * 0, seed=0, step=0, device=torch.device("cpu"))
    kept_BK = sampler.keep(layout, torch.device("cpu")).context_indices_CBK[0]
    available = [row.nonzero().flatten() for row in layout.available_CBN[0]]
    assert kept_BK.shape[1] == min(len(row) for row in available)
    assert all(torch.equal(kept, row[: len(kept)]) for kept, row in zip(kept_BK, available, strict=True))


def test_sizes_change_by_step_and_places_by_sample():
    sampler = build_sampler(REFERENCE, GRID)
    ids_B = torch.arange(4)
    sizes = {
        sampler.sample(ids_B, ids_B * 0, seed=0, step=step).target_indices_MBT.shape[-1] for step in range(40)
    }
    assert sizes == {30, 35, 36, 40}
    first, again = (sampler.sample(ids_B, ids_B * 0, seed=0, step=3) for _ in range(2))
    assert torch.equal(first.target_indices_MBT, again.target_indices_MBT)
    swapped = sampler.sample(ids_B.flip(0), ids_B * 0, seed=0, step=3)
    assert torch.equal(swapped.target_indices_MBT.flip(1), first.target_indices_MBT)


@examples(300)
@given(
    st.integers(2, 12),
    st.integers(2, 12),
    st.floats(0.05, 0.9),
    st.floats(0.05, 1.0),
    st.integers(1, 5),
    st.integers(1, 2),
    st.booleans(),
)
def test_every_accepted_geometry_ends_within_its_minimum(
    rows, columns, scale, context, blocks, contexts, overlap
):
    mask_settings = MaskSettings(
        sampler="reference",
        target_scale=(scale, scale),
        context_scale=(context, 1.0),
        num_target_blocks=blocks,
        num_context_blocks=contexts,
        allow_overlap=overlap,
    )
    grid = PatchGrid(rows, columns)
    try:
        sampler = build_sampler(mask_settings, grid)
    except ValueError:
        return
    masks = sampler.sample(torch.arange(5), torch.zeros(5, dtype=torch.int64), seed=0, step=0)
    assert masks.context_indices_CBK.shape[:2] == (contexts, 5)
    assert masks.context_indices_CBK.shape[-1] >= mask_settings.min_context_patches
    assert masks.target_indices_MBT.shape[-1] >= mask_settings.min_target_patches
    last = torch.tensor(
        [p for p in range(grid.num_patches) if (p + 1) % columns == 0 or p >= (rows - 1) * columns]
    )
    assert not bool(torch.isin(masks.context_indices_CBK, last).any())


def test_context_is_relaxed_one_target_block_at_a_time():
    """A target as large as the context block leaves nothing, so the last block must give way, and only that."""
    mask_settings = MaskSettings(sampler="reference", target_scale=(0.3, 0.3), num_target_blocks=4)
    sampler = build_sampler(mask_settings, PatchGrid(6, 6))
    assert isinstance(sampler, ReferenceSampler)
    keys_B = sample_keys(0, torch.zeros(400, dtype=torch.int64), torch.arange(400))
    layout = sampler.layout_of(keys_B, NUM_CELLS // 2, NUM_CELLS // 2)
    relaxed = layout.adjusted_B
    overlap_B = (layout.available_CBN[0] & layout.covered_BN).sum(-1)
    assert 0 < int(relaxed.sum()) < 400
    assert bool((overlap_B[~relaxed] == 0).all())
    assert bool((overlap_B[relaxed] > 0).all())
    assert bool((layout.available_CBN[0].sum(-1) >= mask_settings.min_context_patches).all())
    for image, block in itertools.product(relaxed.nonzero().flatten().tolist(), [0]):
        assert not bool(layout.available_CBN[0, image, layout.target_indices_MBT[block, image]].any())
