"""The plain baseline: I-JEPA's step as one first writes it, in the published implementation's manner.

Attention materialises its score matrix; the context encoder embeds the whole image and then picks patches; the
predictor repeats the context in front of every target block and runs all of it to the end; the average is a loop over
parameters; AdamW is torch's default; masks are drawn image by image (`masks.PlainSampler`). Parameter names are
`jepa_core`'s, so both start from the same weights and can be checked to compute the same loss. Imports torch and
`jepa_core` alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.masks import MaskBatch
from jepa_core.positions import sincos_positions


class PlainBlock(nn.Module):
    """A pre-norm transformer block with written-out attention."""

    def __init__(self, width: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, mlp_width), nn.Linear(mlp_width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        rows, length, width = tokens.shape
        parts = self.attn.qkv(self.norm1(tokens)).reshape(rows, length, 3, self.num_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query @ key.transpose(-2, -1)) * (width // self.num_heads) ** -0.5
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(rows, length, width)
        tokens = tokens + self.attn.proj(mixed)
        return tokens + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(tokens))))


class PlainEncoder(nn.Module):
    """A ViT that embeds the whole image, then keeps the patches it is given."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        kernel = encoder.patch_embed.proj
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, encoder.width, kernel.kernel_size, kernel.stride)
        mlp_width = encoder.blocks[0].mlp.fc1.out_features
        self.blocks = nn.ModuleList(
            PlainBlock(encoder.width, encoder.num_heads, mlp_width) for _ in range(encoder.depth)
        )
        self.norm = nn.LayerNorm(encoder.width, eps=1e-6)
        self.register_buffer("positions", encoder.position_ND.clone(), persistent=False)

    def forward(self, images: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        tokens = self.patch_embed.proj(images).flatten(2).transpose(1, 2) + self.positions
        if kept is not None:
            tokens = take(tokens, kept)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class PlainPredictor(nn.Module):
    """Every target block in a sequence of its own, with a copy of the context in front."""

    def __init__(self, predictor: Any, encoder: Any) -> None:
        super().__init__()
        width = predictor.mask_token.shape[-1]
        num_heads = predictor.blocks[0].attn.num_heads
        self.embed, self.project = nn.Linear(encoder.width, width), nn.Linear(width, encoder.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(PlainBlock(width, num_heads, 4 * width) for _ in predictor.blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        positions = sincos_positions(encoder.grid.rows, encoder.grid.columns, width)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, features: Tensor, kept: list[Tensor], wanted: list[Tensor]) -> Tensor:
        context, batch = self.embed(features), len(kept[0])
        context = context + take(self.positions.expand(batch, -1, -1), kept)
        queries = self.mask_token + take(self.positions.expand(batch, -1, -1), wanted)
        tokens = torch.cat([context.repeat(len(wanted), 1, 1), queries], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.project(self.norm(tokens)[:, context.shape[1] :])


def take(tokens: Tensor, blocks: list[Tensor]) -> Tensor:
    """The tokens of each block of indices, block by block along the batch."""
    return torch.cat([tokens.gather(1, b[:, :, None].expand(-1, -1, tokens.shape[-1])) for b in blocks])


class PlainRun:
    """The whole step: targets, predictions, loss, backward, AdamW, average."""

    def __init__(self, state: Any) -> None:
        ours = state.objective
        self.encoder = PlainEncoder(ours.context_encoder)
        self.target = PlainEncoder(ours.context_encoder).requires_grad_(False)
        self.predictor = PlainPredictor(ours.predictor, ours.context_encoder)
        for module, source in (
            (self.encoder, ours.context_encoder),
            (self.target, ours.target_encoder),
            (self.predictor, ours.predictor),
        ):
            module.load_state_dict(source.state_dict(), strict=True)
            module.to(state.device, next(ours.parameters()).dtype)
        trained = [*self.encoder.parameters(), *self.predictor.parameters()]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.04},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3)
        self.precision = state.precision

    def step(self, images: Tensor, masks: MaskBatch, momentum: float = 0.996) -> Tensor:
        """One step on masks without padding; returns the loss."""
        kept, wanted = list(masks.context_indices_CBK), list(masks.target_indices_MBT)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            with torch.no_grad():
                features = self.target(images)
                targets = take(F.layer_norm(features, features.shape[-1:]), wanted)
            loss = F.smooth_l1_loss(self.predictor(self.encoder(images, kept), kept, wanted), targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        plain_ema(self.target, self.encoder, momentum)
        return loss.detach()


@torch.no_grad()
def plain_ema(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """The average as a loop over parameters."""
    for average, parameter in zip(target.parameters(), source.parameters(), strict=True):
        average.mul_(momentum).add_((1.0 - momentum) * parameter.detach())
