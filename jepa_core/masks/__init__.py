"""Mask geometry: what a setting asks for, what the model really sees, and the samplers in between.

`MaskSettings` on a `PatchGrid` give a `MaskSampler` (`build_sampler`, which refuses what cannot be sampled), and
it gives a `MaskBatch` for a batch of samples. `audit_geometry` predicts what a geometry masks, `mask_metrics`
measures it during training, `geometry_key` says which geometries are one and the same.
"""

from jepa_core.geometry import MaskSettings, PatchGrid, Strategy
from jepa_core.geometry.identity import equal_values, geometry_key, is_inert, unused_fields
from jepa_core.masks.audit import MaskAudit, ShapeShare, Spread, audit_geometry, coupled_figures
from jepa_core.masks.grid import MaskBatch, MaskSampler
from jepa_core.masks.metrics import mask_metrics
from jepa_core.masks.samplers import build_sampler

__all__ = [
    "MaskAudit",
    "MaskBatch",
    "MaskSampler",
    "MaskSettings",
    "PatchGrid",
    "ShapeShare",
    "Spread",
    "Strategy",
    "audit_geometry",
    "build_sampler",
    "coupled_figures",
    "equal_values",
    "geometry_key",
    "is_inert",
    "mask_metrics",
    "unused_fields",
]
