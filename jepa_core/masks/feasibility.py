"""What a geometry comes to on a grid, worked out before anything is sampled, or the reason why it cannot be.

`plan_geometry` gives the static sizes that samplers, audit and the geometry key share. It raises ValueError with the
field, the reason and the nearest setting that works. Every geometry that it accepts can be sampled in a bounded
number of operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_core.masks.grid import PatchGrid
from jepa_core.masks.settings import MaskSettings
from jepa_core.masks.shapes import (
    Floats,
    ShapeTable,
    coupled_shapes,
    independent_shapes,
    log_levels,
    sides,
    single_shape,
)

_SCAN_STEPS = 1000


@dataclass(frozen=True, eq=False)
class Plan:
    """The static sizes of a geometry on a grid.

    `num_context_patches` is K, the context kept (for `reference`, the largest context block: its K depends on the
    batch). `least_context_patches` is what every context block is sure to hold. `may_crowd` says that target blocks
    could leave less than the minimum, so that the sampler has to look.
    """

    targets: ShapeTable
    contexts: ShapeTable
    num_target_patches: int
    num_context_patches: int
    least_context_patches: int
    may_crowd: bool

    @property
    def context_always_full(self) -> bool:
        """Whether no context is ever padded."""
        return self.num_context_patches <= self.least_context_patches

    @property
    def targets_always_full(self) -> bool:
        """Whether all target blocks have the same number of patches."""
        return self.targets.min_area_patches == self.num_target_patches


def plan_geometry(settings: MaskSettings, grid: PatchGrid) -> Plan:
    """The plan of a geometry on a grid.

    Raises:
        ValueError: the geometry cannot be sampled; the message names the field first, and the nearest that can.
    """
    targets, contexts = _target_shapes(settings, grid), _context_shapes(settings, grid)
    _check_targets(settings, grid, targets)
    _check_contexts(settings, grid, contexts)
    if settings.sampler == "reference":
        return _reference_plan(settings, targets, contexts)
    largest = contexts.max_area_patches
    least = contexts.min_area_patches
    if not settings.allow_overlap and settings.sampler != "rasterized":
        largest = min(largest, grid.num_patches - targets.min_area_patches)
        least = max(
            settings.min_context_patches, least - settings.num_target_blocks * targets.max_area_patches
        )
    crowded = grid.num_patches - settings.num_target_blocks * targets.max_area_patches
    disjoint = settings.allow_overlap or settings.sampler == "rasterized"
    return Plan(
        targets=targets,
        contexts=contexts,
        num_target_patches=targets.max_area_patches,
        num_context_patches=_context_count(settings, grid, largest),
        least_context_patches=least,
        may_crowd=not disjoint and crowded < settings.min_context_patches,
    )


def _reference_plan(settings: MaskSettings, targets: ShapeTable, contexts: ShapeTable) -> Plan:
    return Plan(
        targets=targets,
        contexts=contexts,
        num_target_patches=targets.max_area_patches,
        num_context_patches=contexts.max_area_patches,
        least_context_patches=settings.min_context_patches,
        may_crowd=not settings.allow_overlap,
    )


def quadrants(grid: PatchGrid) -> ShapeTable:
    """The shapes of a grid's quadrants; an odd side is cut before or after its middle, at random."""
    if min(grid.rows, grid.columns) < 2:
        raise ValueError(
            f"sampler 'rasterized' needs a grid of at least 2x2 patches, not {grid}; try 'exact'"
        )
    heights = {grid.rows // 2: 1, -(-grid.rows // 2): 1}
    widths = {grid.columns // 2: 1, -(-grid.columns // 2): 1}
    shapes = tuple((height, width, 1) for height in sorted(heights) for width in sorted(widths))
    nothing = np.zeros(0, dtype=np.int64)
    return ShapeTable(shapes, nothing, nothing, nothing)


def line(grid: PatchGrid) -> PatchGrid:
    """The grid as one row, on which a block is a number of patches."""
    return PatchGrid(1, grid.num_patches)


def _target_shapes(settings: MaskSettings, grid: PatchGrid) -> ShapeTable:
    if settings.sampler == "reference":
        _check_reference_grid(grid)
        return coupled_shapes(settings.target_scale, settings.target_aspect_ratio, grid)
    if settings.sampler == "random":
        return independent_shapes(settings.target_scale, _WIDE, line(grid))
    if settings.sampler == "rasterized":
        for name, number in (("num_target_blocks", 3), ("num_context_blocks", 1)):
            if getattr(settings, name) != number:
                raise ValueError(
                    f"{name} must be {number} for the sampler 'rasterized', where one quadrant predicts the "
                    f"other three, not {getattr(settings, name)}; try {number}"
                )
        return quadrants(grid)
    return independent_shapes(settings.target_scale, settings.target_aspect_ratio, grid)


_WIDE = (0.5, 0.5)
"""An aspect ratio that puts all of an area into the width of a one-row grid."""


def _context_shapes(settings: MaskSettings, grid: PatchGrid) -> ShapeTable:
    if settings.sampler == "reference":
        return coupled_shapes(settings.context_scale, settings.context_aspect_ratio, grid)
    if settings.sampler == "rasterized":
        return quadrants(grid)
    if settings.sampler in ("random", "block"):
        return single_shape(grid.rows, grid.columns)
    return independent_shapes(settings.context_scale, settings.context_aspect_ratio, grid)


def _check_reference_grid(grid: PatchGrid) -> None:
    if min(grid.rows, grid.columns) < 2:
        raise ValueError(
            f"sampler 'reference' keeps block sides under the grid's and needs at least 2x2 patches, not {grid}; "
            "try 'exact'"
        )


def _check_targets(settings: MaskSettings, grid: PatchGrid, targets: ShapeTable) -> None:
    """Every target block reaches its minimum and leaves room for context."""
    least = settings.min_target_patches
    if targets.min_area_patches < least:
        small = targets.min_area_patches
        reason = f"makes target blocks of {small} patches on a {grid} grid, fewer than min_target_patches ({least})"
        if settings.sampler == "rasterized":
            raise ValueError(f"min_target_patches must be at most {small} on a {grid} grid; try {small}")
        areas = _scan(settings, grid, "target_scale")[0]
        near = _lowest(areas, least, settings.target_scale)
        other = f"min_target_patches: {small}" if small else ""
        raise ValueError(
            f"target_scale {list(settings.target_scale)} {reason}; {_try('target_scale', near, other)}"
        )
    room = grid.num_patches - targets.max_area_patches
    if settings.allow_overlap or settings.sampler in ("rasterized", "reference"):
        return
    if room < settings.min_context_patches:
        areas = _scan(settings, grid, "target_scale")[1]
        near = _highest(areas, grid.num_patches - settings.min_context_patches, settings.target_scale)
        raise ValueError(
            f"target_scale {list(settings.target_scale)} makes target blocks of {targets.max_area_patches} patches, "
            f"which leave {room} of a {grid} grid for context, fewer than min_context_patches "
            f"({settings.min_context_patches}); {_try('target_scale', near, 'allow_overlap: true')}"
        )


def _check_contexts(settings: MaskSettings, grid: PatchGrid, contexts: ShapeTable) -> None:
    """Every context block, before the targets are taken out of it, reaches its minimum."""
    small, least = contexts.min_area_patches, settings.min_context_patches
    if small >= least:
        return
    if settings.sampler in ("random", "block", "rasterized"):
        raise ValueError(
            f"min_context_patches must be at most {small} on a {grid} grid for the sampler "
            f"{settings.sampler!r}, not {least}; try {small}"
        )
    near = _lowest(_scan(settings, grid, "context_scale")[0], least, settings.context_scale)
    other = f"min_context_patches: {small}" if small else ""
    raise ValueError(
        f"context_scale {list(settings.context_scale)} makes context blocks of {small} patches on a {grid} grid, "
        f"fewer than min_context_patches ({least}); {_try('context_scale', near, other)}"
    )


def _context_count(settings: MaskSettings, grid: PatchGrid, largest: int) -> int:
    """K: the context patches that reach the encoder."""
    keep, least = settings.context_keep, settings.min_context_patches
    if isinstance(keep, str):
        return largest
    count = keep if isinstance(keep, int) else round(keep * grid.num_patches)
    if least <= count <= largest:
        return count
    near_count = least if count < least else largest
    near = near_count if isinstance(keep, int) else _round_fraction(near_count, grid)
    bound = (
        f"fewer than min_context_patches ({least})"
        if count < least
        else f"but at most {largest} can be context"
    )
    raise ValueError(
        f"context_keep {keep} asks for {count} of the {grid.num_patches} patches of a {grid} grid, {bound}; "
        f"try context_keep: {near}" + (" or 'all'" if count > largest else "")
    )


def _round_fraction(count: int, grid: PatchGrid) -> float:
    """The shortest decimal fraction of the grid that comes to a count."""
    for digits in range(1, 9):
        fraction = round(count / grid.num_patches, digits)
        if fraction > 0 and round(fraction * grid.num_patches) == count:
            return fraction
    return count / grid.num_patches


def _scan(settings: MaskSettings, grid: PatchGrid, field: str) -> tuple[Floats, Floats]:
    """The smallest and the largest block for scales of 0.001, 0.002, ..., 1."""
    aspect_ratio = settings.target_aspect_ratio if field == "target_scale" else settings.context_aspect_ratio
    scales = np.arange(1, _SCAN_STEPS + 1) / _SCAN_STEPS
    if settings.sampler == "reference":
        return _scan_coupled(scales, aspect_ratio, grid)
    if settings.sampler == "random":
        grid, aspect_ratio = line(grid), _WIDE
    found = sides(scales, log_levels(aspect_ratio, 64), grid)
    return (
        found.smallest_areas().min(axis=1).astype(np.float64),
        found.largest_areas().max(axis=1).astype(np.float64),
    )


def _scan_coupled(
    scales: Floats, aspect_ratio: tuple[float, float], grid: PatchGrid
) -> tuple[Floats, Floats]:
    areas = np.array(
        [
            [table.min_area_patches, table.max_area_patches]
            for table in (coupled_shapes.__wrapped__((s, s), aspect_ratio, grid) for s in scales[::10])
        ]
    ).repeat(10, axis=0)
    return areas[:, 0].astype(np.float64), areas[:, 1].astype(np.float64)


def _lowest(smallest: Floats, least: int, scale: tuple[float, float]) -> tuple[float, float] | None:
    """The range with the smallest lower bound from which every block reaches a minimum."""
    enough = np.flatnonzero(np.minimum.accumulate(smallest[::-1])[::-1] >= least)
    if not len(enough):
        return None
    low = float(enough[0] + 1) / _SCAN_STEPS
    return low, max(low, scale[1])


def _highest(largest: Floats, most: int, scale: tuple[float, float]) -> tuple[float, float] | None:
    """The range with the largest upper bound up to which every block stays within a maximum."""
    within = np.flatnonzero(np.maximum.accumulate(largest) <= most)
    if not len(within):
        return None
    high = float(within[-1] + 1) / _SCAN_STEPS
    return min(high, scale[0]), high


def _try(field: str, near: tuple[float, float] | None, other: str) -> str:
    options = [f"{field}: [{near[0]:g}, {near[1]:g}]" if near else "", other]
    return (
        "try " + " or ".join(option for option in options if option)
        if any(options)
        else "the grid is too small"
    )
