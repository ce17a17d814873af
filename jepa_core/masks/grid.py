"""The batch of masks and the interface of a sampler.

Shape suffixes in this package: B images, C context blocks, M target blocks, K kept context patches, T patches of a
target block, N patches of the grid (row-major), R rows, S columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_core.geometry import MaskSettings, PatchGrid


@dataclass(frozen=True)
class MaskBatch:
    """The patches that a batch of images shows and hides.

    Indices are int64 places in the row-major grid: `context_indices_CBK` for each context block and image,
    `target_indices_MBT` for each target block and image. Where blocks differ in size the shorter are padded: a
    padded entry has index 0 and False in `*_valid_*`, which is None where no entry is ever padded. `keys_B` is the
    key of each sample for further draws (see `draws`), such as whether its image is mirrored; every sampler gives it.
    """

    context_indices_CBK: Tensor
    target_indices_MBT: Tensor
    context_valid_CBK: Tensor | None = None
    target_valid_MBT: Tensor | None = None
    keys_B: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> MaskBatch:
        """The same masks on another device."""
        context_valid, target_valid = self.context_valid_CBK, self.target_valid_MBT
        return MaskBatch(
            self.context_indices_CBK.to(device, non_blocking=non_blocking),
            self.target_indices_MBT.to(device, non_blocking=non_blocking),
            None if context_valid is None else context_valid.to(device, non_blocking=non_blocking),
            None if target_valid is None else target_valid.to(device, non_blocking=non_blocking),
            None if self.keys_B is None else self.keys_B.to(device, non_blocking=non_blocking),
        )

    def widened(self) -> MaskBatch:
        """The same masks in new tensors, with indices of int64 whatever integers they were."""
        return MaskBatch(
            self.context_indices_CBK.to(torch.int64, copy=True),
            self.target_indices_MBT.to(torch.int64, copy=True),
            None if self.context_valid_CBK is None else self.context_valid_CBK.clone(),
            None if self.target_valid_MBT is None else self.target_valid_MBT.clone(),
            None if self.keys_B is None else self.keys_B.clone(),
        )


@dataclass(frozen=True)
class Layout:
    """Where the blocks of a batch lie, before the context is cut to what the encoder gets.

    `covered_BN` is True where any target block lies, `inside_CBN` where the context block lies before the targets
    are taken out of it, `available_CBN` where context may be kept. `adjusted_B` is True for images whose blocks had
    to be changed because too little context was left; None where that cannot happen.
    """

    target_indices_MBT: Tensor
    target_valid_MBT: Tensor | None
    covered_BN: Tensor
    inside_CBN: Tensor
    available_CBN: Tensor
    adjusted_B: Tensor | None
    keys_B: Tensor


class MaskSampler(ABC):
    """Draws the masks of a batch. Made by `build_sampler`; holds no random state."""

    def __init__(self, settings: MaskSettings, grid: PatchGrid) -> None:
        self.settings = settings
        self.grid = grid

    def sample(
        self,
        sample_ids_B: Tensor,
        epochs_B: Tensor,
        *,
        seed: int,
        step: int,
        device: torch.device | str = "cpu",
    ) -> MaskBatch:
        """The masks of a batch.

        `sample_ids_B` and `epochs_B` are int64 [B]; `seed` is the run's seed and `step` the number of finished
        steps. The same arguments always give the same masks, on every device.
        """
        device = torch.device(device)
        # Inference mode and narrow indices spare a quarter of the time; training needs ordinary int64 tensors.
        with torch.inference_mode():
            masks = self.keep(
                self.layout(sample_ids_B, epochs_B, seed=seed, step=step, device=device), device
            )
        return masks.widened()

    @abstractmethod
    def layout(
        self, sample_ids_B: Tensor, epochs_B: Tensor, *, seed: int, step: int, device: torch.device
    ) -> Layout:
        """Where the blocks of a batch lie."""

    @abstractmethod
    def keep(self, layout: Layout, device: torch.device) -> MaskBatch:
        """Cut the context of a layout to what the encoder gets; the indices may be of any integer type."""
