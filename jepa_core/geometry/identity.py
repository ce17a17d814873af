"""Which geometries come to the same blocks, and which settings change nothing.

`geometry_key` is shared by the geometries that are one and the same on a grid; `equal_values`, `is_inert` and
`unused_fields` say which settings make no difference.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, replace
from math import gcd
from typing import Any

from jepa_core.geometry.feasibility import plan_geometry
from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.settings import MaskSettings
from jepa_core.geometry.shapes import ShapeTable

_UNUSED: Mapping[str, frozenset[str]] = {
    "exact": frozenset(),
    "reference": frozenset({"context_keep"}),
    "random": frozenset({"target_aspect_ratio", "context_scale", "context_aspect_ratio"}),
    "block": frozenset({"context_scale", "context_aspect_ratio"}),
    "rasterized": frozenset(
        {"target_scale", "target_aspect_ratio", "context_scale", "context_aspect_ratio", "allow_overlap"}
    ),
}


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


def unused_fields(settings: MaskSettings) -> frozenset[str]:
    """The settings that a sampler does not read."""
    return _UNUSED[settings.sampler]


def equal_values(
    settings: MaskSettings, grid: PatchGrid, field: str, values: Sequence[Any]
) -> tuple[tuple[int, ...], ...]:
    """Groups of places in `values` that come to the same blocks, where they replace one field of the settings.

    A single group means that the field changes nothing on this grid. Values that cannot be sampled stand alone.

    Raises:
        ValueError: the settings have no such field.
    """
    if field not in {item.name for item in fields(MaskSettings)}:
        raise ValueError(f"{field} is not a mask setting")
    groups: dict[Hashable, list[int]] = {}
    for place, value in enumerate(values):
        try:
            key = geometry_key(replace(settings, **{field: value}), grid)
        except ValueError:
            key = ("cannot be sampled", place)
        groups.setdefault(key, []).append(place)
    return tuple(tuple(group) for group in groups.values())


def is_inert(settings: MaskSettings, grid: PatchGrid, field: str, values: Sequence[Any]) -> bool:
    """Whether a field with several candidate values changes nothing on a grid."""
    return len(values) > 1 and len(equal_values(settings, grid, field, values)) == 1
