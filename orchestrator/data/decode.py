"""From the bytes of an image to 8-bit RGB pixels: JPEG, PNG and WebP, nothing else.

Handles greyscale, palettes, transparency (dropped), CMYK, 16 bits a channel and EXIF orientation. The number of pixels
is bounded before any is decoded. JPEGs are decoded by libjpeg-turbo, what it refuses and the other formats by Pillow;
torch resizes the cropped region alone. All three free the interpreter while they work. The random-resized crop is a
function of (seed, epoch, sample id).
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from orchestrator.data.order import STREAM_CROP, uniforms

MAX_PIXELS = 50_000_000
_FORMATS = ("JPEG", "PNG", "WEBP")
_CROP_ATTEMPTS = 10
_MAX_KEPT_BYTES = 32 * 2**20
_DIRECT_MODES = ("RGB", "L")
_JPEG_START, _EXIF_START = b"\xff\xd8\xff", b"Exif\0\0"
_JPEG_COLOURS = ("RGB", "YCbCr", "Gray")
_JPEG_APP1, _EXIF_ORIENTATION = 0xE1, 0x0112
_JPEG_PICTURE = (0xD9, 0xDA)
"""Markers after which no notes follow: end of image, start of scan."""

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]


class UndecodableError(Exception):
    """Bytes that are no image we read; the message says why."""


class _Buffers(threading.local):
    """A thread's memory for decoded pixels: fresh pages for each image cost as much as half of the decoding."""

    def __init__(self) -> None:
        self._pixels = np.empty(0, dtype=np.uint8)

    def of(self, height_px: int, width_px: int) -> Pixels:
        """Uninitialised pixels [H, W, 3], the same memory at each call; very large images get their own."""
        size = height_px * width_px * 3
        if size > _MAX_KEPT_BYTES:
            return np.empty((height_px, width_px, 3), dtype=np.uint8)
        if size > self._pixels.size:
            self._pixels = np.empty(size, dtype=np.uint8)
        return self._pixels[:size].reshape(height_px, width_px, 3)


_buffers = _Buffers()


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


def central_box(width_px: int, height_px: int, *, aspect_ratio: float = 1.0) -> Box:
    """The largest centred box of an aspect ratio (width to height)."""
    width = max(1, min(width_px, round(height_px * aspect_ratio)))
    return _centred(width_px, height_px, width, max(1, min(height_px, round(width_px / aspect_ratio))))


def channels_first(pixels_BHWC: Pixels) -> Tensor:
    """Pixels as a contiguous tensor [B, C, H, W]."""
    return torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).contiguous()


def decode_rgb(data: bytes) -> Pixels:
    """Decode an image to RGB [H, W, 3], turned as its EXIF orientation says; valid until the thread's next call.

    Raises:
        UndecodableError: Another format, damaged, or more than `MAX_PIXELS` pixels.
    """
    try:
        pixels_HWC = _decode_jpeg(data) if data.startswith(_JPEG_START) else None
        return pixels_HWC if pixels_HWC is not None else _decode_any(data)
    except UndecodableError:
        raise
    except (
        Exception
    ) as err:  # Pillow raises many kinds on damaged files: OSError, SyntaxError, struct.error, ...
        raise UndecodableError(f"{type(err).__name__}: {str(err)[:200]}") from err


def decode_into(data: bytes, out_HWC: Pixels, box_of: Callable[[int, int], Box]) -> None:
    """Decode an image, resize the box that `box_of(width, height)` names to the size of `out_HWC`, and write it there.

    Resizing is bilinear and antialiased, of the box alone.

    Raises:
        UndecodableError: Another format, damaged, or more than `MAX_PIXELS` pixels.
    """
    pixels_HWC = decode_rgb(data)
    left, top, right, bottom = box_of(pixels_HWC.shape[1], pixels_HWC.shape[0])
    _resize_into(pixels_HWC[top:bottom, left:right], out_HWC)


def _resize_into(pixels_HWC: Pixels, out_HWC: Pixels) -> None:
    if min(pixels_HWC.strides) < 0:  # a turned image, which torch does not take
        pixels_HWC = np.ascontiguousarray(pixels_HWC)
    pixels_1CHW = (
        torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    )
    resized_1CHW = F.interpolate(pixels_1CHW, size=out_HWC.shape[:2], mode="bilinear", antialias=True)
    torch.from_numpy(out_HWC).copy_(resized_1CHW[0].permute(1, 2, 0))


def _decode_jpeg(data: bytes) -> Pixels | None:
    """A JPEG as RGB by libjpeg-turbo; None for the kinds, and the damage, that Pillow is to judge.

    The pixels are valid until the thread's next call.
    """
    try:
        height_px, width_px, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width_px, height_px)
        if colours not in _JPEG_COLOURS:
            return None
        buffer = _buffers.of(height_px, width_px)
        pixels_HWC: Pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=buffer)
    except ValueError:
        return None
    orientation = _jpeg_orientation(data)
    return pixels_HWC if orientation == 1 else _oriented(pixels_HWC, orientation)


def _jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8, found by stepping over the segments before the picture."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] not in _JPEG_PICTURE:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] == _JPEG_APP1 and data.startswith(_EXIF_START, position + 4):
            exif = Image.Exif()
            exif.load(data[position + 4 : end])
            orientation = exif.get(_EXIF_ORIENTATION, 1)
            return orientation if orientation in range(1, 9) else 1
        position = end
    return 1


def _oriented(pixels_HWC: Pixels, orientation: int) -> Pixels:
    """Pixels as the camera's note says they are to be seen."""
    if orientation >= 5:
        pixels_HWC = pixels_HWC.transpose(1, 0, 2)
    flip_rows = -1 if orientation in (3, 4, 7, 8) else 1
    flip_columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels_HWC[::flip_rows, ::flip_columns]


def _decode_any(data: bytes) -> Pixels:
    """Any image that we read, as RGB, by Pillow."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:  # its message names an object in memory, another one in every process
        raise UndecodableError(f"not an image of {', '.join(_FORMATS)}") from None
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
