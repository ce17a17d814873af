"""The VICReg objective: two views of an image agree, features keep their variance and are not correlated.

Shape suffixes: B images of a process, C channels, H W pixels, N patches of the grid, D width, Z embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.encoder import Encoder
from jepa_core.masks import MaskBatch, MaskSettings
from jepa_core.objectives.augment import PixelStatistics, View, make_view, without_autocast
from jepa_core.objectives.base import Sampler, TeacherlessObjective
from jepa_core.objectives.masking import WholeSampler
from jepa_core.objectives.parts import full_precision, mean_over_ranks, seeded, world_size
from jepa_core.settings import VicRegSettings
from jepa_core.weights import build_untouched, part_generator

_EPSILON = 1e-4


class BatchStandardize(nn.Module):
    """Batch normalisation over all processes, without running statistics: it is never used outside training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, values_BZ: Tensor) -> Tensor:
        """Values with mean 0 and variance 1 over the global batch, then scaled and shifted."""
        values = full_precision(values_BZ)
        mean_Z = mean_over_ranks(values.mean(0))
        return self._scaled(values, mean_Z, mean_over_ranks((values - mean_Z).square().mean(0)))

    def of_this_process(self, values_BZ: Tensor) -> Tensor:
        """The same over this process's batch alone, which no other process needs to take part in."""
        values = full_precision(values_BZ)
        return self._scaled(values, values.mean(0), values.var(0, correction=0))

    def _scaled(self, values: Tensor, mean_Z: Tensor, variance_Z: Tensor) -> Tensor:
        return (values - mean_Z) * torch.rsqrt(variance_Z + 1e-5) * self.weight + self.bias


class VicReg(TeacherlessObjective):
    """Encoder, mean over patches, three-layer projector; statistics are over the global batch.

    Source: Bardes et al. 2022 (VICReg, arXiv 2105.04906), section 4 and algorithm 1.
    Deviates: the encoder is a ViT with its patches averaged; views are cropped from the loader's crop and not from the
        file's image.
    """

    needs_whole_batch = True

    def __init__(
        self, encoder: Encoder, settings: VicRegSettings, *, seed: int, pixels: PixelStatistics
    ) -> None:
        super().__init__(encoder)
        self.settings, self.pixels = settings, pixels
        width = settings.projector_width
        self.projector = build_untouched(
            lambda: nn.Sequential(
                nn.Linear(encoder.width, width),
                BatchStandardize(width),
                nn.ReLU(),
                nn.Linear(width, width),
                BatchStandardize(width),
                nn.ReLU(),
                nn.Linear(width, width, bias=False),
            )
        )
        linear = nn.ModuleList(layer for layer in self.projector if isinstance(layer, nn.Linear))
        seeded(linear, part_generator(seed, "vicreg projector"))

    def build_sampler(self, masks: MaskSettings) -> Sampler:
        """Keys alone; `masks` plays no part."""
        return WholeSampler(self.context_encoder.grid)

    def views(self, images_BCHW: Tensor, keys_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """The two views, each [B, C, H, W]."""
        height, width = images_BCHW.shape[-2:]
        settings = self.settings
        first, second = (
            View(
                number=number,
                height_px=height,
                width_px=width,
                crop_scale=settings.crop_scale,
                flip_probability=settings.flip_probability,
                colour_strength=settings.colour_strength,
                blur_probability=blur if settings.blur else 0.0,
                solarize_probability=solarize if settings.solarize else 0.0,
            )
            for number, blur, solarize in ((0, 1.0, 0.0), (1, 0.1, 0.2))
        )
        return (
            make_view(images_BCHW, keys_B, first, self.pixels),
            make_view(images_BCHW, keys_B, second, self.pixels),
        )

    @torch.no_grad()
    def target_spread(self, images_BCHW: Tensor) -> Tensor:
        """Standard deviation over images of the embedding, mean over its dimensions: the variance term wants 1."""
        values: Tensor = self.context_encoder(images_BCHW).mean(dim=1)
        for layer in self.projector:
            values = layer.of_this_process(values) if isinstance(layer, BatchStandardize) else layer(values)
        return full_precision(values).std(dim=0).mean()

    def forward(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """The weighted sum of the three terms."""
        views = torch.cat(self.views(images_BCHW, masks.keys_B))
        pooled = self.context_encoder(views).mean(dim=1)
        first_BZ, second_BZ = (self.projector(half) for half in pooled.chunk(2))
        return self.loss(full_precision(first_BZ), full_precision(second_BZ))

    def loss(self, first_BZ: Tensor, second_BZ: Tensor) -> Tensor:
        """The loss of two batches of embeddings of the same images."""
        settings = self.settings
        with without_autocast(first_BZ.device):
            invariance = F.mse_loss(first_BZ, second_BZ)
            variances, covariances = zip(*(_spread(half) for half in (first_BZ, second_BZ)), strict=True)
            spread = settings.variance_weight * (variances[0] + variances[1]) / 2
            total: Tensor = settings.invariance_weight * invariance + spread
            total = total + settings.covariance_weight * (covariances[0] + covariances[1])
            return total


def _spread(embeddings_BZ: Tensor) -> tuple[Tensor, Tensor]:
    """The variance hinge and the covariance term over the global batch."""
    count = len(embeddings_BZ) * world_size()
    centred = embeddings_BZ - mean_over_ranks(embeddings_BZ.mean(0))
    products_ZZ = mean_over_ranks(centred.T @ centred / len(embeddings_BZ))
    covariance_ZZ = products_ZZ * (count / max(1, count - 1))
    variance_Z = covariance_ZZ.diagonal()
    hinge = F.relu(1 - (variance_Z + _EPSILON).sqrt()).mean()
    off_diagonal = covariance_ZZ.square().sum() - variance_Z.square().sum()
    return hinge, off_diagonal / embeddings_BZ.shape[1]
