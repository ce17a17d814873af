"""From settings to a sampler."""

from __future__ import annotations

from jepa_core.geometry.feasibility import plan_geometry
from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.settings import MaskSettings
from jepa_core.masks.ablations import RandomSampler, RasterizedSampler
from jepa_core.masks.exact import ExactSampler
from jepa_core.masks.grid import MaskSampler
from jepa_core.masks.reference import ReferenceSampler

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
