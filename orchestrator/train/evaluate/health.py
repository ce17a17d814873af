"""Signs of collapse on held-out images: one small batch, without augmentation, on one rank.

Called by `evaluation`. The figures themselves are `jepa_core.health`'s and the objective's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_core.health import health_metrics, lidar
from jepa_core.masks import MaskBatch, build_sampler
from jepa_core.objectives import IJepa
from jepa_core.step import TrainState, autocast
from orchestrator.config.models import RunConfig
from orchestrator.protocol.metrics import (
    LIDAR,
    LOSS_OF_CONSTANT,
    LOSS_OVER_CONSTANT,
    LOSS_OVER_POSITION,
    TARGET_SPREAD,
)
from orchestrator.train.distributed import Rank

LIDAR_VIEWS = 4
"""Draws of each image's context; the paper takes more, for a figure that is compared between models."""


@torch.no_grad()
def collapse_signs(
    state: TrainState, images_BCHW: Tensor, *, config: RunConfig, rank: Rank
) -> dict[str, float]:
    """What the health rules read at every report, from two forward passes; empty when the features are not finite."""
    with autocast(rank.device, rank.precision):
        tokens = state.objective.target_encoder(images_BCHW)
        if not torch.isfinite(tokens).all():
            return {}
        found = health_metrics(tokens) | _target_spread(state, images_BCHW)
    values = torch.stack([value.float() for value in found.values()]).tolist()
    return dict(zip(found, values, strict=True))


@torch.no_grad()
def health_of(state: TrainState, images_BCHW: Tensor, *, config: RunConfig, rank: Rank) -> dict[str, float]:
    """Metrics under `health/...` of normalised images; empty when the features are not finite.

    Masks are drawn with the run's seed for sample numbers 0 to B - 1, so they are the same at every evaluation.
    """
    objective = state.objective
    with autocast(rank.device, rank.precision):
        tokens = objective.target_encoder(images_BCHW)
        if not torch.isfinite(tokens).all():
            return {}
        found = health_metrics(tokens) | _target_spread(state, images_BCHW)
        if isinstance(objective, IJepa):
            found |= _of_ijepa(objective, images_BCHW, config)
    names = list(found)
    values = torch.stack([found[name].float() for name in names]).tolist()
    return dict(zip(names, values, strict=True))


def _target_spread(state: TrainState, images_BCHW: Tensor) -> dict[str, Tensor]:
    spread = state.objective.target_spread(images_BCHW)
    return {} if spread is None else {TARGET_SPREAD: spread}


def _of_ijepa(objective: IJepa, images_BCHW: Tensor, config: RunConfig) -> dict[str, Tensor]:
    sampler = build_sampler(config.masks, objective.context_encoder.grid)
    ids_B = torch.arange(len(images_BCHW))

    def draw(number: int) -> MaskBatch:
        epochs_B = torch.full_like(ids_B, number)
        return sampler.sample(ids_B, epochs_B, seed=config.train.seed, step=number, device=images_BCHW.device)

    views = [_context_features(objective, images_BCHW, draw(number)) for number in range(LIDAR_VIEWS)]
    losses = objective.losses_of_trivial_predictors(images_BCHW, draw(0))
    tiny = torch.finfo(torch.float32).tiny
    features_BQD = torch.stack(views, dim=1).float()
    if not torch.isfinite(features_BQD).all():
        return {}
    return {
        LIDAR: lidar(features_BQD),
        LOSS_OVER_CONSTANT: losses["loss"] / losses["constant"].clamp_min(tiny),
        LOSS_OVER_POSITION: losses["loss"] / losses["position"].clamp_min(tiny),
        LOSS_OF_CONSTANT: losses["constant"],
    }


def _context_features(objective: IJepa, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
    """Average-pooled features of the first context block: [B, D]."""
    valid = None if masks.context_valid_CBK is None else masks.context_valid_CBK[0]
    features: Tensor = objective.context_encoder(images_BCHW, masks.context_indices_CBK[0], valid)
    if valid is None:
        return features.mean(dim=1)
    weights = valid[:, :, None].to(features.dtype)
    return (features * weights).sum(dim=1) / weights.sum(dim=1)
