"""What the models of a sweep cost: operations of a step, bytes of a checkpoint, counted without building weights."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch

from jepa_core.flops import ModelDims, StepFlops, flops_per_image
from jepa_core.masks import MaskAudit
from jepa_core.objectives import IJepa, Objective, build_objective, counted_flops_per_image
from orchestrator.config.models import RunConfig

_FLOAT32_BYTES = 4
_OPTIMIZER_TENSORS = 2


def skeleton(config: RunConfig) -> Objective:
    """The model of a configuration on the meta device: shapes without weights, which even the largest has at once."""
    with torch.device("meta"):
        return build_objective(
            encoder=config.encoder, predictor=config.predictor, objective=config.objective, seed=0
        )


def model_dims(config: RunConfig) -> ModelDims:
    """The dimensions that decide the cost of a step of I-JEPA."""
    module = skeleton(config)
    assert isinstance(module, IJepa)
    return ModelDims.of(module.context_encoder, module.predictor)


@dataclass(frozen=True, kw_only=True)
class CheckpointBytes:
    """Bytes of one checkpoint: of the objective's tensors, which the best one is, and with the optimiser's."""

    weights: int
    whole: int


def checkpoint_bytes(config: RunConfig) -> CheckpointBytes:
    """Counted: every tensor of the objective, and the optimiser's two for each trained one."""
    module = skeleton(config)
    held: int = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    trained = sum(value.numel() for value in module.parameters() if value.requires_grad)
    return CheckpointBytes(weights=held, whole=held + _OPTIMIZER_TENSORS * _FLOAT32_BYTES * trained)


class ModelCosts:
    """Operations of a training step, each model of a sweep looked at once."""

    def __init__(self) -> None:
        self._dims: dict[Hashable, ModelDims] = {}
        self._counted: dict[Hashable, float] = {}

    def of_masks(self, config: RunConfig, audit: MaskAudit) -> StepFlops:
        """Operations per image of a step of I-JEPA under the masks of an audit."""
        model = _model(config)
        if model not in self._dims:
            self._dims[model] = model_dims(config)
        return flops_per_image(
            self._dims[model],
            context_patches=audit.context_tokens,
            target_patches=audit.target_tokens,
            num_target_blocks=config.masks.num_target_blocks,
            num_context_blocks=config.masks.num_context_blocks,
        )

    def of_method(self, config: RunConfig) -> float:
        """Operations per image of a step of a method that draws its own masks."""
        model = _model(config)
        if model not in self._counted:
            self._counted[model] = counted_flops_per_image(skeleton(config), config.masks)
        return self._counted[model]


def _model(config: RunConfig) -> Hashable:
    return config.encoder, config.predictor, config.objective
