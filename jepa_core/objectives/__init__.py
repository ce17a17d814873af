"""Pre-training objectives: each is one file behind the base class in `base`, and `build` makes them."""

from jepa_core.objectives.base import Objective
from jepa_core.objectives.build import build_objective
from jepa_core.objectives.ijepa import IJepa, IJepaSettings

__all__ = ["IJepa", "IJepaSettings", "Objective", "build_objective"]
