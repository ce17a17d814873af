"""JPEGs by libjpeg-turbo, and of each no more than a crop needs.

That is the rows down to its lower edge, and a half, a quarter or an eighth of the resolution where the photo is far
larger than what becomes of it. Rows are the same as those of the whole image. At a lower resolution libjpeg-turbo
averages pixels while it transforms them (DCT scaling), and torch is left a reduction by at least `KEPT_REDUCTION`.
Kinds of JPEG, and damage, that libjpeg-turbo is not to judge are left to Pillow: None is returned for them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
Encoded = bytes | memoryview

START = b"\xff\xd8\xff"
KEPT_REDUCTION = 4
"""The decoder reduces an image only as far as this reduction is left for the antialiased resizing.

Measured on photos of 12 megapixels: 0.37 grey levels from Pillow's pixels on average and 4 at most; with 2 left, 0.86
and 9.
"""
_MAX_REDUCTION = 8
_COLOURS = ("RGB", "YCbCr", "Gray")
_MAX_KEPT_BYTES = 32 * 2**20
_EXIF_START, _EXIF_ORIENTATION = b"Exif\0\0", 0x0112
_APP1, _BASELINE_FRAMES = 0xE1, (0xC0, 0xC1)
_PICTURE = (0xD9, 0xDA)
"""Markers after which no notes follow: end of image, start of scan."""
_END, _MAX_TRAILING_BYTES = b"\xff\xd9", 64
_CONTEXT_ROWS = 2
"""Rows below a crop that the smooth upsampling of its colours looks at."""


@dataclass(frozen=True, kw_only=True)
class JpegHeader:
    """What precedes the picture. `height_at` is where its height stands, 0 where it must not be changed."""

    width_px: int
    height_px: int
    orientation: int
    height_at: int


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


def read_header(data: Encoded) -> JpegHeader | None:
    """Size and orientation; None for a JPEG that is left to Pillow."""
    try:
        height_px, width_px, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in _COLOURS:
        return None
    orientation, height_at = _notes(data)
    is_whole = _END in bytes(data[-_MAX_TRAILING_BYTES:])
    return JpegHeader(
        width_px=width_px,
        height_px=height_px,
        orientation=orientation,
        height_at=height_at if is_whole else 0,
    )


def decode_whole(data: Encoded, header: JpegHeader) -> Pixels | None:
    """All pixels as RGB [H, W, 3], turned as they are to be seen; valid until the thread's next call."""
    try:
        pixels_HWC: Pixels = simplejpeg.decode_jpeg(
            data, "RGB", buffer=_buffers.of(header.height_px, header.width_px)
        )
    except ValueError:
        return None
    return pixels_HWC if header.orientation == 1 else _oriented(pixels_HWC, header.orientation)


def decode_crop(data: Encoded, header: JpegHeader, box: Box, *, reduction: int) -> Pixels | None:
    """The pixels within a box as RGB, at 1 / `reduction` of the resolution; valid until the thread's next call.

    The decoder is told that the image ends a little below the box, so it neither decodes nor complains about what
    follows; that the file has its end was seen by `read_header`. The image must not have to be turned.
    """
    left, top, right, bottom = box
    rows_px, scaled_width_px = header.height_px, -(-header.width_px // reduction)
    if header.height_at:
        rows_px = min(rows_px, bottom + _CONTEXT_ROWS * reduction)
        size = rows_px.to_bytes(2, "big")
        data = b"".join((data[: header.height_at], size, data[header.height_at + 2 :]))
    scaled_rows_px = -(-rows_px // reduction)
    try:
        pixels_HWC: Pixels = simplejpeg.decode_jpeg(
            data,
            "RGB",
            min_height=scaled_rows_px if reduction > 1 else 0,
            min_width=scaled_width_px if reduction > 1 else 0,
            buffer=_buffers.of(scaled_rows_px, scaled_width_px),
            strict=rows_px == header.height_px,
        )
    except ValueError:
        return None
    return pixels_HWC[top // reduction : -(-bottom // reduction), left // reduction : -(-right // reduction)]


def reduction_for(box: Box, height_px: int, width_px: int) -> int:
    """How far the decoder may reduce a box that is to become `height_px` x `width_px`: 1, 2, 4 or 8."""
    left, top, right, bottom = box
    room = min((bottom - top) / height_px, (right - left) / width_px) / KEPT_REDUCTION
    reduction = _MAX_REDUCTION
    while reduction > 1 and reduction > room:
        reduction //= 2
    return reduction


def _notes(data: Encoded) -> tuple[int, int]:
    """The EXIF orientation, 1 to 8, and where the height of a baseline picture stands, else 0.

    Found by stepping over the segments before the picture.
    """
    orientation, height_at, position = 1, 0, 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] not in _PICTURE:
        marker, end = (
            data[position + 1],
            position + 2 + int.from_bytes(data[position + 2 : position + 4], "big"),
        )
        if marker == _APP1 and bytes(data[position + 4 : end]).startswith(_EXIF_START):
            orientation = _orientation(bytes(data[position + 4 : end]))
        elif marker in _BASELINE_FRAMES:
            height_at = position + 5
        position = end
    return orientation, height_at


def _orientation(exif_bytes: bytes) -> int:
    exif = Image.Exif()
    exif.load(exif_bytes)
    orientation = exif.get(_EXIF_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _oriented(pixels_HWC: Pixels, orientation: int) -> Pixels:
    """Pixels as the camera's note says they are to be seen."""
    if orientation >= 5:
        pixels_HWC = pixels_HWC.transpose(1, 0, 2)
    flip_rows = -1 if orientation in (3, 4, 7, 8) else 1
    flip_columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels_HWC[::flip_rows, ::flip_columns]
