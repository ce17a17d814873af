"""The DINO objective: a student on many crops of an image matches a teacher on the large ones.

Shape suffixes: B images, C channels, H W pixels, N patches of a crop, D width, K prototypes.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.ema import update_ema
from jepa_core.encoder import Encoder
from jepa_core.health import assignment_information
from jepa_core.masks import MaskBatch, MaskSettings, PatchGrid
from jepa_core.objectives.augment import PixelStatistics, View, make_view
from jepa_core.objectives.base import Objective, Sampler
from jepa_core.objectives.masking import WholeSampler
from jepa_core.objectives.parts import full_precision, mean_over_ranks, seeded
from jepa_core.positions import sincos_positions
from jepa_core.settings import DinoSettings
from jepa_core.weights import build_untouched, draw, part_generator

_NUM_GLOBAL = 2
_BOTTLENECK_WIDTH = 256


class DinoHead(nn.Module):
    """Three layers to a unit vector, then its cosines with unit prototypes.

    Source: Caron et al. 2021 (DINO, arXiv 2104.14294), appendix C.
    """

    def __init__(self, *, encoder_width: int, width: int, num_prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(encoder_width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, _BOTTLENECK_WIDTH),
        )
        self.prototypes = nn.Parameter(torch.zeros(num_prototypes, _BOTTLENECK_WIDTH))

    def forward(self, features_BD: Tensor) -> Tensor:
        """Cosines with the prototypes, [B, K]."""
        return F.linear(F.normalize(self.layers(features_BD), dim=-1), F.normalize(self.prototypes, dim=-1))


class Dino(Objective):
    """Student and teacher with multi-crop; the teacher and the centre of its outputs are moving averages.

    Source: Caron et al. 2021 (DINO, arXiv 2104.14294), section 3 and algorithm 1.
    Deviates: patches are averaged instead of read at a class token; positions of small crops are the fixed embedding
        at the places where their patches' centres lie in a large one's grid; the teacher's temperature has no
        warm-up, and prototypes are trained from the first step; views are cropped from the loader's crop.
    """

    center_K: Tensor
    local_position_ND: Tensor

    def __init__(
        self, encoder: Encoder, settings: DinoSettings, *, seed: int, pixels: PixelStatistics
    ) -> None:
        super().__init__()
        self.settings, self.pixels = settings, pixels
        self.context_encoder = encoder
        self.head = build_untouched(
            lambda: DinoHead(
                encoder_width=encoder.width,
                width=settings.head_width,
                num_prototypes=settings.num_prototypes,
            )
        )
        generator = part_generator(seed, "dino head")
        seeded(self.head.layers, generator)
        draw(self.head.prototypes, generator)
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.target_head = copy.deepcopy(self.head).requires_grad_(False)
        self.register_buffer("center_K", torch.zeros(settings.num_prototypes))
        self.local_grid = _local_grid(encoder.grid, settings.local_side_fraction)
        self.register_buffer(
            "local_position_ND", _local_positions(encoder, self.local_grid), persistent=False
        )
        self._teacher_sums: list[tuple[Tensor, int]] = []

    def build_sampler(self, masks: MaskSettings) -> Sampler:
        """Keys alone; `masks` plays no part."""
        return WholeSampler(self.context_encoder.grid)

    def forward(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """The mean cross-entropy over pairs of a large crop of the teacher and another crop of the student."""
        global_crops, local_crops = self.crops(images_BCHW, masks.keys_B)
        teacher = self._teacher_outputs(torch.cat(global_crops))
        student = self.head(self.context_encoder(torch.cat(global_crops)).mean(1))
        if local_crops:
            student = torch.cat([student, self.head(self._local_features(torch.cat(local_crops)))])
        return self.loss(full_precision(student), teacher)

    @torch.no_grad()
    def target_spread(self, images_BCHW: Tensor) -> Tensor:
        """What the teacher's distribution over prototypes says of the image, as a share of the most there can be."""
        outputs_BK = full_precision(self.target_head(self.target_encoder(images_BCHW).mean(1)))
        return assignment_information(self._targets(outputs_BK))

    def _targets(self, outputs_BK: Tensor) -> Tensor:
        """The teacher's distributions over prototypes."""
        center_K = self.center_K if self.settings.center_targets else torch.zeros_like(self.center_K)
        return ((outputs_BK - center_K) / self.settings.teacher_temperature).softmax(-1)

    def loss(self, student_VBK: Tensor, teacher_GBK: Tensor) -> Tensor:
        """The loss of outputs over all crops and over the large ones, both [crops * B, K], crop by crop."""
        settings = self.settings
        targets = self._targets(teacher_GBK).chunk(_NUM_GLOBAL)
        views = 2 + settings.num_local_crops
        logs = (student_VBK / settings.student_temperature).log_softmax(-1).chunk(views)
        losses = [
            -(target * log).sum(-1).mean()
            for number, target in enumerate(targets)
            for view, log in enumerate(logs)
            if view != number
        ]
        return torch.stack(losses).mean()

    def crops(self, images_BCHW: Tensor, keys_B: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """The two large crops [B, C, H, W] and the small ones."""
        patch_px = images_BCHW.shape[-2] // self.context_encoder.grid.rows
        views = [self._view(0, images_BCHW, blur=1.0), self._view(1, images_BCHW, blur=0.1, solarize=0.2)]
        local = [
            self._view(2 + number, images_BCHW, blur=0.5, local_px=patch_px)
            for number in range(self.settings.num_local_crops)
        ]
        made = [make_view(images_BCHW, keys_B, view, self.pixels) for view in (*views, *local)]
        return made[:_NUM_GLOBAL], made[_NUM_GLOBAL:]

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Move the teacher and its head towards the student's, and the centre towards the last batch's mean."""
        update_ema(self.target_encoder, self.context_encoder, momentum)
        update_ema(self.target_head, self.head, momentum)
        if self._teacher_sums:
            sums, counts = zip(*self._teacher_sums, strict=True)
            mean_K = mean_over_ranks(torch.stack(sums).sum(0) / sum(counts))
            self.center_K.lerp_(mean_K, 1 - self.settings.center_momentum)
            self._teacher_sums.clear()

    @torch.no_grad()
    def _teacher_outputs(self, crops: Tensor) -> Tensor:
        outputs = full_precision(self.target_head(self.target_encoder(crops).mean(1)))
        self._teacher_sums.append((outputs.sum(0), len(outputs)))
        return outputs

    def _local_features(self, crops: Tensor) -> Tensor:
        features = self.context_encoder.features_of_crops(crops, self.local_grid, self.local_position_ND)
        return features.mean(1)

    def _view(
        self,
        number: int,
        images_BCHW: Tensor,
        *,
        blur: float,
        solarize: float = 0.0,
        local_px: int | None = None,
    ) -> View:
        settings, (height, width) = self.settings, images_BCHW.shape[-2:]
        if local_px is not None:
            height, width = self.local_grid.rows * local_px, self.local_grid.columns * local_px
        return View(
            number=number,
            height_px=height,
            width_px=width,
            crop_scale=settings.global_crop_scale if local_px is None else settings.local_crop_scale,
            flip_probability=settings.flip_probability,
            colour_strength=settings.colour_strength,
            blur_probability=blur if settings.blur else 0.0,
            solarize_probability=solarize if settings.solarize else 0.0,
        )


def _local_grid(grid: PatchGrid, fraction: float) -> PatchGrid:
    """The patches of a small crop, at least 1 x 1."""
    return PatchGrid(max(1, round(grid.rows * fraction)), max(1, round(grid.columns * fraction)))


def _local_positions(encoder: Encoder, local: PatchGrid) -> Tensor:
    """The position embedding of a small crop's patches, [N, D]: it spans a large crop's grid with fewer places."""
    grid = encoder.grid
    table_ND = sincos_positions(grid.rows, grid.columns, encoder.width)
    planes = table_ND.T.reshape(1, encoder.width, grid.rows, grid.columns)
    resized = F.interpolate(planes, size=(local.rows, local.columns), mode="bicubic", align_corners=False)
    return resized[0].flatten(1).T.contiguous()
