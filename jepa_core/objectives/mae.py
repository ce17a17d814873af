"""The MAE objective: rebuild the pixels of hidden patches from the visible ones.

Shape suffixes: B images, C channels, H W pixels, K visible patches, T hidden patches, P values of a patch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_core.encoder import Encoder
from jepa_core.masks import MaskBatch, MaskSettings
from jepa_core.objectives.augment import flip_half
from jepa_core.objectives.base import Sampler, TeacherlessObjective
from jepa_core.objectives.masking import SplitSampler, num_hidden
from jepa_core.objectives.parts import MaskedDecoder, hidden_pixels, patch_values, seeded
from jepa_core.settings import MaeSettings
from jepa_core.weights import build_untouched, part_generator


class Mae(TeacherlessObjective):
    """Encoder over the visible patches, decoder over all of them.

    Source: He et al. 2022 (MAE, arXiv 2111.06377), section 3.
    Deviates: there is no class token, and weights are drawn as the other methods' are instead of by Xavier.
    """

    def __init__(self, encoder: Encoder, settings: MaeSettings, *, seed: int) -> None:
        super().__init__(encoder)
        self.settings = settings
        self.decoder = build_untouched(
            lambda: MaskedDecoder(
                grid=encoder.grid,
                encoder_width=encoder.width,
                width=settings.decoder_width,
                depth=settings.decoder_depth,
                num_heads=settings.decoder_num_heads,
                outputs=patch_values(encoder),
            )
        )
        seeded(self.decoder, part_generator(seed, "mae decoder"))

    def build_sampler(self, masks: MaskSettings) -> Sampler:
        """Patches drawn at random; `masks` plays no part."""
        grid = self.context_encoder.grid
        return SplitSampler(
            grid=grid, num_visible=grid.num_patches - num_hidden(grid, self.settings.mask_fraction)
        )

    def forward(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """The mean squared error of the hidden patches' pixels."""
        if self.settings.horizontal_flip:
            images_BCHW = flip_half(images_BCHW, masks.keys_B)
        visible_BK, hidden_BT = masks.context_indices_CBK[0], masks.target_indices_MBT[0]
        features_BKD = self.context_encoder(images_BCHW, visible_BK)
        predictions_BTP = self.decoder(features_BKD, visible_BK, hidden_BT)
        targets_BTP = hidden_pixels(
            images_BCHW, hidden_BT, self.context_encoder.grid, normalize=self.settings.normalize_pixels
        )
        return F.mse_loss(predictions_BTP, targets_BTP)
