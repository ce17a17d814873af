"""The narrow predictor: context features and positional mask tokens in, target features out.

Shape suffixes: B images, C context blocks, M target blocks, K kept context patches, T patches of a target block,
N patches of the grid, D encoder width, E predictor width. R = M * C * B counts sequences.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.attention import attention_mask
from jepa_core.blocks import call, join_pairs, run_first, run_shared, run_shared_tail, run_tail
from jepa_core.geometry import PatchGrid
from jepa_core.masks import MaskBatch
from jepa_core.positions import sincos_positions
from jepa_core.settings import PredictorSettings as PredictorSettings
from jepa_core.weights import build_untouched, draw, initialise, part_generator

_NORM_EPSILON = 1e-6


class Predictor(nn.Module):
    """Predicts the features of each target block from each context block; no target block sees another.

    `checkpointing`, and the functions that run a block, are set by `execution`.

    Source: I-JEPA (arXiv 2301.08243), section 3, "Prediction".
    Deviates: only with `context: shared`, see `PredictorSettings`.
    """

    position_NE: Tensor

    def __init__(
        self, settings: PredictorSettings, *, grid: PatchGrid, encoder_width: int, num_heads: int
    ) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block  # here, since importing timm takes seconds

        self.context = settings.context
        self.checkpointing = False
        self.first, self.tail = run_first, run_tail
        self.shared, self.shared_tail = run_shared, run_shared_tail
        width = settings.width
        norm = partial(nn.LayerNorm, eps=_NORM_EPSILON)
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(
            *(Block(width, num_heads, qkv_bias=True, norm_layer=norm) for _ in range(settings.depth))
        )
        self.norm = norm(width)
        self.project = nn.Linear(width, encoder_width)
        self.register_buffer(
            "position_NE", sincos_positions(grid.rows, grid.columns, width), persistent=False
        )

    def forward(self, context_CxB_KD: Tensor, masks: MaskBatch) -> Tensor:
        """Predicted features [R, T, D]: by target block, then context block, then image.

        `context_CxB_KD` are the context encoder's features [C * B, K, D], context block by context block. Padded
        context patches and padded targets are attended to by no token; predictions at padding mean nothing.
        """
        contexts, batch, kept = masks.context_indices_CBK.shape
        context = self.embed(context_CxB_KD).view(contexts, batch, kept, -1)
        context_CBKE = context + self.position_NE[masks.context_indices_CBK]
        places_NE = self.mask_token[0] + self.position_NE
        run = self._repeated if self.context == "repeated" else self._shared
        predictions: Tensor = self.project(self.norm(run(context_CBKE, places_NE, masks)))
        return predictions

    def _repeated(self, context_CBKE: Tensor, places_NE: Tensor, masks: MaskBatch) -> Tensor:
        """Every pair of a target and a context block in a sequence of its own: [R, T, E]."""
        kept = context_CBKE.shape[2]
        valid = _pair_valid(masks)
        mask = attention_mask(None if valid is None else valid.flatten(0, 2))
        *inner, last = self.blocks
        if inner:
            first, *inner = inner
            arguments = (context_CBKE, places_NE, masks.target_indices_MBT, mask)
            tokens = call(self.first, first, *arguments, checkpointing=self.checkpointing)
        else:
            queries_MBTE = F.embedding(masks.target_indices_MBT, places_NE)
            tokens = join_pairs(context_CBKE, queries_MBTE, (len(queries_MBTE), *context_CBKE.shape[:2]))
        for block in inner:
            tokens = call(block, tokens, mask, checkpointing=self.checkpointing)
        out: Tensor = call(self.tail, last, tokens, kept, mask, checkpointing=self.checkpointing)
        return out

    def _shared(self, context_CBKE: Tensor, places_NE: Tensor, masks: MaskBatch) -> Tensor:
        """The context once, and all its target blocks behind it: [R, T, E]."""
        contexts, batch, kept, width = context_CBKE.shape
        blocks, _, targets = masks.target_indices_MBT.shape
        queries_BxMT_E = F.embedding(masks.target_indices_MBT.transpose(0, 1).flatten(1), places_NE)
        queries_BxMT_E = queries_BxMT_E.to(context_CBKE.dtype)
        tokens = torch.cat([context_CBKE, queries_BxMT_E.expand(contexts, -1, -1, -1)], dim=2).flatten(0, 1)
        valid = _pair_valid(masks)
        context_valid = masks.context_valid_CBK
        attention_masks = (
            attention_mask(None if context_valid is None else context_valid.flatten(0, 1)),
            attention_mask(None if valid is None else valid.permute(1, 2, 0, 3).flatten(0, 2)),
        )
        arguments = (kept, blocks, attention_masks)
        *inner, last = self.blocks
        for block in inner:
            tokens = call(self.shared, block, tokens, *arguments, checkpointing=self.checkpointing)
        out: Tensor = call(self.shared_tail, last, tokens, *arguments, checkpointing=self.checkpointing)
        return out.view(contexts, batch, blocks, targets, width).permute(2, 0, 1, 3, 4).flatten(0, 2)


def _pair_valid(masks: MaskBatch) -> Tensor | None:
    """Which tokens [M, C, B, K + T] of all pairs are no padding; None when none are."""
    context_valid, target_valid = masks.context_valid_CBK, masks.target_valid_MBT
    if context_valid is None and target_valid is None:
        return None
    if context_valid is None:
        context_valid = torch.ones_like(masks.context_indices_CBK, dtype=torch.bool)
    if target_valid is None:
        target_valid = torch.ones_like(masks.target_indices_MBT, dtype=torch.bool)
    pairs = (len(target_valid), *context_valid.shape[:2])
    return torch.cat([context_valid.expand(*pairs, -1), target_valid[:, None].expand(*pairs, -1)], dim=3)


def build_predictor(
    settings: PredictorSettings,
    *,
    grid: PatchGrid,
    encoder_width: int,
    encoder_num_heads: int,
    generator: torch.Generator | None = None,
) -> Predictor:
    """Build an untrained predictor; `generator` draws its weights, None is seed 0.

    Raises:
        ValueError: The width is no multiple of the heads.
    """
    num_heads = settings.num_heads or encoder_num_heads
    if settings.width % num_heads:
        raise ValueError(f"predictor width {settings.width} must be a multiple of its {num_heads} heads")
    generator = generator or part_generator(0, "predictor")
    predictor = build_untouched(
        lambda: Predictor(settings, grid=grid, encoder_width=encoder_width, num_heads=num_heads)
    )
    initialise(predictor, generator)
    draw(predictor.mask_token, generator)
    return predictor
