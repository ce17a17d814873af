"""Patterns on the ground and on objects of the embedded scenes: how much of a second colour each point shows.

As in `raycast`, every operation is elementwise and rounded exactly by IEEE 754.

Shape suffixes: P points.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.read import hash_each, hash_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
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
    corners_P = _corners(left_P.astype(np.int64), low_P.astype(np.int64), seed)
    blended: list[Floats] = [
        left_corner_P * (1 - across_P) + right_corner_P * across_P
        for left_corner_P, right_corner_P in corners_P
    ]
    mixed_P: Floats = blended[0] * (1 - up_P) + blended[1] * up_P
    return mixed_P


def _eased(fraction_P: Floats) -> Floats:
    """The same at both ends, and level there: otherwise the cells of the noise show."""
    return fraction_P * fraction_P * (3 - 2 * fraction_P)


def _corners(column_P: Ints, row_P: Ints, seed: int) -> list[tuple[Floats, Floats]]:
    """The values at the left and right corners of each point's cell, below and above it.

    Where the points lie in few cells, the value of each corner is drawn once and looked up.
    """
    first_column, first_row = int(column_P.min()), int(row_P.min())
    num_columns = int(column_P.max()) - first_column + 2
    num_rows = int(row_P.max()) - first_row + 2
    if num_columns * num_rows > column_P.size:
        return [
            (_value_at(column_P, row_P + rise, seed), _value_at(column_P + 1, row_P + rise, seed))
            for rise in (0, 1)
        ]
    columns = np.arange(first_column, first_column + num_columns)
    rows = np.arange(first_row, first_row + num_rows)
    values = _value_at(columns[None, :], rows[:, None], seed).ravel()
    place_P = (row_P - first_row) * num_columns + (column_P - first_column)
    return [
        (values[place_P + rise * num_columns], values[place_P + rise * num_columns + 1]) for rise in (0, 1)
    ]


def _value_at(column: Ints, row: Ints, seed: int) -> Floats:
    """Random values from 0 to 1 of corners between cells."""
    hashed = hash_each(hash_of(_STREAM_NOISE, seed), (row << 32) + column)
    return (hashed >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
