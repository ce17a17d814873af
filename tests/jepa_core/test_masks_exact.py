"""The exact sampler: what is promised for every geometry, and the statistics of the default one."""

import pytest
import torch
from examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from jepa_core.geometry.shapes import CELL_BITS
from jepa_core.masks import MaskBatch, MaskSettings, PatchGrid, audit_geometry, build_sampler
from jepa_core.masks.blocks import BlockTables, DrawnBlocks
from jepa_core.masks.draws import low_bits, mix, sample_keys
from jepa_core.masks.metrics import patch_counts

GRID = PatchGrid(14, 14)
MANY = examples(1500, suppress_health_check=[HealthCheck.too_slow])
FEW = examples(150)


@st.composite
def geometries(draw: st.DrawFn, samplers: tuple[str, ...] = ("exact", "exact", "block", "random")):
    """Settings and a grid, most of which can be sampled."""
    grid = PatchGrid(draw(st.integers(2, 18)), draw(st.integers(2, 18)))
    scale = st.floats(0.02, 0.9)
    aspect = st.floats(0.2, 5.0)
    low, high = sorted([draw(scale), draw(scale)])
    context_low, context_high = sorted([draw(scale), draw(st.floats(0.5, 1.0))])
    minimum = draw(st.integers(1, 4))
    return (
        MaskSettings(
            sampler=draw(st.sampled_from(samplers)),
            target_scale=(low, high),
            target_aspect_ratio=tuple(sorted([draw(aspect), draw(aspect)])),
            num_target_blocks=draw(st.integers(1, 6)),
            context_scale=(context_low, context_high),
            context_aspect_ratio=tuple(sorted([draw(aspect), draw(aspect)])),
            num_context_blocks=draw(st.integers(1, 2)),
            context_keep=draw(st.sampled_from([0.25, 0.5, minimum, "all"])),
            allow_overlap=draw(st.booleans()),
            min_target_patches=draw(st.integers(1, 4)),
            min_context_patches=minimum,
        ),
        grid,
    )


def built(geometry):
    try:
        return build_sampler(*geometry)
    except ValueError:
        return None


def sample(sampler, ids, *, seed=0, epoch=0, step=0, device="cpu") -> MaskBatch:
    ids_B = torch.as_tensor(ids)
    return sampler.sample(ids_B, torch.full_like(ids_B, epoch), seed=seed, step=step, device=device)


def rows_of(indices, valid, block, image):
    row = indices[block, image]
    return row.tolist() if valid is None else row[valid[block, image]].tolist()


@MANY
@given(geometries(), st.integers(0, 2**40))
def test_indices_are_distinct_in_range_and_never_both_context_and_target(geometry, first_id):
    sampler = built(geometry)
    if sampler is None:
        return
    mask_settings, grid = geometry
    masks = sample(sampler, range(first_id, first_id + 6))
    context_BN = patch_counts(masks.context_indices_CBK, masks.context_valid_CBK, grid.num_patches)
    target_BN = patch_counts(masks.target_indices_MBT, masks.target_valid_MBT, grid.num_patches)
    for indices in (masks.context_indices_CBK, masks.target_indices_MBT):
        assert indices.dtype == torch.int64
        assert 0 <= int(indices.min()) <= int(indices.max()) < grid.num_patches
    for block in range(mask_settings.num_context_blocks):
        rows = [
            rows_of(masks.context_indices_CBK, masks.context_valid_CBK, block, image) for image in range(6)
        ]
        assert all(len(set(row)) == len(row) >= mask_settings.min_context_patches for row in rows)
    for block in range(mask_settings.num_target_blocks):
        rows = [rows_of(masks.target_indices_MBT, masks.target_valid_MBT, block, image) for image in range(6)]
        assert all(len(set(row)) == len(row) >= mask_settings.min_target_patches for row in rows)
    if not mask_settings.allow_overlap:
        assert not bool(((context_BN > 0) & (target_BN > 0)).any())


@MANY
@given(geometries(), st.integers(0, 10_000), st.integers(0, 2**62), st.integers(1, 5))
def test_masks_do_not_depend_on_how_a_batch_is_split(geometry, first_id, seed, cut):
    sampler = built(geometry)
    if sampler is None:
        return
    ids = list(range(first_id, first_id + 6))
    whole = sample(sampler, ids, seed=seed, step=1)
    parts = [sample(built(geometry), part, seed=seed, step=9) for part in (ids[:cut], ids[cut:])]
    for name in ("context_indices_CBK", "target_indices_MBT", "context_valid_CBK", "target_valid_MBT"):
        tensors = [getattr(part, name) for part in parts]
        assert (tensors[0] is None) == (getattr(whole, name) is None)
        if tensors[0] is not None:
            assert torch.equal(torch.cat(tensors, dim=1), getattr(whole, name))


@FEW
@given(geometries(samplers=("exact",)))
def test_target_blocks_are_rectangles_padded_with_index_zero(geometry):
    sampler = built(geometry)
    if sampler is None:
        return
    mask_settings, grid = geometry
    masks = sample(sampler, range(4))
    for block in range(mask_settings.num_target_blocks):
        for image in range(4):
            patches = rows_of(masks.target_indices_MBT, masks.target_valid_MBT, block, image)
            rows, columns = {p // grid.columns for p in patches}, {p % grid.columns for p in patches}
            assert len(patches) == len(rows) * len(columns)
            assert patches == [r * grid.columns + c for r in sorted(rows) for c in sorted(columns)]
    if masks.target_valid_MBT is not None:
        assert not bool(masks.target_indices_MBT[~masks.target_valid_MBT].any())


@FEW
@given(geometries(samplers=("exact",)), st.integers(0, 1000))
def test_tables_and_arithmetic_give_the_same_blocks(geometry, seed):
    sampler = built(geometry)
    if sampler is None:
        return
    keys_B = sample_keys(seed, torch.zeros(5, dtype=torch.int64), torch.arange(5))
    drawn, tables = sampler.draw_blocks(keys_B), sampler.constants(torch.device("cpu")).blocks
    rectangles = tables.rectangles(drawn)
    size = int((rectangles.height * rectangles.width).max())
    assert torch.equal(tables.membership(drawn), rectangles.membership(geometry[1]))
    for found, expected in zip(
        tables.indices(drawn, size), rectangles.indices(geometry[1], size), strict=True
    ):
        assert torch.equal(found, expected)


def test_grids_too_large_for_tables_are_computed(monkeypatch):
    sampler = build_sampler(MaskSettings(), GRID)
    expected = sample(sampler, range(8))
    monkeypatch.setattr("jepa_core.masks.blocks.MAX_TABLE_ENTRIES", 0)
    found = sample(build_sampler(MaskSettings(), GRID), range(8))
    assert torch.equal(found.target_indices_MBT, expected.target_indices_MBT)
    assert torch.equal(found.context_indices_CBK, expected.context_indices_CBK)


def test_seed_epoch_and_sample_each_change_the_masks():
    sampler = build_sampler(MaskSettings(), GRID)
    base = sample(sampler, [5]).target_indices_MBT
    assert torch.equal(base, sample(sampler, [5]).target_indices_MBT)
    others = [sample(sampler, [6]), sample(sampler, [5], seed=1), sample(sampler, [5], epoch=1)]
    assert not any(torch.equal(base, other.target_indices_MBT) for other in others)


def test_geometries_that_differ_elsewhere_see_the_same_target_blocks():
    one = build_sampler(MaskSettings(), GRID)
    other = build_sampler(MaskSettings(context_keep=0.4, num_context_blocks=2, num_target_blocks=5), GRID)
    first, second = sample(one, range(64)), sample(other, range(64))
    assert torch.equal(first.target_indices_MBT, second.target_indices_MBT[:4])


def test_kept_context_does_not_depend_on_the_batch():
    small = audit_geometry(MaskSettings(), GRID, num_samples=8192, batch_size=16)
    large = audit_geometry(MaskSettings(), GRID, num_samples=8192, batch_size=512)
    assert small.context_fraction == large.context_fraction
    assert small.context_fraction.mean == pytest.approx(0.25, abs=0.005)


def test_drawn_scale_and_aspect_ratio_are_not_correlated():
    """Each draw's cell is (scale level, aspect level, rounding): the levels are what must be independent."""
    sampler = build_sampler(MaskSettings(), GRID)
    ids_B = torch.arange(20_000)
    keys_B = sample_keys(0, torch.zeros_like(ids_B), ids_B)
    cell = low_bits(mix(sampler.constants(torch.device("cpu")).offsets + keys_B)[0], CELL_BITS).double()
    scale, aspect = (cell // 2**11).flatten(), (cell // 2**6 % 2**5).flatten()
    assert abs(float(torch.corrcoef(torch.stack([scale, aspect]))[0, 1])) < 0.02
    blocks = cell[:4] // 2**11
    assert float((torch.corrcoef(blocks) - torch.eye(4)).abs().max()) < 0.03


@pytest.mark.parametrize("grid", [PatchGrid(14, 14), PatchGrid(9, 16)])
def test_coverage_has_the_symmetries_of_the_grid(grid):
    mask_settings = MaskSettings(target_aspect_ratio=(2 / 3, 1.5), context_keep="all")
    audit = audit_geometry(mask_settings, grid, num_samples=40_000, batch_size=2000)
    for coverage in (audit.target_coverage, audit.context_coverage):
        covered = torch.tensor(coverage)
        flips = [covered.flip(0), covered.flip(1)] + ([covered.T] if grid.rows == grid.columns else [])
        assert all(float((covered - flip).abs().max()) < 0.015 for flip in flips)
        assert float(covered.min()) > 0


@pytest.mark.parametrize("scale", [(0.15, 0.2), (0.1, 0.1), (0.3, 0.6), (0.137, 0.137)])
@pytest.mark.parametrize("grid", [PatchGrid(8, 8), PatchGrid(14, 14), PatchGrid(6, 11)])
def test_mean_block_area_is_the_mean_of_the_drawn_scale(scale, grid):
    audit = audit_geometry(MaskSettings(target_scale=scale, allow_overlap=True), grid, num_samples=128)
    mean = sum(s.share * s.height * s.width for s in audit.target_shapes) / grid.num_patches
    assert mean == pytest.approx(sum(scale) / 2, abs=2e-4)


def test_what_is_dropped_is_drawn_at_random():
    """Without targets in the way every patch must be kept equally often."""
    mask_settings = MaskSettings(context_scale=(1.0, 1.0), allow_overlap=True, context_keep=49)
    masks = sample(build_sampler(mask_settings, GRID), range(20_000))
    kept_N = patch_counts(masks.context_indices_CBK, None, 196).double().mean(0)
    assert masks.context_valid_CBK is None
    assert float((kept_N - 0.25).abs().max()) < 0.015


def test_all_context_is_kept_on_request():
    sampler = build_sampler(MaskSettings(context_keep="all"), GRID)
    ids_B = torch.arange(64)
    layout = sampler.layout(ids_B, torch.zeros_like(ids_B), seed=0, step=0, device=torch.device("cpu"))
    masks = sampler.keep(layout, torch.device("cpu"))
    kept_BN = patch_counts(masks.context_indices_CBK, masks.context_valid_CBK, 196) > 0
    assert torch.equal(kept_BN, layout.available_CBN[0])


def test_crowded_targets_leave_the_minimum_of_context():
    mask_settings = MaskSettings(target_scale=(0.5, 0.6), num_target_blocks=6, context_keep="all")
    audit = audit_geometry(mask_settings, PatchGrid(6, 6), num_samples=4096)
    assert audit.context_patches.least >= 4
    assert audit.overlap_fraction == 0
    assert 0 < audit.adjusted_share < 1


def test_masks_move_between_devices_whole():
    masks = sample(build_sampler(MaskSettings(), GRID), range(3)).to("meta")
    assert masks.context_indices_CBK.device.type == masks.target_valid_MBT.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["exact", "block", "random", "reference"])
def test_a_gpu_draws_the_same_masks(name):
    sampler = build_sampler(MaskSettings(sampler=name), GRID)
    on_cpu, on_gpu = sample(sampler, range(256)), sample(sampler, range(256), device="cuda").to("cpu")
    assert torch.equal(on_cpu.context_indices_CBK, on_gpu.context_indices_CBK)
    assert torch.equal(on_cpu.target_indices_MBT, on_gpu.target_indices_MBT)


def test_drawn_blocks_can_move_onto_the_first():
    tables = BlockTables([build_sampler(MaskSettings(), GRID).plan.targets], GRID, torch.device("cpu"))
    drawn = DrawnBlocks(torch.tensor([[0], [1]]), torch.tensor([[[0], [3]], [[0], [4]]]))
    moved = tables.membership(drawn.replaced(torch.tensor([[False], [True]])))
    assert torch.equal(moved[0], moved[1])
