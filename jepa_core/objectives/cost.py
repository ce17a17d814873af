"""What a step of any method costs, by PyTorch's own counter of the operations that it really runs."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from jepa_core.attention import choose_attention
from jepa_core.encoder import Encoder
from jepa_core.masks import MaskSettings
from jepa_core.objectives.base import Objective

_CHANNELS = 3


def counted_flops_per_image(objective: Objective, masks: MaskSettings, *, batch_size: int = 2) -> float:
    """Floating-point operations per image of one forward and backward pass, without optimiser and averaging.

    Counted on the meta device: nothing is computed and `objective` is left alone. Matrix products, convolutions and
    attention count, augmentations among them. The short cuts that leave a result unchanged count as they run, so
    I-JEPA's figure is slightly below the published form's (`jepa_core.flops`).
    """
    from torch.utils.flop_counter import FlopCounterMode  # here, since it loads triton

    encoder = objective.context_encoder
    sides_px = _image_sides_px(encoder)
    ids_B = torch.arange(batch_size)
    drawn = objective.build_sampler(masks).sample(ids_B, torch.zeros_like(ids_B), seed=0, step=0)
    shadow = _shadow(objective)
    choose_attention(shadow, "cpu", low_precision=True)
    images = torch.empty(batch_size, _CHANNELS, *sides_px, device="meta", dtype=torch.float32)
    counts = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=counts) as counter:
        loss: torch.Tensor = shadow(images, drawn.to("meta"))
        torch.autograd.backward(loss)
    return float(counter.get_total_flops()) / batch_size


def _shadow(objective: Objective) -> Objective:
    """A copy on the meta device; no weight is copied on the way."""
    memo: dict[int, Any] = {id(value): value.to("meta") for value in objective.buffers()}
    for value in objective.parameters():
        memo[id(value)] = torch.nn.Parameter(value.detach().to("meta"), requires_grad=value.requires_grad)
    return copy.deepcopy(objective, memo)


def _convolution_backward(
    gradient_shape: Any, images_shape: Any, weight_shape: Any, *_: Any, **__: Any
) -> int:
    """Two forward passes, groups counted; PyTorch's own count takes a grouped weight's gradient as ungrouped."""
    forward = 2 * gradient_shape[0] * math.prod(gradient_shape[2:]) * math.prod(weight_shape)
    return int(2 * forward)


def _image_sides_px(encoder: Encoder) -> tuple[int, int]:
    tall, wide = encoder.patch_embed.proj.weight.shape[-2:]
    return encoder.grid.rows * tall, encoder.grid.columns * wide
