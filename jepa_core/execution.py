"""How a step is computed: attention kernel, compilation, checkpointing, micro-batches, optimiser kernel, sharding.

None of these settings changes what a step computes, beyond rounding: the golden test holds in each of them. Owns the
settings and setting a built objective up; `step` carries it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from jepa_core.attention import choose_attention
from jepa_core.blocks import compile_blocks
from jepa_core.encoder import Encoder
from jepa_core.masks import MaskBatch
from jepa_core.predictor import Predictor
from jepa_core.settings import ExecutionSettings as ExecutionSettings


def prepare_module(
    module: nn.Module, settings: ExecutionSettings, device: torch.device | str, *, low_precision: bool
) -> None:
    """Set the encoders and predictors inside `module` up; parameters and their names stay as they are."""
    choose_attention(module, device, low_precision=low_precision, kernel=settings.attention)
    for part in module.modules():
        if not isinstance(part, (Encoder, Predictor)):
            continue
        part.checkpointing = settings.activation_checkpointing
        if settings.compile == "blocks":
            _compile(part, settings.compile_backend)


def pad_masks(masks: MaskBatch, multiple: int) -> MaskBatch:
    """The same masks with block lengths padded up to a multiple; the loss is that of the unpadded ones."""
    if multiple == 1:
        return masks
    context, context_valid = _pad(masks.context_indices_CBK, masks.context_valid_CBK, multiple)
    target, target_valid = _pad(masks.target_indices_MBT, masks.target_valid_MBT, multiple)
    return replace(
        masks,
        context_indices_CBK=context,
        target_indices_MBT=target,
        context_valid_CBK=context_valid,
        target_valid_MBT=target_valid,
    )


def micro_batches(images_BCHW: Tensor, masks: MaskBatch, parts: int) -> Sequence[tuple[Tensor, MaskBatch]]:
    """Split a batch into at most `parts` micro-batches whose sizes differ by one at most."""
    parts = min(parts, len(images_BCHW))
    if parts == 1:
        return [(images_BCHW, masks)]
    images = images_BCHW.tensor_split(parts)
    pieces: dict[str, Sequence[Any]] = {}
    for field in fields(masks):
        value = getattr(masks, field.name)
        if value is not None:
            pieces[field.name] = value.tensor_split(parts, dim=0 if field.name.endswith("_B") else 1)
    return [
        (images[part], replace(masks, **{name: cut[part] for name, cut in pieces.items()}))
        for part in range(parts)
    ]


def _pad(indices: Tensor, valid: Tensor | None, multiple: int) -> tuple[Tensor, Tensor | None]:
    missing = -indices.shape[-1] % multiple
    if missing == 0:
        return indices, valid
    valid = torch.ones_like(indices, dtype=torch.bool) if valid is None else valid
    return nn.functional.pad(indices, (0, missing)), nn.functional.pad(valid, (0, missing))


def _compile(part: Encoder | Predictor, backend: str) -> None:
    compile_blocks(part.blocks, backend)
    if isinstance(part, Predictor):
        part.first = torch.compile(part.first, backend=backend)
        part.tail = torch.compile(part.tail, backend=backend)
        part.shared = torch.compile(part.shared, backend=backend)
        part.shared_tail = torch.compile(part.shared_tail, backend=backend)
