"""Floating-point operations of a training step, counted from the tokens that a step really runs.

Counts matrix products alone, two operations for a multiply-add, of the method as published: a form that skips unread
tokens or attends more cleverly is credited with the same count, so figures of different forms compare.

Source: the usual count of a transformer block, 24 N D^2 + 4 N^2 D operations for N tokens of width D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jepa_core.encoder import Encoder
from jepa_core.predictor import Predictor

_BACKWARD = 2


@dataclass(frozen=True, kw_only=True)
class ModelDims:
    """Dimensions that decide the cost of a step; `patch_values` is channels times patch area.

    `shared_context` is the predictor that runs the context once, which is another method and counted as such.
    """

    num_patches: int
    patch_values: int
    width: int
    depth: int
    predictor_width: int
    predictor_depth: int
    mlp_ratio: float = 4.0
    shared_context: bool = False

    @classmethod
    def of(cls, encoder: Encoder, predictor: Predictor) -> ModelDims:
        """The dimensions of a built model."""
        kernel = encoder.patch_embed.proj.weight
        block: Any = encoder.blocks[0]
        return cls(
            num_patches=encoder.grid.num_patches,
            patch_values=kernel[0].numel(),
            width=encoder.width,
            depth=encoder.depth,
            predictor_width=predictor.mask_token.shape[-1],
            predictor_depth=len(predictor.blocks),
            mlp_ratio=block.mlp.fc1.out_features / encoder.width,
            shared_context=predictor.context == "shared",
        )


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """Operations per image of one training step, by part; forward and backward together."""

    target_encoder: float
    context_encoder: float
    predictor: float

    @property
    def total(self) -> float:
        """Operations per image of the whole step, without optimiser and averaging."""
        return self.target_encoder + self.context_encoder + self.predictor


def flops_per_image(
    dims: ModelDims,
    *,
    context_patches: float,
    target_patches: float,
    num_target_blocks: int = 4,
    num_context_blocks: int = 1,
) -> StepFlops:
    """Operations per image of one training step.

    `context_patches` and `target_patches` are the mean realised patches of one context and of one target block,
    padding included if it is computed. The patch embedding has no gradient to its input, so its backward pass
    costs one forward pass; it is counted over the whole image, as a convolution computes it.
    """
    embed = 2 * dims.num_patches * dims.patch_values * dims.width
    target = embed + dims.depth * block_flops(dims.num_patches, dims.width, dims.mlp_ratio)
    context = dims.depth * block_flops(context_patches, dims.width, dims.mlp_ratio)
    in_out = 2 * num_context_blocks * (context_patches + num_target_blocks * target_patches)
    predictor = (
        num_context_blocks
        * dims.predictor_depth
        * _predictor_block_flops(dims, context_patches, target_patches, num_target_blocks)
    )
    predictor += in_out * dims.width * dims.predictor_width
    return StepFlops(
        target_encoder=target,
        context_encoder=2 * embed + (1 + _BACKWARD) * num_context_blocks * context,
        predictor=(1 + _BACKWARD) * predictor,
    )


def block_flops(tokens: float, width: int, mlp_ratio: float) -> float:
    """Operations of one transformer block's forward pass over a sequence of `tokens`."""
    return (8 + 4 * mlp_ratio) * tokens * width**2 + 4 * tokens**2 * width


def _predictor_block_flops(dims: ModelDims, context: float, target: float, blocks: int) -> float:
    """Operations of one predictor block's forward pass for one context block."""
    width = dims.predictor_width
    if not dims.shared_context:
        return blocks * block_flops(context + target, width, 4.0)
    pairs = context**2 + blocks * target * (context + target)
    return 24 * (context + blocks * target) * width**2 + 4 * pairs * width
