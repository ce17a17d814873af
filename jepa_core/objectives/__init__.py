"""Pre-training objectives: each is one file behind the base class in `base`, and `build` makes them.

Their settings are in `jepa_core.settings`, which needs no torch.
"""

from jepa_core.objectives.augment import PixelStatistics
from jepa_core.objectives.base import Objective, Sampler
from jepa_core.objectives.build import build_objective
from jepa_core.objectives.cae import Cae
from jepa_core.objectives.cost import counted_flops_per_image
from jepa_core.objectives.data2vec import Data2Vec
from jepa_core.objectives.data2vec2 import Data2Vec2
from jepa_core.objectives.dino import Dino
from jepa_core.objectives.ijepa import IJepa
from jepa_core.objectives.mae import Mae
from jepa_core.objectives.vicreg import VicReg
from jepa_core.settings import (
    CaeSettings,
    Data2Vec2Settings,
    Data2VecSettings,
    DinoSettings,
    IJepaSettings,
    MaeSettings,
    ObjectiveSettings,
    VicRegSettings,
)

__all__ = [
    "Cae",
    "CaeSettings",
    "Data2Vec",
    "Data2Vec2",
    "Data2Vec2Settings",
    "Data2VecSettings",
    "Dino",
    "DinoSettings",
    "IJepa",
    "IJepaSettings",
    "Mae",
    "MaeSettings",
    "Objective",
    "ObjectiveSettings",
    "PixelStatistics",
    "Sampler",
    "VicReg",
    "VicRegSettings",
    "build_objective",
    "counted_flops_per_image",
]
