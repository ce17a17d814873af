"""Running timm's transformer blocks: whole, only the part that is read, or with a context that targets share.

Owns the forms of a block that the predictor needs beside timm's own, activation checkpointing and regional compilation.
Blocks are plain pre-norm ones: `norm1`, `attn`, `norm2`, `mlp`.

Shape suffixes: R sequences, L tokens, S = C * B context sequences, M target blocks, K context patches, T patches of a
target block, Q = M * T, N places of the grid, E width, H heads, F width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa_core.attention import attend


def call(function: Callable[..., Any], *arguments: Any, checkpointing: bool) -> Any:
    """`function(*arguments)`; with `checkpointing` its inner activations are computed again in the backward pass.

    Exact: nothing in a block is random.
    """
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return function(*arguments)


def run_tail(block: Any, tokens_RLE: Tensor, first: int, mask: Tensor | None) -> Tensor:
    """The output of a block from token `first` on: [R, L - first, E].

    Equal to `block(tokens)[:, first:]`: the tokens before are keys and values only. It saves their query,
    projection and MLP where nothing reads their output.
    """
    attention = block.attn
    width = tokens_RLE.shape[-1]
    normed = block.norm1(tokens_RLE)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query = F.linear(normed[:, first:], weight[:width], bias[:width])
    key, value = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    heads = (len(query), -1, attention.num_heads, attention.head_dim)
    query, key, value = (part.reshape(heads).transpose(1, 2) for part in (query, key, value))
    mixed = attend(query, key, value, mask, fused=attention.fused_attn)
    return _finish(block, tokens_RLE[:, first:], mixed.transpose(1, 2).flatten(2))


def run_first(
    block: Any, context_CBKE: Tensor, places_NE: Tensor, target_indices_MBT: Tensor, mask: Tensor | None
) -> Tensor:
    """A block over every pair of a context and a target block: [R, K + T, E], R by target block, context, image.

    Equal to `block` on the sequences of all pairs: what no attention has mixed yet is computed once. That is query,
    key and value of a context's tokens for all its target blocks, and of the mask token at each of the N
    places of the grid, `places_NE`, for all images.
    """
    attention = block.attn
    pairs = (len(target_indices_MBT), *context_CBKE.shape[:2])
    tokens = join_pairs(context_CBKE, F.embedding(target_indices_MBT, places_NE), pairs)
    places = attention.qkv(block.norm1(places_NE))
    parts = join_pairs(
        attention.qkv(block.norm1(context_CBKE)), F.embedding(target_indices_MBT, places), pairs
    )
    heads = (*parts.shape[:2], 3, attention.num_heads, attention.head_dim)
    query, key, value = parts.view(heads).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = attend(query, key, value, mask, fused=attention.fused_attn)
    return _finish(block, tokens, mixed.transpose(1, 2).flatten(2))


def join_pairs(context_CBKE: Tensor, queries_MBTE: Tensor, pairs: tuple[int, int, int]) -> Tensor:
    """The sequences [R, K + T, E] of all `pairs` (M, C, B)."""
    context = context_CBKE.expand(*pairs, -1, -1)
    queries = queries_MBTE[:, None].to(context.dtype).expand(*pairs, -1, -1)
    return torch.cat([context, queries], dim=3).flatten(0, 2)


def run_shared(
    block: Any, tokens_SLE: Tensor, kept: int, blocks: int, masks: tuple[Tensor | None, Tensor | None]
) -> Tensor:
    """A block over `kept` context tokens followed by `blocks` target blocks of equal length: [S, K + M * T, E].

    The context attends to itself; each target block attends to the context and to itself. `masks` are those of the
    context [S, 1, 1, K] and of the pairs [S * M, 1, 1, K + T].
    """
    attention = block.attn
    rows, length, _ = tokens_SLE.shape
    parts_3SHLF = attention.qkv(block.norm1(tokens_SLE)).reshape(
        rows, length, 3, attention.num_heads, attention.head_dim
    )
    parts_3SHLF = parts_3SHLF.permute(2, 0, 3, 1, 4)
    query, key, value = parts_3SHLF.unbind(0)
    context = attend(
        query[:, :, :kept], key[:, :, :kept], value[:, :, :kept], masks[0], fused=attention.fused_attn
    )
    targets = _attend_pairs(query[:, :, kept:], key, value, kept, blocks, masks[1], attention.fused_attn)
    mixed = torch.cat([context.transpose(1, 2), targets], dim=1).flatten(2)
    return _finish(block, tokens_SLE, mixed)


def run_shared_tail(
    block: Any, tokens_SLE: Tensor, kept: int, blocks: int, masks: tuple[Tensor | None, Tensor | None]
) -> Tensor:
    """The targets' part of `run_shared`: [S, M * T, E]; the context is keys and values only."""
    attention = block.attn
    width = tokens_SLE.shape[-1]
    normed = block.norm1(tokens_SLE)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query = F.linear(normed[:, kept:], weight[:width], bias[:width])
    key, value = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    heads = (len(query), -1, attention.num_heads, attention.head_dim)
    query, key, value = (part.reshape(heads).transpose(1, 2) for part in (query, key, value))
    targets = _attend_pairs(query, key, value, kept, blocks, masks[1], attention.fused_attn)
    return _finish(block, tokens_SLE[:, kept:], targets.flatten(2))


def compile_blocks(blocks: nn.Sequential, backend: str) -> None:
    """Compile each block's `forward` in place: one graph serves all blocks of a shape, and names stay as they are.

    Sizes that change are compiled once more as variables and never again after that.
    """
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend)


def _attend_pairs(
    query_SHQF: Tensor,
    key_SHLF: Tensor,
    value_SHLF: Tensor,
    kept: int,
    blocks: int,
    mask: Tensor | None,
    fused: bool,
) -> Tensor:
    """Each target block to the context and itself: [S, Q, H, F]."""
    rows, heads, _, head_width = query_SHQF.shape

    def by_block(part_SHQF: Tensor) -> Tensor:
        return part_SHQF.view(*part_SHQF.shape[:2], blocks, -1, part_SHQF.shape[-1]).transpose(1, 2)

    def with_context(part_SHLF: Tensor) -> Tensor:
        context_SMHKF = part_SHLF[:, None, :, :kept].expand(-1, blocks, -1, -1, -1)
        return torch.cat([context_SMHKF, by_block(part_SHLF[:, :, kept:])], dim=3).flatten(0, 1)

    query = by_block(query_SHQF).flatten(0, 1)
    mixed = attend(query, with_context(key_SHLF), with_context(value_SHLF), mask, fused=fused)
    return mixed.transpose(1, 2).reshape(rows, -1, heads, head_width)


def _finish(block: Any, tokens: Tensor, mixed: Tensor) -> Tensor:
    """A block's output from what its attention mixed."""
    tokens = tokens + block.attn.proj(mixed)
    out: Tensor = tokens + block.mlp(block.norm2(tokens))
    return out
