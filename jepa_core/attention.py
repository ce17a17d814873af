"""How attention is run: masks for padding, and the kernel per device.

Both forms give the same result. Shape suffixes: R sequences, L tokens, H heads, F width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.settings import AttentionKernel

_SMALL_HEAD = 16


def attention_mask(valid_RL: Tensor | None) -> Tensor | None:
    """A mask [R, 1, 1, L] that lets every token of a row attend to the valid ones; None when all are."""
    return None if valid_RL is None else valid_RL[:, None, None, :]


def choose_attention(
    module: nn.Module, device: torch.device | str, *, low_precision: bool, kernel: AttentionKernel = "auto"
) -> None:
    """Set every timm attention inside `module` to the fused kernel or to two written-out products.

    `auto` takes the faster on `device`: a CPU runs the fused kernel slower than two batched products where heads are
    narrower than 16, and much slower in bfloat16; elsewhere fused is faster and needs no L x L matrix.
    """
    on_cpu = torch.device(device).type == "cpu"
    layers: list[Any] = [layer for layer in module.modules() if hasattr(layer, "fused_attn")]
    for layer in layers:
        slow = on_cpu and (low_precision or getattr(layer, "head_dim", _SMALL_HEAD) < _SMALL_HEAD)
        layer.fused_attn = kernel == "fused" or (kernel == "auto" and not slow)


def attend(
    query_RHLF: Tensor, key_RHLF: Tensor, value_RHLF: Tensor, mask: Tensor | None, *, fused: bool
) -> Tensor:
    """Scaled dot-product attention [R, H, L, F]; `mask` is True where a key may be read."""
    if fused:
        return F.scaled_dot_product_attention(query_RHLF, key_RHLF, value_RHLF, attn_mask=mask)
    scale = 1.0 / math.sqrt(query_RHLF.shape[-1])
    scores: Tensor = (query_RHLF * scale) @ key_RHLF.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ value_RHLF
