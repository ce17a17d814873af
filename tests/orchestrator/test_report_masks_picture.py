import io

import numpy as np
import pytest
from PIL import Image

from jepa_core.masks import MaskSettings, PatchGrid
from orchestrator.report.page.mask_picture import contact_sheet, coverage_sheet, dim, patch_flags, preview

GRID = PatchGrid(rows=6, columns=8)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)


def test_listed_patches_are_flagged_and_padding_is_not():
    indices = np.array([[3, 5, 0], [1, 0, 0]])
    valid = np.array([[True, True, False], [True, False, False]])
    flags = patch_flags(indices, valid, 48)
    assert [list(np.flatnonzero(row)) for row in flags] == [[3, 5], [1]]
    assert flags.dtype == np.bool_


def test_visible_patches_keep_their_pixels_and_the_rest_fades():
    image = images(1)[0]
    visible = np.zeros(48, dtype=np.bool_)
    visible[9] = True  # row 1, column 1
    shown = dim(image, visible, GRID)
    assert np.array_equal(shown[8:16, 8:16], image[8:16, 8:16])
    assert np.abs(shown[:8].astype(int) - 128).max() <= 0.18 * 128 + 1


def test_a_sheet_has_a_row_for_images_context_and_each_target():
    context, target = np.ones((3, 48), dtype=np.bool_), np.zeros((3, 48), dtype=np.bool_)
    one, two = (
        Image.open(io.BytesIO(contact_sheet(images(3), visible, GRID, title="a geometry")))
        for visible in ({"context": context}, {"context": context, "target 1": target})
    )
    row = two.height - one.height
    assert (one.width, two.height) == (two.width, pytest.approx(50 + 3 * row, abs=3))
    assert row > 60


def test_a_preview_draws_what_the_sampler_gives():
    grid = PatchGrid(rows=8, columns=8)
    settings = MaskSettings(target_scale=(0.15, 0.2), num_target_blocks=3)
    pictures = [preview(settings, grid, images(2)[:, :, :48], title="t", seed=seed) for seed in (0, 0, 1)]
    first, again, other = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_coverage_maps_of_one_kind_share_their_scale():
    dark, light = ([[1.0, 0.0], [0.0, 1.0]] for _ in range(2)), [[0.2, 0.0], [0.0, 0.2]]
    first, second = (
        np.asarray(
            Image.open(io.BytesIO(coverage_sheet({"a": tuple(dark), "b": (light, light)}))).convert("L")
        ),
        np.asarray(Image.open(io.BytesIO(coverage_sheet({"b": (light, light)}))).convert("L")),
    )
    # Alone, the weak map takes the darkest colour; beside the strong one it stays pale.
    assert (second[: len(second) * 2 // 3] < 60).sum() > 1000
    lower = first[len(first) // 2 : len(first) * 4 // 5]
    assert (lower < 60).sum() < 1000


def test_a_preview_cuts_the_context_as_a_batch_of_the_device_would():
    grid, settings = PatchGrid(14, 14), MaskSettings(sampler="reference")
    shown = [
        preview(settings, grid, np.zeros((2, 28, 28, 3), np.uint8), title="t", batch_size=size)
        for size in (1, 256)
    ]
    assert shown[0] != shown[1]
