"""The regression probe: labels that are amounts, such as a count or a distance, from frozen features by ridge.

Shape suffixes: N images, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_core.probes.intervals import bootstrap_interval
from jepa_core.probes.result import check_features

_VALIDATION_FRACTION = 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class RegressionResult:
    """Predicted and true amounts of the test images [N], float64 on the CPU; `l2` is the penalty that was chosen."""

    predicted_N: Tensor
    true_N: Tensor
    l2: float

    @property
    def explained(self) -> float:
        """Share of the labels' variance that is explained (R squared); 0 is what the mean label explains."""
        return float(_explained(torch.stack([self.predicted_N, self.true_N], dim=-1)[None])[0])

    @property
    def mean_absolute_error(self) -> float:
        """Mean absolute error, in the label's own unit."""
        return float((self.predicted_N - self.true_N).abs().mean())

    def explained_interval(self, *, seed: int = 0) -> tuple[float, float]:
        """95 % interval of `explained`, by bootstrap over the test images."""
        pairs_N2 = torch.stack([self.predicted_N, self.true_N], dim=-1)
        return bootstrap_interval(pairs_N2, _explained, seed=seed)

    def error_interval(self, *, seed: int = 0) -> tuple[float, float]:
        """95 % interval of `mean_absolute_error`, by bootstrap over the test images."""
        return bootstrap_interval((self.predicted_N - self.true_N).abs(), _mean, seed=seed)


def regression_probe(
    train_ND: Tensor,
    train_amounts: Tensor,
    test_ND: Tensor,
    test_amounts: Tensor,
    *,
    l2: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
    seed: int = 0,
) -> RegressionResult:
    """Ridge regression on standardised features; a fifth of the training images chooses the penalty.

    The penalty is per image: the solution is that of covariance + l2.

    Raises:
        ValueError: Features and amounts do not belong together, or there is no penalty.
    """
    check_features(train_ND, train_amounts, test_ND, test_amounts)
    if not l2:
        raise ValueError("the regression probe needs at least one penalty")
    train, test = train_ND.double(), test_ND.double()
    mean_D, std_D = train.mean(0), train.std(0, correction=0)
    scale_D = torch.where(std_D > 1e-9, 1 / std_D.clamp_min(1e-12), 0.0)
    train, test = (train - mean_D) * scale_D, (test - mean_D) * scale_D
    amounts_N, true_N = train_amounts.double(), test_amounts.double()
    order_N = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    num_held = max(1, round(_VALIDATION_FRACTION * len(order_N)))
    held, kept = order_N[:num_held], order_N[num_held:] if num_held < len(order_N) else order_N
    errors = [
        float((_ridge(train[kept], amounts_N[kept], train[held], each) - amounts_N[held]).square().mean())
        for each in l2
    ]
    best = l2[min(range(len(l2)), key=errors.__getitem__)]
    predicted_N = _ridge(train, amounts_N, test, best)
    return RegressionResult(predicted_N=predicted_N.cpu(), true_N=true_N.cpu(), l2=best)


def _ridge(train_ND: Tensor, amounts_N: Tensor, asked_ND: Tensor, l2: float) -> Tensor:
    mean_D, mean = train_ND.mean(0), amounts_N.mean()
    centred_ND = train_ND - mean_D
    eye_DD = torch.eye(train_ND.shape[1], dtype=train_ND.dtype, device=train_ND.device)
    covariance_DD = centred_ND.T @ centred_ND / len(train_ND) + l2 * eye_DD
    weight_D = torch.linalg.solve(covariance_DD, centred_ND.T @ (amounts_N - mean) / len(train_ND))
    predicted_N: Tensor = (asked_ND - mean_D) @ weight_D + mean
    return predicted_N


def _mean(errors: Tensor) -> Tensor:
    """Mean of errors [draws, N]."""
    return errors.mean(-1)


def _explained(pairs: Tensor) -> Tensor:
    """R squared of pairs [draws, N, 2] of predicted and true amounts."""
    predicted, true = pairs.unbind(-1)
    spread = (true - true.mean(-1, keepdim=True)).square().mean(-1)
    return 1 - (predicted - true).square().mean(-1) / spread.clamp_min(1e-12)
