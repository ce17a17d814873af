"""What a geometry comes to on a grid, worked out before anything is sampled, or the reason why it cannot be.

`plan_geometry` gives the static sizes that samplers, audit and the geometry key share. It raises ValueError with the
field, the reason and the nearest setting that works. Every geometry that it accepts can be sampled in a bounded
number of operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.settings import MaskSettings
from jepa_core.geometry.shapes import ShapeTable, coupled_shapes, independent_shapes, single_shape

Range = tuple[float, float]
Advice = tuple[str, Range]

_SCALE_STEPS = 1000
"""Advice on a scale is given in steps of 0.001."""
_COARSE_STEPS = 20


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

    @cached_property
    def context_always_full(self) -> bool:
        """Whether no context is ever padded."""
        return self.num_context_patches <= self.least_context_patches

    @cached_property
    def targets_always_full(self) -> bool:
        """Whether all target blocks have the same number of patches."""
        return self.targets.min_area_patches == self.num_target_patches


def plan_geometry(settings: MaskSettings, grid: PatchGrid) -> Plan:
    """The plan of a geometry on a grid.

    Raises:
        ValueError: the geometry cannot be sampled; the message names the field first, and the nearest that can.
    """
    fault = _find_fault(settings, grid)
    if fault:
        raise ValueError(f"{fault.reason}; {fault.advice()}")
    targets, contexts = target_shapes(settings, grid), context_shapes(settings, grid)
    if settings.sampler == "reference":
        return _reference_plan(settings, targets, contexts)
    disjoint = settings.allow_overlap or settings.sampler == "rasterized"
    least, most_covered = contexts.min_area_patches, settings.num_target_blocks * targets.max_area_patches
    if not disjoint:
        least = max(settings.min_context_patches, least - most_covered)
    return Plan(
        targets=targets,
        contexts=contexts,
        num_target_patches=targets.max_area_patches,
        num_context_patches=_context_count(settings, grid),
        least_context_patches=least,
        may_crowd=not disjoint and grid.num_patches - most_covered < settings.min_context_patches,
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
    heights = {grid.rows // 2: 1, -(-grid.rows // 2): 1}
    widths = {grid.columns // 2: 1, -(-grid.columns // 2): 1}
    shapes = tuple((height, width, 1) for height in sorted(heights) for width in sorted(widths))
    return ShapeTable(shapes, np.zeros(0, dtype=np.int32))


def target_shapes(settings: MaskSettings, grid: PatchGrid) -> ShapeTable:
    """The shapes of the target blocks; for "random", whose targets are no blocks, rows of so many patches."""
    if settings.sampler == "reference":
        return coupled_shapes(settings.target_scale, settings.target_aspect_ratio, grid)
    if settings.sampler == "random":
        # Any aspect ratio below 1 puts all of the area into the width.
        return independent_shapes(settings.target_scale, (0.5, 0.5), PatchGrid(1, grid.num_patches))
    if settings.sampler == "rasterized":
        return quadrants(grid)
    return independent_shapes(settings.target_scale, settings.target_aspect_ratio, grid)


def context_shapes(settings: MaskSettings, grid: PatchGrid) -> ShapeTable:
    """The shapes of the context blocks, before the targets are taken out of them."""
    if settings.sampler == "reference":
        return coupled_shapes(settings.context_scale, settings.context_aspect_ratio, grid)
    if settings.sampler == "rasterized":
        return quadrants(grid)
    if settings.sampler in ("random", "block"):
        return single_shape(grid.rows, grid.columns)
    return independent_shapes(settings.context_scale, settings.context_aspect_ratio, grid)


@dataclass(frozen=True)
class _Fault:
    """Why a geometry cannot be sampled; the advice, which takes a search, is worked out when it is asked for."""

    reason: str
    advice: Callable[[], str]


def _find_fault(settings: MaskSettings, grid: PatchGrid) -> _Fault | None:
    """The first reason why a geometry cannot be sampled."""
    for check in (_check_grid, _check_targets, _check_room, _check_contexts, _check_count):
        fault = check(settings, grid)
        if fault:
            return fault
    return None


def _check_grid(settings: MaskSettings, grid: PatchGrid) -> _Fault | None:
    """The grid has two rows and columns, and the counts are right, where a sampler needs that."""
    name = settings.sampler
    if name in ("reference", "rasterized") and min(grid.rows, grid.columns) < 2:
        return _Fault(
            f"sampler {name!r} needs a grid of at least 2x2 patches, not {grid}", lambda: "try 'exact'"
        )
    if name != "rasterized":
        return None
    for field, number in (("num_target_blocks", 3), ("num_context_blocks", 1)):
        if getattr(settings, field) != number:
            return _Fault(
                f"{field} must be {number} for the sampler 'rasterized', where one quadrant predicts the other "
                f"three, not {getattr(settings, field)}",
                lambda number=number: f"try {number}",  # type: ignore[misc]
            )
    return None


def _check_targets(settings: MaskSettings, grid: PatchGrid) -> _Fault | None:
    """Every target block reaches its minimum."""
    small, least = target_shapes(settings, grid).min_area_patches, settings.min_target_patches
    if small >= least:
        return None
    if settings.sampler == "rasterized":
        reason = (
            f"min_target_patches must be at most {small}, the smallest quadrant of a {grid} grid, not {least}"
        )
        return _Fault(reason, lambda: f"try {small}")
    return _Fault(
        f"target_scale {list(settings.target_scale)} makes target blocks of {small} patches on a {grid} grid, "
        f"fewer than min_target_patches ({least})",
        lambda: _try(
            _lowest(settings, grid, "target_scale", least), f"min_target_patches: {small}" if small else ""
        ),
    )


def _check_room(settings: MaskSettings, grid: PatchGrid) -> _Fault | None:
    """A target block leaves room for the minimum of context."""
    if settings.allow_overlap or settings.sampler in ("rasterized", "reference"):
        return None
    large, least = target_shapes(settings, grid).max_area_patches, settings.min_context_patches
    room = grid.num_patches - large
    if room >= least:
        return None
    return _Fault(
        f"target_scale {list(settings.target_scale)} makes target blocks of {large} patches, which leave {room} of "
        f"a {grid} grid for context, fewer than min_context_patches ({least})",
        lambda: _try(_highest(settings, grid), "allow_overlap: true"),
    )


def _check_contexts(settings: MaskSettings, grid: PatchGrid) -> _Fault | None:
    """Every context block, before the targets are taken out of it, reaches its minimum."""
    small, least = context_shapes(settings, grid).min_area_patches, settings.min_context_patches
    if small >= least:
        return None
    if settings.sampler in ("random", "block", "rasterized"):
        reason = f"min_context_patches must be at most {small} on a {grid} grid for the sampler {settings.sampler!r}"
        return _Fault(f"{reason}, not {least}", lambda: f"try {small}")
    return _Fault(
        f"context_scale {list(settings.context_scale)} makes context blocks of {small} patches on a {grid} grid, "
        f"fewer than min_context_patches ({least})",
        lambda: _try(
            _lowest(settings, grid, "context_scale", least), f"min_context_patches: {small}" if small else ""
        ),
    )


def _check_count(settings: MaskSettings, grid: PatchGrid) -> _Fault | None:
    """The number of context patches to keep is within reach."""
    if settings.sampler == "reference":
        return None
    count, least, most = (
        _context_count(settings, grid),
        settings.min_context_patches,
        _most_context(settings, grid),
    )
    if least <= count <= most:
        return None
    keep, near = settings.context_keep, least if count < least else most
    bound = (
        f"fewer than min_context_patches ({least})" if count < least else f"but at most {most} can be context"
    )
    return _Fault(
        f"context_keep {keep} asks for {count} of the {grid.num_patches} patches of a {grid} grid, {bound}",
        lambda: (
            f"try context_keep: {near if isinstance(keep, int) else _round_fraction(near, grid)}"
            + (" or 'all'" if count > most else "")
        ),
    )


def _most_context(settings: MaskSettings, grid: PatchGrid) -> int:
    """The most patches that a context block can ever keep."""
    largest = context_shapes(settings, grid).max_area_patches
    if settings.allow_overlap or settings.sampler == "rasterized":
        return largest
    return min(largest, grid.num_patches - target_shapes(settings, grid).min_area_patches)


def _context_count(settings: MaskSettings, grid: PatchGrid) -> int:
    """K: the context patches that reach the encoder."""
    keep = settings.context_keep
    if isinstance(keep, str):
        return _most_context(settings, grid)
    return keep if isinstance(keep, int) else round(keep * grid.num_patches)


def _round_fraction(count: int, grid: PatchGrid) -> float:
    """The shortest decimal fraction of the grid that comes to a count."""
    for digits in range(1, 9):
        fraction = round(count / grid.num_patches, digits)
        if fraction > 0 and round(fraction * grid.num_patches) == count:
            return fraction
    return count / grid.num_patches


def _lowest(settings: MaskSettings, grid: PatchGrid, field: str, least: int) -> Advice | None:
    """The range with the smallest lower bound that can be sampled; its upper bound rises only if it must."""
    high = getattr(settings, field)[1]
    if field == "context_scale" and settings.sampler != "reference" and settings.context_keep != "all":
        high = max(high, _round_up(_context_count(settings, grid) / grid.num_patches))
    start = math.ceil(least / grid.num_patches * _SCALE_STEPS - 1e-6)
    return _search(settings, grid, field, range(start, _SCALE_STEPS + 1), lambda low: (low, max(low, high)))


def _highest(settings: MaskSettings, grid: PatchGrid) -> Advice | None:
    """The range of target scales with the largest upper bound that can be sampled; the lower falls if it must."""
    start = math.floor((1 - settings.min_context_patches / grid.num_patches) * _SCALE_STEPS)
    low = settings.target_scale[0]
    return _search(settings, grid, "target_scale", range(start, 0, -1), lambda high: (min(low, high), high))


def _search(
    settings: MaskSettings, grid: PatchGrid, field: str, steps: range, make: Callable[[float], Range]
) -> Advice | None:
    """The first of some scales that can be sampled: in coarse steps, then back by halves."""

    def works(step: int) -> bool:
        changes: dict[str, Any] = {field: make(step / _SCALE_STEPS)}
        return _find_fault(replace(settings, **changes), grid) is None

    coarse = [*steps[::_COARSE_STEPS], *steps[-1:]]
    for place, found in enumerate(coarse):
        if works(found):
            before = coarse[place - 1] if place else found
            while abs(found - before) > 1:
                middle = (found + before) // 2
                found, before = (middle, before) if works(middle) else (found, middle)
            return field, make(found / _SCALE_STEPS)
    return None


def _round_up(scale: float) -> float:
    return round(math.ceil(scale * _SCALE_STEPS - 1e-6) / _SCALE_STEPS, 3)


def _try(near: Advice | None, other: str) -> str:
    options = [f"{near[0]}: [{near[1][0]:g}, {near[1][1]:g}]" if near else "", other]
    return (
        "try " + " or ".join(option for option in options if option)
        if any(options)
        else "the grid is too small"
    )
