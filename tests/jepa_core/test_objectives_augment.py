from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_core.masks.draws import sample_keys
from jepa_core.objectives.augment import PixelStatistics, View, _blur, _resize, flip_half, make_view, uniforms

PIXELS = PixelStatistics()


def keys(count: int = 8, *, epoch: int = 0) -> Tensor:
    return sample_keys(0, torch.full((count,), epoch), torch.arange(count))


def images(count: int = 8, side: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    plain = torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64)
    mean, std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (PIXELS.mean, PIXELS.std)
    )
    return (plain - mean) / std


def view(**changes: object) -> View:
    plain: dict[str, object] = {
        "number": 0,
        "height_px": 24,
        "width_px": 24,
        "crop_scale": (1.0, 1.0),
        "crop_aspect_ratio": (1.0, 1.0),
        "flip_probability": 0.0,
        "colour_strength": 0.0,
    }
    return View(**(plain | changes))  # type: ignore[arg-type]


def test_a_view_without_changes_is_the_image() -> None:
    torch.testing.assert_close(make_view(images(), keys(), view(), PIXELS), images())


@pytest.mark.parametrize("size", [8, 24, 40])
def test_resizing_is_bilinear_interpolation_with_antialiasing(size: int) -> None:
    found = make_view(images(), keys(), view(height_px=size, width_px=size), PIXELS)
    expected = F.interpolate(images(), size=(size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_crop_is_the_resized_part_of_the_image() -> None:
    matrix = _resize(torch.tensor([6.0]), torch.tensor([12.0]), 24, 12)
    torch.testing.assert_close(matrix[0], torch.eye(24)[6:18])


def test_a_crop_shows_the_share_of_the_image_that_is_asked_for() -> None:
    ramp = torch.arange(64.0).expand(500, 3, 64, 64)
    crop = make_view(ramp, keys(500), view(height_px=64, width_px=64, crop_scale=(0.25, 0.25)), PIXELS)
    span = crop[:, 0, 0, 62] - crop[:, 0, 0, 1]  # away from the edges
    torch.testing.assert_close(span, torch.full_like(span, 30.5), rtol=0, atol=1e-3)
    assert crop[:, 0, 0, 0].min() < 2
    assert crop[:, 0, 0, -1].max() > 61


def test_half_of_the_images_are_mirrored() -> None:
    flipped = flip_half(images(400), keys(400))
    is_mirrored = (flipped == images(400).flip(-1)).flatten(1).all(1)
    assert ((flipped == images(400)).flatten(1).all(1) ^ is_mirrored).all()
    assert is_mirrored.float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_blur_keeps_the_brightness_and_lowers_the_contrast() -> None:
    matrix = _blur(torch.tensor([0.0, 1.0]), 24)
    torch.testing.assert_close(matrix[0], torch.eye(24))
    torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 24))
    gauss = torch.exp(-(torch.arange(-3.0, 4) ** 2) / 2)
    torch.testing.assert_close(matrix[1, 12, 9:16] / matrix[1, 12, 12], gauss)


def test_colours_stay_in_range_and_grey_images_stay_grey() -> None:
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXELS.mean, PIXELS.std))
    gray = ((torch.rand(64, 1, 24, 24) - mean) / std).float()
    out = make_view(gray, keys(64), view(colour_strength=1.0, solarize_probability=0.5), PIXELS) * std + mean
    assert out.min() >= -1e-5
    assert out.max() <= 1 + 1e-5
    assert (out - out.mean(1, keepdim=True)).abs().max() < 0.02  # the YIQ table has four digits


def test_views_differ_by_number_and_epoch_and_repeat_exactly() -> None:
    strong = {"crop_scale": (0.1, 1.0), "colour_strength": 1.0, "blur_probability": 1.0}
    first = make_view(images(), keys(), view(**strong), PIXELS)
    assert torch.equal(first, make_view(images(), keys(), view(**strong), PIXELS))
    for other in (
        make_view(images(), keys(), view(number=1, **strong), PIXELS),
        make_view(images(), keys(epoch=1), view(**strong), PIXELS),
    ):
        assert (first - other).abs().flatten(1).amax(1).min() > 0.1


def test_a_sample_is_augmented_the_same_in_any_batch() -> None:
    strong = view(crop_scale=(0.1, 1.0), colour_strength=1.0, blur_probability=1.0, solarize_probability=0.5)
    whole = make_view(images(), keys(), strong, PIXELS)
    torch.testing.assert_close(whole[3:5], make_view(images()[3:5], keys()[3:5], strong, PIXELS))


def test_draws_are_uniform_and_independent() -> None:
    draws = uniforms(keys(4000), 0, 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    torch.testing.assert_close(draws.mean(1), torch.full((3,), 0.5, dtype=torch.float64), atol=0.02, rtol=0)
    assert (torch.corrcoef(draws) - torch.eye(3)).abs().max() < 0.06


def test_masks_of_another_sampler_are_refused() -> None:
    with pytest.raises(ValueError, match="own sampler"):
        flip_half(images(), None)
