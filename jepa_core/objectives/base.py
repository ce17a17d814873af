"""What the training step asks of an objective, and who draws what it hides.

A pre-training method is one file with one class behind this base, and one line in `build`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from jepa_core.encoder import Encoder
from jepa_core.masks import MaskBatch, MaskSettings, build_sampler


class Sampler(Protocol):
    """Draws what a method hides from a batch, and the keys of what it changes in the images."""

    def sample(
        self,
        sample_ids_B: Tensor,
        epochs_B: Tensor,
        *,
        seed: int,
        step: int,
        device: torch.device | str = "cpu",
    ) -> MaskBatch:
        """The draws of a batch: a function of (seed, epoch, sample id), the same on every device."""
        ...


class Objective(nn.Module, ABC):
    """A pre-training method: a module whose `forward` is the loss of a batch.

    The step wraps it for data-parallel training, optimises its trainable parameters and saves its state. Features
    for probes come from `target_encoder`: the teacher where a method has one, else the trained encoder itself.
    """

    context_encoder: Encoder
    target_encoder: Encoder
    takes_padding: ClassVar[bool] = False
    """Whether `forward` leaves out what `masks` says is padded; a method with blocks of one size never needs it."""
    needs_whole_batch: bool = False
    """Whether the loss is one of the whole batch's statistics, so that a process must not cut its part of it up."""

    @abstractmethod
    def forward(self, images_BCHW: Tensor, masks: MaskBatch) -> Tensor:
        """The loss of a batch of normalised images: a scalar on their device, computed without waiting for it."""

    def num_terms(self, masks: MaskBatch) -> int | Tensor:
        """How many equal terms the loss of these masks is a mean of: the weight of a micro-batch in its batch."""
        return masks.target_indices_MBT.shape[1]

    @abstractmethod
    def update_target(self, momentum: float) -> None:
        """Move what follows the trained weights; called after each optimiser step with the scheduled momentum."""

    def target_spread(self, images_BCHW: Tensor) -> Tensor | None:
        """How far apart different images are where the loss compares features: a scalar, 0 when they are all one.

        A method can collapse there while its encoder's own features still differ. In the method's own unit: compare it
        with the untrained model's. None where no collapse lowers the loss, since the targets are not the model's own.
        """
        return None

    def build_sampler(self, masks: MaskSettings) -> Sampler:
        """What draws this method's masks: the sampler of `masks`, but for methods whose settings say what they hide.

        Raises:
            ValueError: The geometry cannot be sampled on the encoder's grid.
        """
        return build_sampler(masks, self.context_encoder.grid)


class TeacherlessObjective(Objective):
    """A method without a moving average: the trained encoder is the one that is probed."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.context_encoder = encoder
        # Not a second child: its weights are saved, moved and counted once.
        object.__setattr__(self, "target_encoder", encoder)

    def update_target(self, momentum: float) -> None:
        """Nothing follows the trained weights."""
