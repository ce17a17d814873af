"""A tiny model, its batches and its masks, for the tests of the core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jepa_core.ema import EmaSettings
from jepa_core.encoder import EncoderSettings
from jepa_core.masks import MaskBatch, MaskSettings
from jepa_core.objectives import IJepaSettings, Objective
from jepa_core.optim import OptimizerSettings
from jepa_core.predictor import PredictorSettings
from jepa_core.step import TrainState, create_state

ENCODER = EncoderSettings(
    name="vit_tiny_patch16_224", image_size_px=24, patch_size_px=4, width=32, depth=2, num_heads=2
)
PREDICTOR = PredictorSettings(width=16, depth=2, num_heads=2)
NUM_PATCHES = 36


def tiny_state(**changes: Any) -> TrainState:
    """A new state of the tiny model; `changes` go to `create_state`."""
    settings: dict[str, Any] = {
        "encoder": ENCODER,
        "predictor": PREDICTOR,
        "objective": IJepaSettings(),
        "optimizer": OptimizerSettings(),
        "ema": EmaSettings(start_momentum=0.9),
        "total_steps": 10,
        "seed": 0,
    }
    return create_state(**(settings | changes))


def tiny_images(*, seed: int = 0, batch: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normalised images [batch, 3, 24, 24]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 24, 24, generator=generator, dtype=torch.float64).to(dtype)


def tiny_masks(
    *, seed: int = 0, batch: int = 3, contexts: int = 1, blocks: int = 2, kept: int = 7, targets: int = 5
) -> MaskBatch:
    """Masks of random patches, without padding; targets and contexts may overlap."""
    generator = torch.Generator().manual_seed(1000 + seed)

    def choose(*shape: int, count: int) -> Tensor:
        return torch.rand(*shape, NUM_PATCHES, generator=generator).argsort(dim=-1)[..., :count]

    return MaskBatch(
        context_indices_CBK=choose(contexts, batch, count=kept),
        target_indices_MBT=choose(blocks, batch, count=targets),
    )


def method_masks(module: Objective, *, batch: int = 3, epoch: int = 0) -> MaskBatch:
    """What the method's own sampler draws for the first samples."""
    ids = torch.arange(batch)
    return module.build_sampler(MaskSettings()).sample(ids, torch.full_like(ids, epoch), seed=0, step=0)


def padded(masks: MaskBatch, *, context: int = 0, target: int = 0) -> MaskBatch:
    """The same masks with that many padded entries behind each context and target block."""

    def pad(indices: Tensor, count: int) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(*indices.shape[:-1], count, dtype=indices.dtype)
        both = torch.cat([indices, zeros], dim=-1)
        return both, torch.arange(both.shape[-1]).expand_as(both) < indices.shape[-1]

    context_indices, context_valid = pad(masks.context_indices_CBK, context)
    target_indices, target_valid = pad(masks.target_indices_MBT, target)
    return MaskBatch(
        context_indices_CBK=context_indices,
        target_indices_MBT=target_indices,
        context_valid_CBK=context_valid if context else None,
        target_valid_MBT=target_valid if target else None,
    )
