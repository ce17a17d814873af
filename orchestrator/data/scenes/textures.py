"""Patterns on the ground and on objects of the embedded scenes: how much of a second colour each point shows.

As in `raycast`, every operation is elementwise and rounded exactly by IEEE 754.

Shape suffixes: P points.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.read.order import hash_each, hash_of

Floats = NDArray[np.float32]
Pattern = Literal["plain", "striped", "checked", "rough"]

_STREAM_NOISE = 102
_ROUGH_CELLS = np.float32(1.5)


def share_of_second_color(pattern: Pattern, x_P: Floats, y_P: Floats, z_P: Floats, *, seed: int) -> Floats:
    """From 0 to 1 at points given in cells of the pattern: one cell is a stripe or a square.

    Stripes go across x; a rough pattern, drawn with `seed`, is the same at all heights z.
    """
    if pattern == "plain":
        return np.zeros_like(x_P)
    if pattern == "rough":
        return noise(_ROUGH_CELLS * x_P, _ROUGH_CELLS * y_P, seed=seed)
    cell_P: Floats = np.floor(x_P)
    if pattern == "checked":
        cell_P = cell_P + np.floor(y_P) + np.floor(z_P)
    is_second_P: Floats = cell_P - 2 * np.floor(cell_P / 2)
    return is_second_P


def noise(x_P: Floats, y_P: Floats, *, seed: int) -> Floats:
    """Smooth noise from 0 to 1: random values at whole numbers, blended between them."""
    left_P, low_P = np.floor(x_P), np.floor(y_P)
    across_P, up_P = _eased(x_P - left_P), _eased(y_P - low_P)
    column_P, row_P = left_P.astype(np.int64), low_P.astype(np.int64)
    blended: list[Floats] = [
        _at_corners(column_P, row_P + rise, seed) * (1 - across_P)
        + _at_corners(column_P + 1, row_P + rise, seed) * across_P
        for rise in (0, 1)
    ]
    mixed_P: Floats = blended[0] * (1 - up_P) + blended[1] * up_P
    return mixed_P


def _eased(fraction_P: Floats) -> Floats:
    """The same at both ends, and level there: otherwise the cells of the noise show."""
    return fraction_P * fraction_P * (3 - 2 * fraction_P)


def _at_corners(column_P: NDArray[np.int64], row_P: NDArray[np.int64], seed: int) -> Floats:
    """Random values from 0 to 1 of the corners between cells."""
    hashed_P = hash_each(hash_of(_STREAM_NOISE, seed), (row_P << 32) + column_P)
    return (hashed_P >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
