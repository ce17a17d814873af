"""Every setting of the core, as frozen dataclasses that check themselves; neither torch nor timm is imported.

The modules that use the settings offer them too (`jepa_core.encoder.EncoderSettings`). Whoever reads settings alone
imports them from here, and does not wait for torch.
"""

from jepa_core.geometry import MaskSettings
from jepa_core.settings.ema import EmaSettings
from jepa_core.settings.encoder import (
    EncoderSettings,
    ImageSize,
    check_encoder_name,
    height_and_width,
    image_size,
)
from jepa_core.settings.execution import AttentionKernel, ExecutionSettings, OptimizerKernel
from jepa_core.settings.objectives import (
    CaeSettings,
    Data2Vec2Settings,
    Data2VecSettings,
    DinoSettings,
    IJepaSettings,
    MaeSettings,
    ObjectiveSettings,
    TargetNorm,
    VicRegSettings,
)
from jepa_core.settings.optimizer import OptimizerSettings
from jepa_core.settings.predictor import PredictorSettings

__all__ = [
    "AttentionKernel",
    "CaeSettings",
    "Data2Vec2Settings",
    "Data2VecSettings",
    "DinoSettings",
    "EmaSettings",
    "EncoderSettings",
    "ExecutionSettings",
    "IJepaSettings",
    "ImageSize",
    "MaeSettings",
    "MaskSettings",
    "ObjectiveSettings",
    "OptimizerKernel",
    "OptimizerSettings",
    "PredictorSettings",
    "TargetNorm",
    "VicRegSettings",
    "check_encoder_name",
    "height_and_width",
    "image_size",
]
