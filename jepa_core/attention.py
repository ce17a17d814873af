"""How timm's attention is run: masks for padding, the kernel per device, and a last block that skips unread tokens.

All of it leaves the result unchanged. Shape suffixes: R sequences, L tokens, H heads, D width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALL_HEAD = 16


def attention_mask(valid_RL: Tensor | None) -> Tensor | None:
    """A mask [R, 1, 1, L] that lets every token of a row attend to the valid ones; None when all are."""
    return None if valid_RL is None else valid_RL[:, None, None, :]


def choose_attention(module: nn.Module, device: torch.device | str, *, low_precision: bool) -> None:
    """Set every timm attention inside `module` to its faster form on `device`: fused or written out.

    A CPU runs the fused kernel slower than two batched products where heads are narrower than 16, and much slower
    in bfloat16; elsewhere fused is faster and needs no L x L matrix.
    """
    on_cpu = torch.device(device).type == "cpu"
    layers: list[Any] = [layer for layer in module.modules() if hasattr(layer, "fused_attn")]
    for layer in layers:
        if hasattr(layer, "head_dim"):
            layer.fused_attn = not (on_cpu and (low_precision or layer.head_dim < _SMALL_HEAD))


def run_tail(block: Any, tokens_RLD: Tensor, first: int, mask: Tensor | None) -> Tensor:
    """The output of a plain timm block from token `first` on: [R, L - first, D].

    Equal to `block(tokens)[:, first:]`: the tokens before are keys and values only. It saves their query,
    projection and MLP where nothing reads their output.
    """
    attention = block.attn
    width = tokens_RLD.shape[-1]
    normed = block.norm1(tokens_RLD)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query = F.linear(normed[:, first:], weight[:width], bias[:width])
    key, value = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    heads = (len(query), -1, attention.num_heads, attention.head_dim)
    query, key, value = (part.reshape(heads).transpose(1, 2) for part in (query, key, value))
    mixed = _attend(query, key, value, mask, fused=attention.fused_attn)
    tokens = tokens_RLD[:, first:] + attention.proj(mixed.transpose(1, 2).flatten(2))
    out: Tensor = tokens + block.mlp(block.norm2(tokens))
    return out


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, fused: bool) -> Tensor:
    if fused:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scale = 1.0 / math.sqrt(query.shape[-1])
    scores: Tensor = (query * scale) @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ value
