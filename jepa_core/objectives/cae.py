"""The CAE objective: regress hidden patches' features from the visible ones, then decode them.

Shape suffixes: B images, C channels, H W pixels, K visible patches, T hidden patches, D width, P values of a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.encoder import Encoder
from jepa_core.masks import MaskBatch, MaskSettings
from jepa_core.objectives.augment import flip_half
from jepa_core.objectives.base import Sampler, TeacherlessObjective
from jepa_core.objectives.masking import block_sampler
from jepa_core.objectives.parts import (
    NORM_EPSILON,
    full_precision,
    hidden_pixels,
    patch_values,
    seeded,
    transformer_blocks,
)
from jepa_core.settings import CaeSettings
from jepa_core.weights import build_untouched, part_generator


class CrossBlock(nn.Module):
    """A transformer block whose tokens attend to the visible patches and to themselves."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_query = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.norm_context = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, tokens_BTD: Tensor, context_BKD: Tensor) -> Tensor:
        """The tokens after attention and MLP, [B, T, D]; `context_BKD` carries its positions."""
        both = torch.cat([self.norm_context(context_BKD), self.norm_query(tokens_BTD)], dim=1)
        query = self._heads(self.query(self.norm_query(tokens_BTD)))
        key, value = (self._heads(part) for part in self.key_value(both).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens_BTD + self.project(mixed)
        out: Tensor = tokens + self.contract(F.gelu(self.expand(self.norm_mlp(tokens))))
        return out

    def _heads(self, tokens: Tensor) -> Tensor:
        rows, count, width = tokens.shape
        return tokens.view(rows, count, self.num_heads, width // self.num_heads).transpose(1, 2)


class Regressor(nn.Module):
    """Cross-attention blocks from a mask token at each hidden patch to its features."""

    def __init__(self, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(CrossBlock(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)

    def forward(self, context_BKD: Tensor, position_BTD: Tensor) -> Tensor:
        """Features at the hidden patches' positions, [B, T, D]; `context_BKD` carries its own."""
        tokens = (self.mask_token + position_BTD).to(context_BKD.dtype)
        for block in self.blocks:
            tokens = block(tokens, context_BKD)
        features: Tensor = self.norm(tokens)
        return features


class PixelDecoder(nn.Module):
    """Self-attention blocks over the hidden patches alone, to their pixels."""

    def __init__(self, width: int, depth: int, num_heads: int, outputs: int) -> None:
        super().__init__()
        self.blocks = transformer_blocks(width, depth, num_heads)
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.project = nn.Linear(width, outputs)

    def forward(self, features_BTD: Tensor) -> Tensor:
        """Pixels [B, T, P] from features that carry their positions."""
        pixels: Tensor = self.project(self.norm(self.blocks(features_BTD)))
        return pixels


class Cae(TeacherlessObjective):
    """Encoder over visible patches, cross-attending regressor, and a decoder that sees hidden patches alone.

    Source: Chen et al. 2023 (CAE, arXiv 2202.03026), section 3; weights and sizes of the published implementation.
    Deviates: the decoder's target is the pixels of the hidden patches (mean squared error) instead of the tokens of
        an external discrete VAE, so that nothing pre-trained by others enters the comparison. The encoder is the
        plain ViT of the other methods, without class token, LayerScale and drop-path; colours are not jittered.
    """

    def __init__(self, encoder: Encoder, settings: CaeSettings, *, seed: int) -> None:
        super().__init__(encoder)
        self.settings = settings
        width, heads = encoder.width, encoder.num_heads
        self.regressor = build_untouched(lambda: Regressor(width, settings.regressor_depth, heads))
        self.decoder = build_untouched(
            lambda: PixelDecoder(width, settings.decoder_depth, heads, patch_values(encoder))
        )
        seeded(self.regressor, part_generator(seed, "cae regressor"))
        seeded(self.decoder, part_generator(seed, "cae decoder"))

    def build_sampler(self, masks: MaskSettings) -> Sampler:
        """Blocks laid until enough is hidden; `masks` plays no part."""
        return block_sampler(self.context_encoder.grid, self.settings.mask_fraction)

    def forward(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """The weighted sum of the errors of the decoded pixels and of the regressed features."""
        if self.settings.horizontal_flip:
            images_BCHW = flip_half(images_BCHW, masks.keys_B)
        visible_BK, hidden_BT = masks.context_indices_CBK[0], masks.target_indices_MBT[0]
        features_BTD = self.regressed(images_BCHW, visible_BK, hidden_BT)
        alignment = F.mse_loss(full_precision(features_BTD), self.aligned(images_BCHW, hidden_BT))
        pixels_BTP = hidden_pixels(
            images_BCHW, hidden_BT, self.context_encoder.grid, normalize=self.settings.normalize_pixels
        )
        reconstruction = F.mse_loss(full_precision(self.decoded(features_BTD, hidden_BT)), pixels_BTP)
        settings = self.settings
        return settings.reconstruction_weight * reconstruction + settings.alignment_weight * alignment

    @torch.no_grad()
    def aligned(self, images_BCHW: Tensor, hidden_BT: Tensor) -> Tensor:
        """What the regressor is to give: the encoder's own features of the hidden patches alone, [B, T, D]."""
        return full_precision(self.context_encoder(images_BCHW, hidden_BT))

    def regressed(self, images_BCHW: Tensor, visible_BK: Tensor, hidden_BT: Tensor) -> Tensor:
        """The hidden patches' features as the visible ones give them, [B, T, D]."""
        position_ND = self.context_encoder.position_ND
        context_BKD = self.context_encoder(images_BCHW, visible_BK) + position_ND[visible_BK]
        features: Tensor = self.regressor(context_BKD, position_ND[hidden_BT])
        return features

    def decoded(self, features_BTD: Tensor, hidden_BT: Tensor) -> Tensor:
        """The hidden patches' pixels from their regressed features alone, [B, T, P]."""
        pixels: Tensor = self.decoder(features_BTD + self.context_encoder.position_ND[hidden_BT])
        return pixels
