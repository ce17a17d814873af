"""From the bytes of an image to 8-bit RGB pixels: JPEG, PNG and WebP, nothing else.

Handles greyscale, palettes, transparency (dropped), CMYK, 16 bits a channel and EXIF orientation. The number of pixels
is bounded before any is decoded. The random-resized crop is a function of (seed, epoch, sample id).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from orchestrator.data.order import STREAM_CROP, uniforms

MAX_PIXELS = 50_000_000
_FORMATS = ("JPEG", "PNG", "WEBP")
_CROP_ATTEMPTS = 10
_DIRECT_MODES = ("RGB", "L")

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]


class UndecodableError(Exception):
    """Bytes that are no image we read; the message says why."""


def random_box(
    width_px: int,
    height_px: int,
    *,
    scale: tuple[float, float],
    aspect_ratio: tuple[float, float],
    seed: int,
    epoch: int,
    sample_id: int,
) -> Box:
    """The box (left, top, right, bottom) of a random-resized crop.

    The area is uniform in `scale` times the image's, the aspect ratio log-uniform; after ten boxes that do not fit,
    the largest centred box of a permitted ratio is taken.

    Source: the Inception crop, Szegedy et al. 2015, as I-JEPA uses it (appendix A.1).
    """
    drawn = uniforms(seed, epoch, sample_id, stream=STREAM_CROP, count=4 * _CROP_ATTEMPTS).tolist()
    low, high = math.log(aspect_ratio[0]), math.log(aspect_ratio[1])
    for attempt in range(_CROP_ATTEMPTS):
        area_u, ratio_u, left_u, top_u = drawn[4 * attempt : 4 * attempt + 4]
        area = width_px * height_px * (scale[0] + (scale[1] - scale[0]) * area_u)
        ratio = math.exp(low + (high - low) * ratio_u)
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= width_px and 0 < height <= height_px:
            left = int(left_u * (width_px - width + 1))
            top = int(top_u * (height_px - height + 1))
            return left, top, left + width, top + height
    ratio = min(max(width_px / height_px, aspect_ratio[0]), aspect_ratio[1])
    width = max(1, min(width_px, round(height_px * ratio)))
    return _centred(width_px, height_px, width, max(1, min(height_px, round(width / ratio))))


def central_box(width_px: int, height_px: int) -> Box:
    """The largest centred square."""
    side = min(width_px, height_px)
    return _centred(width_px, height_px, side, side)


def channels_first(pixels_BHWC: Pixels) -> Tensor:
    """Pixels as a contiguous tensor [B, C, H, W]."""
    return torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).contiguous()


def decode_into(data: bytes, out_HWC: Pixels, box_of: Callable[[int, int], Box]) -> None:
    """Decode an image, resize the box that `box_of(width, height)` names to the size of `out_HWC`, and write it there.

    Resizing is bilinear and antialiased, of the box alone.

    Raises:
        UndecodableError: Another format, damaged, or more than `MAX_PIXELS` pixels.
    """
    size = (out_HWC.shape[1], out_HWC.shape[0])
    try:
        image = _open(data)
        if image.mode not in _DIRECT_MODES:
            image = _eight_bit(image)
        resized = image.resize(size, Image.Resampling.BILINEAR, box=box_of(image.width, image.height))
        out_HWC[...] = np.asarray(resized if resized.mode == "RGB" else resized.convert("RGB"))
    except UndecodableError:
        raise
    except (
        Exception
    ) as err:  # Pillow raises many kinds on damaged files: OSError, SyntaxError, struct.error, ...
        raise UndecodableError(f"{type(err).__name__}: {str(err)[:200]}") from err


def _open(data: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise UndecodableError(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are decoded")
    if "exif" in image.info or "Raw profile type exif" in image.info:
        image = ImageOps.exif_transpose(image)
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB, or as 8-bit greyscale where it holds 16 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _centred(width_px: int, height_px: int, width: int, height: int) -> Box:
    left, top = (width_px - width) // 2, (height_px - height) // 2
    return left, top, left + width, top + height
