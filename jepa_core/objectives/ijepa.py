"""The I-JEPA objective: predict the target encoder's features of hidden blocks from the context encoder's.

Shape suffixes: B images, C channels, H W pixels, N patches of the grid, M target blocks, T patches of a target
block, D width. R = M * C * B counts (target block, context block, image) triples, in that order.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_core.ema import MovingAverage
from jepa_core.encoder import Encoder
from jepa_core.health import spread_over_images
from jepa_core.masks import MaskBatch
from jepa_core.objectives.augment import flip_half
from jepa_core.objectives.base import Objective
from jepa_core.objectives.parts import mean_over_ranks
from jepa_core.objectives.targets import averaged_targets
from jepa_core.predictor import Predictor
from jepa_core.settings import IJepaSettings


class IJepa(Objective):
    """Context encoder, predictor, and a target encoder that follows the context encoder.

    Source: I-JEPA (arXiv 2301.08243), section 3.
    Deviates: as the published implementation, not the paper's text: targets are layer-normed and the default loss is
        smooth L1 instead of L2. Other targets are variants, see `targets`.
    """

    takes_padding = True

    def __init__(self, encoder: Encoder, predictor: Predictor, settings: IJepaSettings) -> None:
        super().__init__()
        self.settings = settings
        self.context_encoder = encoder
        self.predictor = predictor
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.needs_whole_batch = settings.target_norm == "batch"
        self._average: MovingAverage | None = None
        self._check(encoder)

    def forward(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """The mean loss over the elements of all valid targets."""
        if self.settings.horizontal_flip:
            images_BCHW = flip_half(images_BCHW, masks.keys_B)
        targets_RTD = _gathered(self.target_features(images_BCHW, of_all_processes=True), masks)
        predictions_RTD = self.predictions(images_BCHW, masks)
        return self._mean_loss(predictions_RTD, targets_RTD, masks)

    @torch.no_grad()
    def targets(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """Features of the target blocks [R, T, D], normalised as the settings say, from the whole image."""
        return _gathered(self.target_features(images_BCHW), masks)

    @torch.no_grad()
    def target_features(self, images_BCHW: Tensor, *, of_all_processes: bool = False) -> Tensor:
        """What the targets are gathered from: normalised features of all patches, [B, N, D].

        `of_all_processes` takes the statistics of `target_norm: batch` over the batches of all processes, which all
        must take part in.
        """
        settings, teacher = self.settings, self.target_encoder
        # The final norm of the encoder would undo what `tanh` keeps: how long the tokens are.
        if settings.target_layers == 1 and settings.target_norm != "tanh":
            layers = [teacher(images_BCHW)]
        else:
            layers = teacher.layers(images_BCHW, last=settings.target_layers)
        return averaged_targets(
            layers, settings.target_norm, mean_over_ranks if of_all_processes else _as_it_is
        )

    @torch.no_grad()
    def target_spread(self, images_BCHW: Tensor) -> Tensor:
        """Variance over images of the targets at every place."""
        return spread_over_images(self.target_features(images_BCHW))

    def predictions(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """Predicted features of the target blocks [R, T, D]."""
        valid = masks.context_valid_CBK
        context_CxB_KD = self.context_encoder(
            images_BCHW,
            masks.context_indices_CBK.flatten(0, 1),
            None if valid is None else valid.flatten(0, 1),
        )
        predictions: Tensor = self.predictor(context_CxB_KD, masks)
        if self.settings.normalize_predictions:
            predictions = F.layer_norm(predictions, predictions.shape[-1:])
        return predictions

    @torch.no_grad()
    def losses_of_trivial_predictors(self, images_BCHW: Tensor, masks: MaskBatch) -> dict[str, Tensor]:
        """The loss of the batch beside the losses of predicting less: `loss`, `constant` and `position`.

        `constant` predicts the mean of all features, `position` the mean over the images of each place's features,
        both of this batch's target encoder. A healthy run's loss is well below both; where the features themselves
        collapsed, all three are near 0.
        """
        features_BND = self.target_features(images_BCHW)
        targets_RTD = _gathered(features_BND, masks)
        contexts = len(masks.context_indices_CBK)
        by_place_MBTD = features_BND.mean(dim=0)[masks.target_indices_MBT]
        by_place_RTD = by_place_MBTD[:, None].expand(-1, contexts, -1, -1, -1).reshape(targets_RTD.shape)
        constant_RTD = features_BND.mean(dim=(0, 1)).expand_as(targets_RTD)
        guesses = {
            "loss": self.predictions(images_BCHW, masks),
            "constant": constant_RTD,
            "position": by_place_RTD,
        }
        return {name: self._mean_loss(guess, targets_RTD, masks) for name, guess in guesses.items()}

    def num_terms(self, masks: MaskBatch) -> int | Tensor:
        """The valid targets of all pairs."""
        valid = masks.target_valid_MBT
        return masks.target_indices_MBT.numel() if valid is None else valid.sum()

    def update_target(self, momentum: float) -> None:
        """Move the target encoder towards the context encoder."""
        if self._average is None:
            self._average = MovingAverage(self.target_encoder, self.context_encoder)
        self._average.update(momentum)

    def _check(self, encoder: Encoder) -> None:
        if self.settings.target_layers > encoder.depth:
            raise ValueError(
                f"target_layers must be at most the encoder's {encoder.depth} blocks, not {self.settings.target_layers}"
            )

    def _mean_loss(self, predictions_RTD: Tensor, targets_RTD: Tensor, masks: MaskBatch) -> Tensor:
        padded = masks.target_valid_MBT is not None
        reduction = "none" if padded else "mean"
        if self.settings.loss == "l2":
            loss = F.mse_loss(predictions_RTD, targets_RTD, reduction=reduction)
        else:
            beta = self.settings.smooth_l1_beta
            loss = F.smooth_l1_loss(predictions_RTD, targets_RTD, reduction=reduction, beta=beta)
        if masks.target_valid_MBT is None:
            return loss
        contexts = len(masks.context_indices_CBK)
        valid_RT = masks.target_valid_MBT[:, None].expand(-1, contexts, -1, -1).reshape(loss.shape[:2])
        return (loss.mean(dim=-1) * valid_RT).sum() / valid_RT.sum()


def _gathered(features_BND: Tensor, masks: MaskBatch) -> Tensor:
    """The features at the target blocks, once for each context block: [R, T, D]."""
    blocks, batch, patches = masks.target_indices_MBT.shape
    contexts = len(masks.context_indices_CBK)
    images_B1 = torch.arange(batch, device=features_BND.device)[:, None]
    targets_MBTD = features_BND[images_B1, masks.target_indices_MBT]
    pairs = targets_MBTD[:, None].expand(-1, contexts, -1, -1, -1)
    return pairs.reshape(blocks * contexts * batch, patches, -1)


def _as_it_is(mean: Tensor) -> Tensor:
    return mean
