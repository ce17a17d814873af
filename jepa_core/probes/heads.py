"""Many linear heads trained in one pass over the features, the best of them chosen on a validation part.

The protocol of the published evaluations: several feature sets, with and without batch normalisation, a grid of
learning rates and weight decays, and stochastic gradient descent. `linear_probe` is the cheaper one for use during
training.

Shape suffixes: N images, D width of a feature set, G heads of a grid, B images of a batch, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_core.probes.result import check_features

_VALIDATION_FRACTION = 0.2
_MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class HeadGrid:
    """Which heads are trained, and for how long."""

    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2)
    normalize: tuple[bool, ...] = (False, True)
    epochs: int = 50
    batch_size: int = 256


@dataclass(frozen=True, kw_only=True)
class HeadChoice:
    """One head of the grid."""

    features: str
    normalize: bool
    learning_rate: float
    weight_decay: float

    def __str__(self) -> str:
        normalized = ", batch norm" if self.normalize else ""
        return f"{self.features}{normalized}, lr {self.learning_rate:g}, wd {self.weight_decay:g}"


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadsResult:
    """The chosen head's hits on the test images [N], and every head's accuracy on the validation part."""

    correct_N: Tensor
    choice: HeadChoice
    validation: Mapping[HeadChoice, float]

    @property
    def accuracy(self) -> float:
        """Share of the test images that were classified rightly, 0 to 1."""
        return float(self.correct_N.double().mean())


def many_head_probe(
    train: Mapping[str, Tensor],
    train_labels: Tensor,
    test: Mapping[str, Tensor],
    test_labels: Tensor,
    *,
    num_classes: int,
    grid: HeadGrid | None = None,
    seed: int = 0,
) -> HeadsResult:
    """Train every head of the grid on every feature set and test the one that does best on a validation part.

    `train` and `test` map names of feature sets, such as `last` and `last4`, to features [N, D]. A fifth of the
    training images, drawn by `seed`, chooses the head, which is then trained again on all of them; the test images
    choose nothing. Every head starts at zero, and all heads of a feature set see the same batches. Features are
    divided by one number, their root mean square, so that a learning rate means the same for every encoder.

    Raises:
        ValueError: Features and labels do not belong together, or the grid is empty.

    Source: I-JEPA (arXiv 2301.08243), appendix A.2, after VISSL's linear evaluation.
    Deviates: SGD with a cosine schedule instead of LARS with steps, and a validation part instead of the test set.
    """
    grid = grid or HeadGrid()
    for name, features in train.items():
        check_features(features, train_labels, test[name], test_labels)
    order_N = torch.randperm(len(train_labels), generator=torch.Generator().manual_seed(seed))
    num_held = max(1, round(_VALIDATION_FRACTION * len(order_N)))
    held, kept = order_N[:num_held], order_N[num_held:]
    labels = train_labels.long()
    validation: dict[HeadChoice, float] = {}
    for name, normalize in itertools.product(train, grid.normalize):
        rates = list(itertools.product(grid.learning_rates, grid.weight_decays))
        part = (train[name][kept], labels[kept], train[name][held])
        scores_GNC = _train_heads(*part, num_classes, rates, grid, normalize=normalize, seed=seed)
        hits_G = (scores_GNC.argmax(-1) == labels[held]).double().mean(-1)
        for (learning_rate, weight_decay), hits in zip(rates, hits_G.tolist(), strict=True):
            choice = HeadChoice(
                features=name, normalize=normalize, learning_rate=learning_rate, weight_decay=weight_decay
            )
            validation[choice] = hits
    if not validation:
        raise ValueError("the probe needs at least one feature set, learning rate and weight decay")
    best = max(validation, key=lambda choice: validation[choice])
    scores_1NC = _train_heads(
        train[best.features],
        labels,
        test[best.features],
        num_classes,
        [(best.learning_rate, best.weight_decay)],
        grid,
        normalize=best.normalize,
        seed=seed,
    )
    correct_N = (scores_1NC[0].argmax(-1) == test_labels).cpu()
    return HeadsResult(correct_N=correct_N, choice=best, validation=validation)


@torch.no_grad()
def _train_heads(
    features_ND: Tensor,
    labels_N: Tensor,
    asked_ND: Tensor,
    num_classes: int,
    rates: Sequence[tuple[float, float]],
    grid: HeadGrid,
    *,
    normalize: bool,
    seed: int,
) -> Tensor:
    """The heads' scores of the images that are asked for, [G, N, C].

    The gradient of cross-entropy is written out: softmax minus the label, times the feature.
    """
    features_ND, asked_ND = _scaled(features_ND.float(), asked_ND.float(), normalize=normalize)
    device, width = features_ND.device, features_ND.shape[1]
    lr_G11, decay_G11 = (
        torch.tensor(values, device=device)[:, None, None] for values in zip(*rates, strict=True)
    )
    weight_GDC = torch.zeros(len(rates), width + 1, num_classes, device=device)
    velocity_GDC = torch.zeros_like(weight_GDC)
    decayed_D1 = torch.ones(width + 1, 1, device=device)
    decayed_D1[-1] = 0  # the bias
    batch_size = min(grid.batch_size, len(features_ND))
    batches = len(features_ND) // batch_size
    generator = torch.Generator().manual_seed(seed)
    steps = grid.epochs * batches
    for step in range(steps):
        if step % batches == 0:
            order_N = torch.randperm(len(features_ND), generator=generator).to(device)
        rows_B = order_N[step % batches * batch_size :][:batch_size]
        batch_BD = F.pad(features_ND[rows_B], (0, 1), value=1.0)
        error_GBC = (batch_BD @ weight_GDC).softmax(-1)
        error_GBC -= F.one_hot(labels_N[rows_B], num_classes)
        gradient_GDC = batch_BD.T @ error_GBC / batch_size + decay_G11 * decayed_D1 * weight_GDC
        velocity_GDC.mul_(_MOMENTUM).add_(gradient_GDC)
        fraction = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps))).item()
        weight_GDC -= fraction * lr_G11 * velocity_GDC
    return F.pad(asked_ND, (0, 1), value=1.0) @ weight_GDC


def _scaled(train_ND: Tensor, asked_ND: Tensor, *, normalize: bool) -> tuple[Tensor, Tensor]:
    """Both by the training part's statistics: each dimension's, as in batch normalisation, or one number."""
    mean_D = train_ND.mean(0)
    if normalize:
        std_D = train_ND.std(0, correction=0)
        scale = torch.where(std_D > 1e-6 * mean_D.abs().clamp_min(1e-6), 1 / std_D.clamp_min(1e-12), 0.0)
        return (train_ND - mean_D) * scale, (asked_ND - mean_D) * scale
    scale = torch.rsqrt(train_ND.square().mean().clamp_min(1e-12))
    return train_ND * scale, asked_ND * scale
