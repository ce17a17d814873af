"""From settings to a sampler, and to the key that says which settings come to the same blocks."""

from __future__ import annotations

from collections.abc import Hashable
from math import gcd

from jepa_core.masks.ablations import RandomSampler, RasterizedSampler
from jepa_core.masks.exact import ExactSampler
from jepa_core.masks.feasibility import plan_geometry
from jepa_core.masks.grid import MaskSampler, PatchGrid
from jepa_core.masks.reference import ReferenceSampler
from jepa_core.masks.settings import MaskSettings
from jepa_core.masks.shapes import ShapeTable

_SAMPLERS: dict[str, type[ExactSampler] | type[ReferenceSampler]] = {
    "exact": ExactSampler,
    "reference": ReferenceSampler,
    "random": RandomSampler,
    "block": ExactSampler,
    "rasterized": RasterizedSampler,
}


def build_sampler(settings: MaskSettings, grid: PatchGrid) -> MaskSampler:
    """The sampler of a geometry on a grid.

    Raises:
        ValueError: the geometry cannot be sampled; the message names the field first, then the reason and the
            nearest setting that can.
    """
    return _SAMPLERS[settings.sampler](settings, grid, plan_geometry(settings, grid))


def geometry_key(settings: MaskSettings, grid: PatchGrid) -> Hashable:
    """A key that two geometries share exactly when their blocks have the same distribution on the grid.

    Settings that a sampler does not read leave no trace in it, nor do those that come to the same integer blocks.
    It holds for as long as a sweep runs, and is not meant to be stored.

    Raises:
        ValueError: the geometry cannot be sampled.
    """
    plan = plan_geometry(settings, grid)
    family = {"exact": "blocks", "block": "blocks"}.get(settings.sampler, settings.sampler)
    reads_overlap = settings.sampler != "rasterized"
    may_fall_short = plan.may_crowd or not plan.context_always_full
    reads_minimum = reads_overlap and not settings.allow_overlap and may_fall_short
    return (
        family,
        grid.rows,
        grid.columns,
        _distribution(plan.targets),
        settings.num_target_blocks,
        _distribution(plan.contexts),
        settings.num_context_blocks,
        None if settings.sampler == "reference" else plan.num_context_patches,
        settings.allow_overlap and reads_overlap,
        settings.min_context_patches if reads_minimum else None,
    )


def _distribution(table: ShapeTable) -> tuple[tuple[int, int, int], ...]:
    divisor = gcd(*(weight for _, _, weight in table.shapes))
    return tuple((height, width, weight // divisor) for height, width, weight in table.shapes)
