"""Mask geometry in whole numbers: what a setting comes to on a grid of patches, or why it cannot.

Owns `MaskSettings`, the `PatchGrid`, the shapes of blocks, and which geometries are one and the same. Leaves drawing
masks to `jepa_core.masks`. No module needs torch. The two classes here need nothing; `feasibility`, `identity` and
`shapes` need numpy and are imported by name, so that naming a setting costs less than checking it.
"""

from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.settings import MaskSettings, Strategy

__all__ = ["MaskSettings", "PatchGrid", "Strategy"]
