"""The low-shot probe: the linear probe on few labelled images, several times over.

Shape suffixes: N images, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_core.probes.linear import linear_probe
from jepa_core.probes.result import ProbeResult


@dataclass(frozen=True, kw_only=True, eq=False)
class LowShotResult:
    """One result for each draw of the labelled images; `num_images` is how many are labelled."""

    draws: tuple[ProbeResult, ...]
    num_images: int

    @property
    def accuracy(self) -> float:
        """Mean accuracy of the draws, 0 to 1."""
        return sum(draw.accuracy for draw in self.draws) / len(self.draws)


def low_shot_probe(
    train_ND: Tensor,
    train_labels: Tensor,
    test_ND: Tensor,
    test_labels: Tensor,
    *,
    num_classes: int,
    fraction: float,
    num_draws: int = 3,
    seed: int = 0,
) -> LowShotResult:
    """Fit linear probes on a share of the training images of each class, at least one image of each.

    Raises:
        ValueError: The share is not above 0 and up to 1, or features and labels do not belong together.

    Source: the evaluation with 1 % of the labels in I-JEPA (arXiv 2301.08243), section 6.
    Deviates: frozen features instead of fine-tuning, and several draws of the labelled images instead of a fixed
        list.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, not {fraction}")
    draws, rows_n = [], torch.zeros(0)
    for draw in range(num_draws):
        rows_n = few_of_each(train_labels, fraction, seed=seed * num_draws + draw)
        draws.append(
            linear_probe(
                train_ND[rows_n],
                train_labels[rows_n],
                test_ND,
                test_labels,
                num_classes=num_classes,
                l2=(1e-3, 1e-2, 1e-1, 1.0),
                seed=seed,
            )
        )
    return LowShotResult(draws=tuple(draws), num_images=len(rows_n))


def few_of_each(labels_N: Tensor, fraction: float, *, seed: int) -> Tensor:
    """The places of a share of each class's images, drawn by `seed`, at least one of each class that there is."""
    order_N = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))
    parts = []
    for label in sorted(set(labels_N.tolist())):
        own = order_N[labels_N[order_N] == label]
        parts.append(own[: max(1, round(fraction * len(own)))])
    return torch.cat(parts).sort().values
