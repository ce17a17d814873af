"""The data2vec objective: predict the averaged top layers of a teacher at hidden patches, mask tokens in the student.

Shape suffixes: B images, C channels, H W pixels, N patches of the grid, T hidden patches, D width.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.ema import update_ema
from jepa_core.encoder import Encoder, gather_patches
from jepa_core.health import spread_over_images
from jepa_core.masks import MaskBatch, MaskSettings
from jepa_core.objectives.augment import flip_half
from jepa_core.objectives.base import Objective, Sampler
from jepa_core.objectives.masking import block_sampler
from jepa_core.objectives.parts import averaged_layers, seeded
from jepa_core.settings import Data2VecSettings
from jepa_core.weights import build_untouched, draw, part_generator


class Data2Vec(Objective):
    """Student over all patches with hidden ones replaced by a mask token, linear head, teacher by moving average.

    Source: Baevski et al. 2022 (data2vec, arXiv 2202.03555), section 3 and its settings for images.
    Deviates: the encoder is the plain ViT of the other methods, without class token, learned relative positions,
        LayerScale and drop-path; colours are not jittered; the head reads the student after its final norm.
    """

    def __init__(self, encoder: Encoder, settings: Data2VecSettings, *, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.context_encoder = encoder
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.width))
        self.head = build_untouched(lambda: nn.Linear(encoder.width, encoder.width))
        generator = part_generator(seed, "data2vec head")
        seeded(self.head, generator)
        draw(self.mask_token, generator)

    def build_sampler(self, masks: MaskSettings) -> Sampler:
        """Blocks laid until enough is hidden; `masks` plays no part."""
        return block_sampler(self.context_encoder.grid, self.settings.mask_fraction)

    def forward(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """The smooth L1 loss at the hidden patches."""
        if self.settings.horizontal_flip:
            images_BCHW = flip_half(images_BCHW, masks.keys_B)
        hidden_BT = masks.target_indices_MBT[0]
        targets_BTD = gather_patches(self.targets(images_BCHW), hidden_BT)
        predictions_BTD = self.predictions(images_BCHW, hidden_BT)
        return F.smooth_l1_loss(predictions_BTD, targets_BTD, beta=self.settings.smooth_l1_beta)

    @torch.no_grad()
    def targets(self, images_BCHW: Tensor) -> Tensor:
        """The teacher's averaged top layers over the whole image, [B, N, D]."""
        layers = self.target_encoder.layers(images_BCHW, last=self.settings.averaged_layers)
        return averaged_layers(layers, over_patches=False)

    @torch.no_grad()
    def target_spread(self, images_BCHW: Tensor) -> Tensor:
        """Variance over images of the targets at every place."""
        return spread_over_images(self.targets(images_BCHW))

    def predictions(self, images_BCHW: Tensor, hidden_BT: Tensor) -> Tensor:
        """Predicted layers at the hidden patches, [B, T, D]."""
        encoder = self.context_encoder
        features_BND = encoder.features_with_token(images_BCHW, hidden_BT, self.mask_token)
        predictions: Tensor = self.head(gather_patches(features_BND, hidden_BT))
        return predictions

    def update_target(self, momentum: float) -> None:
        """Move the teacher towards the student."""
        update_ema(self.target_encoder, self.context_encoder, momentum)
