"""From the bytes of an image to 8-bit RGB pixels: JPEG, PNG and WebP, nothing else.

Handles greyscale, palettes, transparency (dropped), CMYK, 16 bits a channel and EXIF orientation. The number of pixels
is bounded before any is decoded. JPEGs are decoded by libjpeg-turbo (`jpeg`), what it refuses and the other formats by
Pillow; torch resizes the cropped region alone. All three free the interpreter while they work. The random-resized crop
is a function of (seed, epoch, sample id).
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from orchestrator.data.format import Box, Encoded, Pixels, jpeg
from orchestrator.data.read.order import STREAM_CROP, hash_of, uniform

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP")
_CROP_ATTEMPTS = 10
_DIRECT_MODES = ("RGB", "L")
_resize: Callable[..., Tensor] = torch.ops.aten._upsample_bilinear2d_aa.out
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class UndecodableError(Exception):
    """Bytes that are no image we read; the message says why."""


def _judged(decode: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Whatever goes wrong while an image is decoded says that it cannot be decoded."""

    @functools.wraps(decode)
    def judged(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        try:
            return decode(*arguments, **options)
        except UndecodableError:
            raise
        # Pillow raises many kinds on damaged files: OSError, SyntaxError, struct.error, ...
        except Exception as err:
            raise UndecodableError(f"{type(err).__name__}: {str(err)[:200]}") from err

    return judged


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
    base = hash_of(seed, epoch, STREAM_CROP, sample_id)
    low, high = math.log(aspect_ratio[0]), math.log(aspect_ratio[1])
    for attempt in range(_CROP_ATTEMPTS):
        first = 4 * attempt
        area = width_px * height_px * (scale[0] + (scale[1] - scale[0]) * uniform(base, first))
        ratio = math.exp(low + (high - low) * uniform(base, first + 1))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= width_px and 0 < height <= height_px:
            left = int(uniform(base, first + 2) * (width_px - width + 1))
            top = int(uniform(base, first + 3) * (height_px - height + 1))
            return left, top, left + width, top + height
    ratio = min(max(width_px / height_px, aspect_ratio[0]), aspect_ratio[1])
    width = max(1, min(width_px, round(height_px * ratio)))
    return _centred(width_px, height_px, width, max(1, min(height_px, round(width / ratio))))


def central_box(width_px: int, height_px: int, *, aspect_ratio: float = 1.0) -> Box:
    """The largest centred box of an aspect ratio (width to height)."""
    width = max(1, min(width_px, round(height_px * aspect_ratio)))
    return _centred(width_px, height_px, width, max(1, min(height_px, round(width_px / aspect_ratio))))


def channels_first(pixels_BHWC: Pixels) -> Tensor:
    """Pixels as a contiguous tensor [B, C, H, W]."""
    return torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).contiguous()


@_judged
def decode_rgb(data: Encoded) -> Pixels:
    """Decode an image to RGB [H, W, 3], turned as its EXIF orientation says; valid until the thread's next call.

    Raises:
        UndecodableError: Another format, damaged, or more than `MAX_PIXELS` pixels.
    """
    header = _jpeg_header(data)
    pixels_HWC = jpeg.decode_whole(data, header) if header is not None else None
    return pixels_HWC if pixels_HWC is not None else _decode_any(data)


@_judged
def decode_into(data: Encoded, out_HWC: Pixels, box_of: Callable[[int, int], Box]) -> None:
    """Decode an image, resize the box that `box_of(width, height)` names to the size of `out_HWC`, and write it there.

    Resizing is bilinear and antialiased, of the box alone. Of a photo several times as large as `out_HWC` the box is
    decoded at a lower resolution first, its edges moved outwards to whole pixels of that.

    Raises:
        UndecodableError: Another format, damaged, or more than `MAX_PIXELS` pixels.
    """
    _resize_into(_cropped(data, out_HWC, box_of), out_HWC)


def _cropped(data: Encoded, out_HWC: Pixels, box_of: Callable[[int, int], Box]) -> Pixels:
    """The pixels of the box, or fewer where those are enough."""
    header = _jpeg_header(data)
    if header is not None and header.orientation == 1:
        box = box_of(header.width_px, header.height_px)
        reduction = jpeg.reduction_for(box, *out_HWC.shape[:2])
        crop_HWC = jpeg.decode_crop(data, header, box, reduction=reduction)
        if crop_HWC is not None:
            return crop_HWC
    pixels_HWC = decode_rgb(data)
    left, top, right, bottom = box_of(pixels_HWC.shape[1], pixels_HWC.shape[0])
    return pixels_HWC[top:bottom, left:right]


def _jpeg_header(data: Encoded) -> jpeg.JpegHeader | None:
    """The header of a JPEG that libjpeg-turbo decodes, of a size that we decode."""
    header = jpeg.read_header(data) if data[: len(jpeg.START)] == jpeg.START else None
    if header is not None:
        _check_size(header.width_px, header.height_px)
    return header


def _resize_into(pixels_HWC: Pixels, out_HWC: Pixels) -> None:
    """Resize as `F.interpolate` does, which calls the same but cannot be told where to write."""
    if min(pixels_HWC.strides) < 0:  # a turned image, which torch does not take
        pixels_HWC = np.ascontiguousarray(pixels_HWC)
    _resize(_as_tensor(pixels_HWC), out_HWC.shape[:2], False, None, None, out=_as_tensor(out_HWC))


def _as_tensor(pixels_HWC: Pixels) -> Tensor:
    """The same memory as a tensor [1, C, H, W]."""
    return torch.from_numpy(pixels_HWC[None].transpose(0, 3, 1, 2))


def _decode_any(data: Encoded) -> Pixels:
    """Any image that we read, as RGB, by Pillow."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:  # its message names an object in memory, another one in every process
        raise UndecodableError(f"not an image of {', '.join(FORMATS)}") from None
    _check_size(image.width, image.height)
    if "exif" in image.info or "Raw profile type exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode not in _DIRECT_MODES:
        image = _eight_bit(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _check_size(width_px: int, height_px: int) -> None:
    if width_px * height_px > MAX_PIXELS:
        raise UndecodableError(f"{width_px} x {height_px} pixels, at most {MAX_PIXELS:,} are decoded")


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
