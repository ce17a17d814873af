"""Mask geometry in whole numbers: what a setting comes to on a grid of patches, or why it cannot.

Owns `MaskSettings`, the `PatchGrid`, the shapes of blocks, and which geometries are one and the same. Leaves drawing
masks to `jepa_core.masks`. Imports numpy alone: a setting is checked before torch is needed.
"""

from jepa_core.geometry.feasibility import Plan, plan_geometry
from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.identity import equal_values, geometry_key, is_inert, unused_fields
from jepa_core.geometry.settings import MaskSettings, Strategy
from jepa_core.geometry.shapes import ShapeTable

__all__ = [
    "MaskSettings",
    "PatchGrid",
    "Plan",
    "ShapeTable",
    "Strategy",
    "equal_values",
    "geometry_key",
    "is_inert",
    "plan_geometry",
    "unused_fields",
]
