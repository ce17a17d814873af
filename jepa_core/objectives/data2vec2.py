"""The data2vec 2.0 objective: several masked views of an image share one pass of the teacher.

Shape suffixes: B images, C channels, H W pixels, S masked views of an image, K visible and T hidden patches of a
view, N patches of the grid, D width, E decoder width.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.ema import update_ema
from jepa_core.encoder import Encoder, gather_patches
from jepa_core.health import spread_over_images
from jepa_core.masks import MaskBatch, MaskSettings, PatchGrid
from jepa_core.objectives.augment import flip_half
from jepa_core.objectives.base import Objective, Sampler
from jepa_core.objectives.masking import SplitSampler, num_hidden, square_blocks
from jepa_core.objectives.parts import averaged_layers, seeded
from jepa_core.settings import Data2Vec2Settings
from jepa_core.weights import build_untouched, part_generator


class ConvolutionalDecoder(nn.Module):
    """Convolutions over the grid, whose hidden patches hold a mask token.

    Source: Baevski et al. 2022 (data2vec 2.0, arXiv 2212.07525), section 3.
    Deviates: hidden patches hold a learned token instead of small noise.
    """

    def __init__(self, settings: Data2Vec2Settings, *, grid: PatchGrid, encoder_width: int) -> None:
        super().__init__()
        width, groups = settings.decoder_width or encoder_width, settings.decoder_groups
        if width % groups:
            raise ValueError(f"decoder_groups {groups} must divide the decoder's width {width}")
        self.grid = grid
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        kernel = settings.decoder_kernel_patches
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=groups)
            for _ in range(settings.decoder_depth)
        )
        self.project = nn.Linear(width, encoder_width)

    def forward(self, features_RKD: Tensor, visible_RK: Tensor) -> Tensor:
        """Predictions for the whole grid [R, N, D] from the visible patches' features; R = S * B."""
        visible_RKE = self.embed(features_RKD)
        rows, width = len(visible_RKE), visible_RKE.shape[-1]
        tokens = self.mask_token.to(visible_RKE.dtype).expand(rows, self.grid.num_patches, -1)
        tokens = tokens.scatter(1, visible_RK[..., None].expand(-1, -1, width), visible_RKE)
        for convolution in self.convolutions:
            planes = tokens.transpose(1, 2).reshape(rows, width, self.grid.rows, self.grid.columns)
            changed = convolution(planes).flatten(2).transpose(1, 2)
            tokens = tokens + F.gelu(F.layer_norm(changed, (width,)))
        predictions: Tensor = self.project(tokens)
        return predictions


class Data2Vec2(Objective):
    """Student over visible patches, convolutional decoder, teacher by moving average.

    Source: Baevski et al. 2022 (data2vec 2.0, arXiv 2212.07525), section 3 and its settings for images.
    Deviates: the encoder is the plain ViT of the other methods; the loss at the class token, weighted 0.01 in the
        published one, is left out with the token; the share of hidden patches is fixed instead of drawn around its
        mean.
    """

    def __init__(self, encoder: Encoder, settings: Data2Vec2Settings, *, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.context_encoder = encoder
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.decoder = build_untouched(
            lambda: ConvolutionalDecoder(settings, grid=encoder.grid, encoder_width=encoder.width)
        )
        seeded(self.decoder, part_generator(seed, "data2vec2 decoder"))

    def build_sampler(self, masks: MaskSettings) -> Sampler:
        """Squares of visible patches, drawn anew for each view; `masks` plays no part."""
        grid, settings = self.context_encoder.grid, self.settings
        visible = grid.num_patches - num_hidden(grid, settings.mask_fraction)
        return SplitSampler(
            grid=grid,
            num_visible=visible,
            num_splits=settings.masked_views,
            blocks=square_blocks(grid, side_patches=settings.visible_block_patches, covered_patches=visible),
            blocks_are_visible=True,
        )

    def forward(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """The mean squared error at the hidden patches of all views."""
        if self.settings.horizontal_flip:
            images_BCHW = flip_half(images_BCHW, masks.keys_B)
        visible_RK = masks.context_indices_CBK.flatten(0, 1)
        hidden_RT = masks.target_indices_MBT.flatten(0, 1)
        targets_BND = self.targets(images_BCHW)
        targets_RND = targets_BND.repeat(len(hidden_RT) // len(targets_BND), 1, 1)
        predictions_RND = self.decoder(self.context_encoder(images_BCHW, visible_RK), visible_RK)
        return F.mse_loss(gather_patches(predictions_RND, hidden_RT), gather_patches(targets_RND, hidden_RT))

    @torch.no_grad()
    def targets(self, images_BCHW: Tensor) -> Tensor:
        """The teacher's averaged top layers over the whole image, [B, N, D]: one pass for all views."""
        layers = self.target_encoder.layers(images_BCHW, last=self.settings.averaged_layers)
        return averaged_layers(layers, over_patches=True)

    @torch.no_grad()
    def target_spread(self, images_BCHW: Tensor) -> Tensor:
        """Variance over images of the targets at every place."""
        return spread_over_images(self.targets(images_BCHW))

    def update_target(self, momentum: float) -> None:
        """Move the teacher towards the student."""
        update_ema(self.target_encoder, self.context_encoder, momentum)
