"""The linear probe: multinomial logistic regression on standardised features, solved to convergence.

It suits the some thousand images of a probe during training, where a full-batch solver has no learning rate to tune.
Shape suffixes: N training images, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_core.probes.result import ProbeResult, check_features

_VALIDATION_FRACTION = 0.2
_MAX_ITERATIONS = 200
_GRADIENT_TOLERANCE = 1e-5
_CURVATURE_FLOOR = 1e-6


def linear_probe(
    train_ND: Tensor,
    train_labels: Tensor,
    test_ND: Tensor,
    test_labels: Tensor,
    *,
    num_classes: int,
    l2: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
    seed: int = 0,
) -> ProbeResult:
    """Fit a linear classifier on the training features and classify the test features.

    The objective is mean cross-entropy + l2 / 2 * |weights|^2, biases free. Among several penalties the one with the
    best accuracy on a fifth of the training images, drawn by `seed`, is fitted again on all of them; ties go to the
    larger penalty, and the search ends at the first penalty that does worse than a larger one: weaker ones only fit
    the training images more closely. The test images choose nothing. Labels are integers from 0 to `num_classes` - 1.

    Raises:
        ValueError: Features and labels do not belong together, or there is no penalty.

    Source: the frozen-feature evaluation of I-JEPA (arXiv 2301.08243), appendix A.2.
    Deviates: a converged full-batch fit with an L2 penalty instead of SGD with a schedule.
    """
    check_features(train_ND, train_labels, test_ND, test_labels)
    if not l2:
        raise ValueError("the linear probe needs at least one penalty")
    train_ND, test_ND = _standardised(train_ND.float(), test_ND.float())
    train_labels = train_labels.long()
    fitter = _Fitter(train_ND, num_classes)
    penalty, start_DC = l2[0], None
    if len(l2) > 1:
        penalty, start_DC = _best_penalty(fitter, train_ND, train_labels, l2, seed)
    head_DC = fitter.fit(train_ND, train_labels, penalty, start_DC)
    correct_N = _logits(head_DC, test_ND).argmax(dim=1) == test_labels
    return ProbeResult(correct_N=correct_N.cpu(), l2=penalty)


class _Fitter:
    """Fits heads to standardised features by L-BFGS in coordinates in which the objective is nearly round.

    The objective's curvature at zero is covariance / C + l2. Solving for Cholesky(curvature)^T @ weights instead of the
    weights changes no optimum, and takes a tenth of the steps where features go together, as pixels do.
    """

    def __init__(self, features_ND: Tensor, num_classes: int) -> None:
        self._num_classes = num_classes
        self._curvature_DD = features_ND.T @ features_ND / (len(features_ND) * num_classes)

    def fit(self, features_ND: Tensor, labels_N: Tensor, l2: float, start_DC: Tensor | None = None) -> Tensor:
        """Weights, and biases as their last row [D + 1, C]."""
        factor_DD = self._factor(l2)
        width = features_ND.shape[1]
        start = features_ND.new_zeros(width + 1, self._num_classes) if start_DC is None else start_DC
        rounded_DC = torch.cat([factor_DD.T @ start[:-1], start[-1:]]).requires_grad_(True)
        solver = torch.optim.LBFGS(
            [rounded_DC],
            max_iter=_MAX_ITERATIONS,
            tolerance_grad=_GRADIENT_TOLERANCE,
            tolerance_change=1e-9,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            solver.zero_grad()
            head_DC = _head(factor_DD, rounded_DC)
            loss = F.cross_entropy(_logits(head_DC, features_ND), labels_N)
            loss = loss + 0.5 * l2 * head_DC[:-1].square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            solver.step(closure)  # type: ignore[no-untyped-call]
        return _head(factor_DD, rounded_DC.detach())

    def _factor(self, l2: float) -> Tensor:
        """Lower Cholesky factor of the curvature; the floor keeps it positive in float32."""
        floor = l2 + _CURVATURE_FLOOR * float(self._curvature_DD.trace())
        eye_DD = torch.eye(len(self._curvature_DD), device=self._curvature_DD.device)
        factor_DD: Tensor = torch.linalg.cholesky(self._curvature_DD + floor * eye_DD)
        return factor_DD


def _head(factor_DD: Tensor, rounded_DC: Tensor) -> Tensor:
    weights_DC = torch.linalg.solve_triangular(factor_DD.T, rounded_DC[:-1], upper=True)
    return torch.cat([weights_DC, rounded_DC[-1:]])


def _best_penalty(
    fitter: _Fitter, features_ND: Tensor, labels_N: Tensor, l2: Sequence[float], seed: int
) -> tuple[float, Tensor | None]:
    """The penalty, and the head it gave, from which the fit on all images starts."""
    order_N = torch.randperm(len(features_ND), generator=torch.Generator().manual_seed(seed % 2**63))
    num_validation = max(1, round(_VALIDATION_FRACTION * len(order_N)))
    held, kept = order_N[:num_validation], order_N[num_validation:]
    if len(kept) == 0:
        return max(l2), None
    best, best_accuracy = max(l2), -1.0
    best_DC: Tensor | None = None
    head_DC: Tensor | None = None
    for penalty in sorted(l2, reverse=True):  # the strong ones are quick and start the weak ones
        head_DC = fitter.fit(features_ND[kept], labels_N[kept], penalty, head_DC)
        hits_N = _logits(head_DC, features_ND[held]).argmax(dim=1) == labels_N[held]
        accuracy = float(hits_N.double().mean())
        if accuracy < best_accuracy:
            break
        if accuracy > best_accuracy:
            best, best_accuracy, best_DC = penalty, accuracy, head_DC
    return best, best_DC


def _logits(head_DC: Tensor, features_ND: Tensor) -> Tensor:
    return torch.addmm(head_DC[-1], features_ND, head_DC[:-1])


def _standardised(train_ND: Tensor, test_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Both by the training part's mean and standard deviation; dimensions that never vary become 0."""
    mean_D, std_D = train_ND.mean(dim=0), train_ND.std(dim=0, correction=0)
    varies_D = std_D > 1e-6 * mean_D.abs().clamp_min(1e-6)
    scale_D = torch.where(varies_D, 1 / std_D.where(varies_D, torch.ones_like(std_D)), 0.0)
    return (train_ND - mean_D) * scale_D, (test_ND - mean_D) * scale_D
