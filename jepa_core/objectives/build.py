"""Settings to objective: the one place that knows every pre-training method."""

from __future__ import annotations

from jepa_core.encoder import Encoder, build_encoder
from jepa_core.objectives.augment import PixelStatistics
from jepa_core.objectives.base import Objective
from jepa_core.objectives.cae import Cae
from jepa_core.objectives.data2vec import Data2Vec
from jepa_core.objectives.data2vec2 import Data2Vec2
from jepa_core.objectives.dino import Dino
from jepa_core.objectives.ijepa import IJepa
from jepa_core.objectives.mae import Mae
from jepa_core.objectives.vicreg import VicReg
from jepa_core.predictor import build_predictor
from jepa_core.settings import (
    CaeSettings,
    Data2Vec2Settings,
    Data2VecSettings,
    DinoSettings,
    EncoderSettings,
    IJepaSettings,
    MaeSettings,
    ObjectiveSettings,
    PredictorSettings,
    VicRegSettings,
)
from jepa_core.weights import part_generator


def build_objective(
    *,
    encoder: EncoderSettings,
    predictor: PredictorSettings,
    objective: ObjectiveSettings,
    seed: int,
    pixels: PixelStatistics | None = None,
) -> Objective:
    """Build an untrained objective on the CPU; its weights are a function of settings and seed.

    The encoder's weights depend on the encoder's settings and the seed alone, so runs that differ elsewhere, in the
    method among others, start from the same encoder. `predictor` is read by I-JEPA alone. `pixels` says how images
    are normalised, for methods that change colours; None is the usual ImageNet statistics.

    Raises:
        ValueError: The settings do not fit each other.
    """
    trained = build_encoder(encoder, generator=part_generator(seed, "encoder"))
    pixels = pixels or PixelStatistics()
    match objective:
        case MaeSettings():
            return Mae(trained, objective, seed=seed)
        case Data2VecSettings():
            return Data2Vec(trained, objective, seed=seed)
        case Data2Vec2Settings():
            return Data2Vec2(trained, objective, seed=seed)
        case CaeSettings():
            return Cae(trained, objective, seed=seed)
        case VicRegSettings():
            return VicReg(trained, objective, seed=seed, pixels=pixels)
        case DinoSettings():
            return Dino(trained, objective, seed=seed, pixels=pixels)
        case IJepaSettings():
            return _ijepa(trained, predictor, objective, seed=seed)


def _ijepa(encoder: Encoder, predictor: PredictorSettings, objective: IJepaSettings, *, seed: int) -> IJepa:
    narrow = build_predictor(
        predictor,
        grid=encoder.grid,
        encoder_width=encoder.width,
        encoder_num_heads=encoder.num_heads,
        generator=part_generator(seed, "predictor"),
    )
    return IJepa(encoder, narrow, objective)
