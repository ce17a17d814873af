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

from jepa_core.masks.grid import PatchGrid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEVEL_BITS = 8
"""Bits of the draw that picks the scale, and of the one that picks the aspect ratio."""
DITHER_BITS = 16
"""Bits of the draw that rounds the second side up or down."""
REFERENCE_BITS = 14
"""Bits of the one draw that picks a block of the published sampler."""

_SLACK = 1e-9
"""Added before rounding, so that ties do not depend on the last bit of a machine's `exp` and `sqrt`."""


@dataclass(frozen=True, eq=False)
class ShapeTable:
    """Block shapes, their distribution, and which of them a draw picks.

    `shapes` lists (height, width, weight) by height and width; the weights are integers whose sum is `total`. A cell
    of the drawn number gives a place in that list: `low`, or `high` with a chance of `grow / 2**16`.
    """

    shapes: tuple[tuple[int, int, int], ...]
    low: Ints
    high: Ints
    grow: Ints

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


@dataclass(frozen=True)
class Sides:
    """The sides of blocks, in patches: the second side is one longer with a chance of `grow / 2**16`."""

    height: Ints
    width: Ints
    grow_height: npt.NDArray[np.bool_]
    grow: Ints

    @property
    def high_height(self) -> Ints:
        """The height if the second side is rounded up."""
        return self.height + self.grow_height

    @property
    def high_width(self) -> Ints:
        """The width if the second side is rounded up."""
        return self.width + ~self.grow_height

    def smallest_areas(self) -> Ints:
        """Patches if the second side is rounded down."""
        return self.height * self.width

    def largest_areas(self) -> Ints:
        """Patches if the second side is rounded up, where it can be."""
        return np.where(self.grow > 0, self.high_height * self.high_width, self.height * self.width)


def sides(scales: Floats, log_aspects: Floats, grid: PatchGrid) -> Sides:
    """The sides of a block for every scale (rows) and log aspect ratio (columns).

    The shorter side is the nearest whole number to its ideal length, but long enough for the other to fit into the
    grid. The other side is what the area then asks for, rounded up or down at random in proportion, so that the mean
    area is the scale's own for every scale and the realised fraction follows the setting even on a small grid. Of
    squares, every other one rounds its width first.
    """
    area = scales[:, None] * grid.num_patches
    tall = np.broadcast_to(log_aspects > 0, (len(scales), len(log_aspects))).copy()
    tall |= (log_aspects == 0) & (np.arange(len(log_aspects)) % 2 == 1)
    first_limit = np.where(tall, grid.columns, grid.rows)
    second_limit = np.where(tall, grid.rows, grid.columns)
    ideal = np.sqrt(area) * np.exp(-np.abs(log_aspects) / 2)
    least = np.ceil(area / second_limit - _SLACK)
    first = np.clip(np.floor(ideal + 0.5 + _SLACK), np.maximum(least, 1), first_limit)
    exact_second = area / first
    second = np.clip(np.floor(exact_second + _SLACK), 1, second_limit)
    grow = np.rint((exact_second - second) * (1 << DITHER_BITS))
    second, grow = np.where(grow == 1 << DITHER_BITS, second + 1, second), grow % (1 << DITHER_BITS)
    grow = np.where(second >= np.minimum(second_limit, exact_second + 1), 0, grow)
    height, width = np.where(tall, second, first), np.where(tall, first, second)
    return Sides(height.astype(np.int64), width.astype(np.int64), tall, grow.astype(np.int64))


def levels(low: float, high: float, num_levels: int) -> Floats:
    """The middles of equal steps from `low` to `high`."""
    return low + (high - low) * (np.arange(num_levels) + 0.5) / num_levels


def log_levels(aspect_ratio: tuple[float, float], num_levels: int) -> Floats:
    """The middles of equal steps of the logarithm of an aspect ratio."""
    return levels(math.log(aspect_ratio[0]), math.log(aspect_ratio[1]), num_levels)


@lru_cache(maxsize=256)
def independent_shapes(
    scale: tuple[float, float], aspect_ratio: tuple[float, float], grid: PatchGrid
) -> ShapeTable:
    """Shapes with the scale uniform and the aspect ratio log-uniform, drawn independently.

    A cell's number is (scale level, aspect level).
    """
    num_levels = 1 << LEVEL_BITS
    found = sides(levels(*scale, num_levels), log_levels(aspect_ratio, num_levels), grid)
    return _table(
        grid,
        (found.height, found.width, (1 << DITHER_BITS) - found.grow),
        (found.high_height, found.high_width, found.grow),
    )


@lru_cache(maxsize=256)
def coupled_shapes(
    scale: tuple[float, float], aspect_ratio: tuple[float, float], grid: PatchGrid
) -> ShapeTable:
    """Shapes of the published sampler: one number sets scale and aspect ratio, sides stay under the grid's."""
    draw = levels(0.0, 1.0, 1 << REFERENCE_BITS)
    area = np.floor(grid.num_patches * (scale[0] + draw * (scale[1] - scale[0])))
    aspect = aspect_ratio[0] + draw * (aspect_ratio[1] - aspect_ratio[0])
    height = np.minimum(np.rint(np.sqrt(area * aspect)), grid.rows - 1).astype(np.int64)
    width = np.minimum(np.rint(np.sqrt(area / aspect)), grid.columns - 1).astype(np.int64)
    return _table(grid, (height, width, np.ones_like(height)), (height, width, np.zeros_like(height)))


def single_shape(height: int, width: int) -> ShapeTable:
    """One shape always."""
    nothing = np.zeros(1 << 2 * LEVEL_BITS, dtype=np.int64)
    return ShapeTable(((height, width, 1),), nothing, nothing, nothing)


def _table(grid: PatchGrid, low: tuple[Ints, Ints, Ints], high: tuple[Ints, Ints, Ints]) -> ShapeTable:
    """The table of cells that each hold two shapes: heights, widths and weights."""
    stride = grid.columns + 2
    codes = [(height * stride + width).ravel() for height, width, _ in (low, high)]
    totals = np.zeros((grid.rows + 2) * stride)
    for code, part in zip(codes, (low, high), strict=True):
        totals += np.bincount(code, weights=part[2].ravel().astype(np.float64), minlength=len(totals))
    found = np.flatnonzero(totals)
    place = np.zeros(len(totals), dtype=np.int64)
    place[found] = np.arange(len(found))
    shapes = tuple((int(code) // stride, int(code) % stride, int(totals[code])) for code in found)
    return ShapeTable(shapes, place[codes[0]], place[codes[1]], high[2].ravel())
