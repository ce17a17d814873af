"""From scale and aspect ratio to the integer sides of a block, as tables that are sampled and audited alike.

A range of scales and one of aspect ratios are each divided into equal steps (of the scale, and of the logarithm of
the aspect ratio). The table holds the sides for every pair of steps, so that a draw is a look-up, the distribution of
shapes is known exactly, and nothing depends on how a device rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from jepa_core.geometry.grid import PatchGrid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]

LEVEL_BITS = 5
"""Bits of the draw that picks the scale, and of the one that picks the aspect ratio."""
ROUND_BITS = 6
"""Bits of the draw that rounds the second side up or down."""
CELL_BITS = 2 * LEVEL_BITS + ROUND_BITS
"""Bits of a draw that picks a block: scale above aspect ratio above rounding."""
REFERENCE_BITS = 14
"""Bits of the one draw that picks a block of the published sampler."""

_SLACK = 1e-9
"""Added before rounding, so that ties do not depend on the last bit of a machine's `exp` and `sqrt`."""


@dataclass(frozen=True, eq=False)
class ShapeTable:
    """Block shapes, their distribution, and which of them a draw picks.

    `shapes` lists (height, width, weight) by height and width; the weights are integers whose sum is `total`.
    `cells` gives the place in that list for each value of a draw, all of which are equally likely.
    """

    shapes: tuple[tuple[int, int, int], ...]
    cells: Places

    @property
    def total(self) -> int:
        """The sum of the weights."""
        return sum(weight for _, _, weight in self.shapes)

    @property
    def max_area_patches(self) -> int:
        """Patches of the largest block."""
        return max(height * width for height, width, _ in self.shapes)

    @property
    def min_area_patches(self) -> int:
        """Patches of the smallest block."""
        return min(height * width for height, width, _ in self.shapes)


def sides(scales: Floats, log_aspects: Floats, num_rounds: int, grid: PatchGrid) -> tuple[Ints, Ints]:
    """Heights and widths in patches for every scale, log aspect ratio and way to round: [scales, aspects, rounds].

    The shorter side is the nearest whole number to its ideal length, but long enough for the other to fit into the
    grid. The other side is what the area then asks for, rounded up in as many of the rounds as its fraction, so that
    the mean area is the scale's own and the realised fraction follows the setting even on a small grid. Of squares,
    every other one rounds its width first.
    """
    area = scales[:, None] * grid.num_patches
    tall = np.broadcast_to(log_aspects > 0, (len(scales), len(log_aspects))).copy()
    tall |= (log_aspects == 0) & (np.arange(len(log_aspects)) % 2 == 1)
    first_limit = np.where(tall, grid.columns, grid.rows)
    second_limit = np.where(tall, grid.rows, grid.columns)
    ideal = np.sqrt(area) * np.exp(-np.abs(log_aspects) / 2)
    least = np.ceil(area / second_limit - _SLACK)
    first = np.clip(np.floor(ideal + 0.5 + _SLACK), np.maximum(least, 1), first_limit)[..., None]
    rounds = (np.arange(num_rounds) + 0.5) / num_rounds
    second = np.floor(area[..., None] / first + rounds + _SLACK)
    second = np.clip(second, 1, second_limit[..., None])
    first = np.broadcast_to(first, second.shape)
    height, width = np.where(tall[..., None], second, first), np.where(tall[..., None], first, second)
    return height.astype(np.int64), width.astype(np.int64)


def levels(low: float, high: float, num_levels: int) -> Floats:
    """The middles of equal steps from `low` to `high`."""
    return low + (high - low) * (np.arange(num_levels) + 0.5) / num_levels


def log_levels(aspect_ratio: tuple[float, float], num_levels: int) -> Floats:
    """The middles of equal steps of the logarithm of an aspect ratio."""
    return levels(math.log(aspect_ratio[0]), math.log(aspect_ratio[1]), num_levels)


@lru_cache(maxsize=64)
def independent_shapes(
    scale: tuple[float, float], aspect_ratio: tuple[float, float], grid: PatchGrid
) -> ShapeTable:
    """Shapes with the scale uniform and the aspect ratio log-uniform, drawn independently."""
    num_levels = 1 << LEVEL_BITS
    scales, log_aspects = levels(*scale, num_levels), log_levels(aspect_ratio, num_levels)
    return _table(grid, *sides(scales, log_aspects, 1 << ROUND_BITS, grid))


@lru_cache(maxsize=64)
def coupled_shapes(
    scale: tuple[float, float], aspect_ratio: tuple[float, float], grid: PatchGrid
) -> ShapeTable:
    """Shapes of the published sampler: one number sets scale and aspect ratio, sides stay under the grid's."""
    draw = levels(0.0, 1.0, 1 << REFERENCE_BITS)
    area = np.floor(grid.num_patches * (scale[0] + draw * (scale[1] - scale[0])))
    aspect = aspect_ratio[0] + draw * (aspect_ratio[1] - aspect_ratio[0])
    height = np.minimum(np.rint(np.sqrt(area * aspect)), grid.rows - 1).astype(np.int64)
    width = np.minimum(np.rint(np.sqrt(area / aspect)), grid.columns - 1).astype(np.int64)
    return _table(grid, height, width)


def single_shape(height: int, width: int) -> ShapeTable:
    """One shape always."""
    return ShapeTable(((height, width, 1),), np.zeros(1 << CELL_BITS, dtype=np.int32))


def _table(grid: PatchGrid, height: Ints, width: Ints) -> ShapeTable:
    """The table of equally likely heights and widths."""
    stride = grid.columns + 1
    codes = (height * stride + width).ravel()
    totals = np.bincount(codes)
    found = np.flatnonzero(totals)
    place = np.zeros(len(totals), dtype=np.int32)
    place[found] = np.arange(len(found), dtype=np.int32)
    shapes = tuple((int(code) // stride, int(code) % stride, int(totals[code])) for code in found)
    return ShapeTable(shapes, place[codes])
