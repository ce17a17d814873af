"""What the training step asks of an objective.

A pre-training method is one file with one class behind this base, and one line in `build`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from jepa_core.encoder import Encoder
from jepa_core.masks import MaskBatch


class Objective(nn.Module, ABC):
    """A pre-training method: a module whose `forward` is the loss of a batch.

    The step wraps it for data-parallel training, optimises its trainable parameters and saves its state. Features
    for probes come from `target_encoder`.
    """

    context_encoder: Encoder
    target_encoder: Encoder

    @abstractmethod
    def forward(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """The loss of a batch of normalised images: a scalar on their device, computed without waiting for it."""

    def num_terms(self, masks: MaskBatch) -> int | Tensor:
        """How many equal terms the loss of these masks is a mean of: the weight of a micro-batch in its batch."""
        return masks.target_indices_MBT.shape[1]

    @abstractmethod
    def update_target(self, momentum: float) -> None:
        """Move what follows the trained weights; called after each optimiser step with the scheduled momentum."""
