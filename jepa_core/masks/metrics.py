"""What the masks of a batch came to, as metrics that stay on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_core.geometry.grid import PatchGrid
from jepa_core.masks.grid import MaskBatch


def patch_counts(indices: Tensor, valid: Tensor | None, num_patches: int) -> Tensor:
    """How many blocks hold each patch: int64 [B, N] from indices and validity of [blocks, B, patches]."""
    ones = torch.ones_like(indices) if valid is None else valid.to(torch.int64)
    counts = torch.zeros(indices.shape[1], num_patches, dtype=torch.int64, device=indices.device)
    for block, one in zip(indices, ones, strict=True):
        counts.scatter_add_(1, block, one)
    return counts


def mask_metrics(masks: MaskBatch, grid: PatchGrid) -> dict[str, Tensor]:
    """Means over a batch under `masks/...`, as float32 scalars on the masks' device.

    Fractions are of the grid; `context_*` and `target_*` are for one block, `*_union_*` for all blocks of an image.
    `overlap_fraction` is the share of context patches that are targets too, `target_overlap_fraction` the share of
    target patches that another target block holds already. `*_padding_fraction` is the share of computed places
    that hold nothing. Empty for a method that hides no patches.
    """
    if not len(masks.target_indices_MBT):
        return {}
    num_patches = grid.num_patches
    context_BN = patch_counts(masks.context_indices_CBK, masks.context_valid_CBK, num_patches)
    target_BN = patch_counts(masks.target_indices_MBT, masks.target_valid_MBT, num_patches)
    num_contexts, batch_size, num_kept = masks.context_indices_CBK.shape
    num_targets, _, num_targeted = masks.target_indices_MBT.shape
    context = context_BN.sum().float() / (batch_size * num_contexts)
    target = target_BN.sum().float() / (batch_size * num_targets)
    target_union = (target_BN > 0).sum().float() / batch_size
    context_union = (context_BN > 0).sum().float() / batch_size
    both = (context_BN * (target_BN > 0)).sum().float() / (batch_size * num_contexts)
    return {
        "masks/context_patches": context,
        "masks/context_fraction": context / num_patches,
        "masks/context_union_fraction": context_union / num_patches,
        "masks/context_padding_fraction": 1 - context / num_kept,
        "masks/target_patches": target,
        "masks/target_fraction": target / num_patches,
        "masks/target_union_fraction": target_union / num_patches,
        "masks/target_padding_fraction": 1 - target / num_targeted,
        "masks/target_overlap_fraction": 1 - target_union / (target * num_targets),
        "masks/overlap_fraction": both / context,
    }
