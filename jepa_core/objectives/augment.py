"""Augmentations on the device, drawn from each sample's key.

Owns flips, crops, colours, blur and solarisation of batches of normalised images. Geometry and blur are two matrix
products an image (one for rows, one for columns), colours one 3 x 3 matrix, so that a batch needs no loop and no
table of indices. Every draw is a function of (run seed, epoch, sample id) and of the view.

Shape suffixes: B images, C channels, H W pixels of the image, h w pixels of the view, U draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jepa_core.masks.draws import low_bits, mix, streams

_FLIP_STREAM = 1 << 24
_VIEW_STREAM = 1 << 25
_DRAWS_A_VIEW = 16
_GRAY = (0.299, 0.587, 0.114)
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_BLUR_SIDE_PX = 224
"""Side of the images that the published blur is given for."""


@dataclass(frozen=True, kw_only=True)
class PixelStatistics:
    """Mean and standard deviation by which images were normalised, of values in 0 to 1."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class View:
    """How one view of an image is made; `number` tells the views of a method apart.

    `crop_scale` is the crop's share of the area, `crop_aspect_ratio` is against the view's own aspect ratio.
    `colour_strength` 1 is the published jitter of brightness and contrast by 0.4, saturation by 0.2 and hue by 0.1,
    in 80 % of the images, and grey in 20 %; 0 leaves colours be.
    """

    number: int
    height_px: int
    width_px: int
    crop_scale: tuple[float, float]
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    colour_strength: float = 1.0
    blur_probability: float = 0.0
    solarize_probability: float = 0.0


def uniforms(keys_B: Tensor, first: int, count: int) -> Tensor:
    """Draws from 0 up to 1, float64 [U, B]."""
    draws = mix(streams(first, count).to(keys_B.device)[:, None] + keys_B)
    return low_bits(draws >> 11, 53).to(torch.float64) * 2.0**-53


def flip_half(images_BCHW: Tensor, keys_B: Tensor | None) -> Tensor:
    """Mirror every second image, drawn from its key.

    Raises:
        ValueError: The masks carry no keys: they were not drawn by the method's own sampler.
    """
    flip_B = uniforms(_needed(keys_B), _FLIP_STREAM, 1)[0] < 0.5
    return torch.where(flip_B[:, None, None, None], images_BCHW.flip(-1), images_BCHW)


@torch.no_grad()
def make_view(images_BCHW: Tensor, keys_B: Tensor | None, view: View, pixels: PixelStatistics) -> Tensor:
    """A crop of each image, resized, mirrored, recoloured, blurred and solarised as drawn: [B, C, h, w], normalised.

    Source: the augmentations of BYOL (arXiv 2006.07733), appendix B, that VICReg and DINO use.
    Deviates: colours are changed in one fixed order and cut to 0 to 1 at the end, hue is turned in YIQ, and blur
        scales with the view's size.
    """
    draws_UB = uniforms(_needed(keys_B), _VIEW_STREAM + view.number * _DRAWS_A_VIEW, _DRAWS_A_VIEW)
    with without_autocast(images_BCHW.device):
        draws_UB = draws_UB.to(images_BCHW.dtype)
        rows_BhH, columns_BwW = _geometry(draws_UB, images_BCHW, view)
        cropped_BChw = rows_BhH[:, None] @ images_BCHW @ columns_BwW[:, None].transpose(-1, -2)
        if not view.colour_strength and not view.solarize_probability:
            return cropped_BChw
        return _recolour(cropped_BChw, draws_UB, view, pixels)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context without automatic low precision; the meta device, which computes nothing, has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _geometry(draws_UB: Tensor, images_BCHW: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """The matrices [B, h, H] and [B, w, W] that crop, resize, mirror and blur."""
    height, width = images_BCHW.shape[-2:]
    area_B = _between(draws_UB[0], *view.crop_scale) * height * width
    low, high = (math.log(value) for value in view.crop_aspect_ratio)
    ratio_B = _between(draws_UB[1], low, high).exp() * (view.width_px / view.height_px)
    crop_height_B = (area_B / ratio_B).sqrt().clamp(1, height)
    crop_width_B = (area_B * ratio_B).sqrt().clamp(1, width)
    top_B, left_B = draws_UB[2] * (height - crop_height_B), draws_UB[3] * (width - crop_width_B)
    rows = _resize(top_B, crop_height_B, height, view.height_px)
    columns = _resize(left_B, crop_width_B, width, view.width_px)
    columns = torch.where((draws_UB[4] < view.flip_probability)[:, None, None], columns.flip(1), columns)
    if view.blur_probability:
        is_blurred_B = draws_UB[5] < view.blur_probability
        sigma_B = torch.where(is_blurred_B, _between(draws_UB[6], 0.1, 2.0), 0.0) / _BLUR_SIDE_PX
        rows = _blur(sigma_B * view.height_px, view.height_px) @ rows
        columns = _blur(sigma_B * view.width_px, view.width_px) @ columns
    return rows, columns


def _between(draws_B: Tensor, low: float, high: float) -> Tensor:
    return low + draws_B * (high - low)


def _resize(start_B: Tensor, length_B: Tensor, size: int, resized: int) -> Tensor:
    """Bilinear resizing of [start, start + length) of `size` pixels to `resized`, antialiased: [B, resized, size]."""
    step_B11 = (length_B / resized)[:, None, None]
    place = torch.arange(resized, dtype=start_B.dtype, device=start_B.device)[:, None] + 0.5
    centre = start_B[:, None, None] + place * step_B11 - 0.5
    pixel = torch.arange(size, dtype=start_B.dtype, device=start_B.device)
    # A crop reads nothing outside itself: centres half a pixel beyond its edge read the edge.
    centre = torch.minimum(centre.clamp_min(0), torch.full_like(centre, size - 1))
    weight = (1 - (pixel - centre).abs() / step_B11.clamp_min(1)).clamp_min(0)
    return weight / weight.sum(-1, keepdim=True)


def _blur(sigma_B: Tensor, size: int) -> Tensor:
    """Gaussian blur of `size` pixels as a matrix [B, size, size]; sigma 0 is the identity."""
    pixel = torch.arange(size, dtype=sigma_B.dtype, device=sigma_B.device)
    distance = (pixel[:, None] - pixel).square()
    weight = torch.exp(-distance / (2 * sigma_B[:, None, None].square()).clamp_min(1e-6))
    return weight / weight.sum(-1, keepdim=True)


def _recolour(images_BChw: Tensor, draws_UB: Tensor, view: View, pixels: PixelStatistics) -> Tensor:
    mean = _channels(pixels.mean, images_BChw)
    std = _channels(pixels.std, images_BChw)
    images = images_BChw * std + mean
    if view.colour_strength:
        images = _jitter(images, draws_UB, view.colour_strength)
    if view.solarize_probability:
        solarized_B = draws_UB[12] < view.solarize_probability
        images = torch.where(solarized_B[:, None, None, None] & (images >= 0.5), 1 - images, images)
    return (images - mean) / std


def _jitter(images_BChw: Tensor, draws_UB: Tensor, strength: float) -> Tensor:
    """Brightness, contrast, saturation, hue and grey; images of values in 0 to 1."""
    jittered_B = draws_UB[7] < 0.8
    factors = [
        torch.where(jittered_B, 1 + (2 * draws_UB[row] - 1) * amount * strength, 1.0)
        for row, amount in ((8, 0.4), (9, 0.4), (10, 0.2))
    ]
    brightness, contrast, saturation = (factor[:, None, None, None] for factor in factors)
    angle_B = torch.where(jittered_B, (2 * draws_UB[11] - 1) * 0.1 * strength * 2 * math.pi, 0.0)
    images = images_BChw * brightness
    gray = _channels(_GRAY, images)
    level = (images * gray).sum(1, keepdim=True).mean((-2, -1), keepdim=True)
    images = (images - level) * contrast + level
    luma = (images * gray).sum(1, keepdim=True)
    images = (images - luma) * saturation + luma
    images = torch.einsum("bij,bjhw->bihw", _hue(angle_B), images)
    grey_B = draws_UB[13] < 0.2 * strength
    images = torch.where(grey_B[:, None, None, None], (images * gray).sum(1, keepdim=True), images)
    return images.clamp(0, 1)


def _hue(angle_B: Tensor) -> Tensor:
    """The matrix [B, 3, 3] that turns the hue."""
    to_yiq = torch.tensor(_TO_YIQ, dtype=torch.float64)
    from_yiq = torch.linalg.inv(to_yiq).to(angle_B)
    cos, sin, zero, one = angle_B.cos(), angle_B.sin(), torch.zeros_like(angle_B), torch.ones_like(angle_B)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=-1).view(-1, 3, 3)
    matrix: Tensor = from_yiq @ turn @ to_yiq.to(angle_B)
    return matrix


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def _needed(keys_B: Tensor | None) -> Tensor:
    if keys_B is None:
        raise ValueError("the masks carry no keys to draw from; draw them with the objective's own sampler")
    return keys_B
