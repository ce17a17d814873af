"""Settings to objective: the one place that knows every pre-training method."""

from __future__ import annotations

from jepa_core.encoder import EncoderSettings, build_encoder
from jepa_core.objectives.base import Objective
from jepa_core.objectives.ijepa import IJepa, IJepaSettings
from jepa_core.predictor import PredictorSettings, build_predictor
from jepa_core.weights import part_generator


def build_objective(
    *, encoder: EncoderSettings, predictor: PredictorSettings, objective: IJepaSettings, seed: int
) -> Objective:
    """Build an untrained objective on the CPU; its weights are a function of settings and seed.

    The encoder's weights depend on the encoder's settings and the seed alone, so runs that differ elsewhere start
    from the same encoder.
    """
    context_encoder = build_encoder(encoder, generator=part_generator(seed, "encoder"))
    narrow = build_predictor(
        predictor,
        grid=context_encoder.grid,
        encoder_width=context_encoder.width,
        encoder_num_heads=context_encoder.num_heads,
        generator=part_generator(seed, "predictor"),
    )
    return IJepa(context_encoder, narrow, objective)
