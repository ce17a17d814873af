"""The linear probe: multinomial logistic regression on standardised features, solved to convergence.

It suits the some thousand images of a probe during training, where a full-batch solver has no learning rate to tune.
Shape suffixes: N training images, D width, R principal axes, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_core.probes.result import ProbeResult, check_features, check_widths

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
    """Fit a linear classifier on the training features and classify the test features; see `LinearProbe.fit`."""
    probe = LinearProbe(train_ND, test_ND)
    return probe.fit(train_labels, test_labels, num_classes=num_classes, l2=l2, seed=seed)


class LinearProbe:
    """Linear classifiers of one set of features, for as many labels as there are.

    Features are standardised and turned to their principal axes once. There the objective's curvature at zero,
    covariance / C + l2, is diagonal for every label and penalty, so that L-BFGS can work in coordinates in which the
    objective is nearly round: it takes a tenth of the steps where features go together, as pixels do. More features
    than training images are turned to as many axes as there are images: no optimum has weights outside of these.

    Source: the frozen-feature evaluation of I-JEPA (arXiv 2301.08243), appendix A.2.
    Deviates: a converged full-batch fit with an L2 penalty instead of SGD with a schedule.
    """

    def __init__(self, train_ND: Tensor, test_ND: Tensor) -> None:
        check_widths(train_ND, test_ND)
        standardised = _standardised(train_ND.float(), test_ND.float())
        self._train_NR, self._test_NR, self._variance_R = _on_principal_axes(*standardised)

    def fit(
        self,
        train_labels: Tensor,
        test_labels: Tensor,
        *,
        num_classes: int,
        l2: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
        seed: int = 0,
    ) -> ProbeResult:
        """Fit a classifier of one label on the training features and classify the test features.

        The objective is mean cross-entropy + l2 / 2 * |weights|^2, biases free. Among several penalties the one with
        the best accuracy on a fifth of the training images, drawn by `seed`, is fitted again on all of them; ties go to
        the larger penalty, and the search ends at the first penalty that does worse than a larger one: weaker ones only
        fit the training images more closely. The test images choose nothing. Labels are integers from 0 to
        `num_classes` - 1.

        Raises:
            ValueError: Features and labels do not belong together, or there is no penalty.
        """
        check_features(self._train_NR, train_labels, self._test_NR, test_labels)
        if not l2:
            raise ValueError("the linear probe needs at least one penalty")
        labels_N = train_labels.long()
        penalty, start_RC = l2[0], None
        if len(l2) > 1:
            penalty, start_RC = self._best_penalty(labels_N, num_classes, l2, seed)
        head_RC = self._head(self._train_NR, labels_N, num_classes, penalty, start_RC)
        correct_N = _logits(head_RC, self._test_NR).argmax(dim=1) == test_labels
        return ProbeResult(correct_N=correct_N.cpu(), l2=penalty)

    def _best_penalty(
        self, labels_N: Tensor, num_classes: int, l2: Sequence[float], seed: int
    ) -> tuple[float, Tensor | None]:
        """The penalty, and the head it gave, from which the fit on all images starts."""
        order_N = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed % 2**63))
        num_validation = max(1, round(_VALIDATION_FRACTION * len(order_N)))
        held, kept = order_N[:num_validation], order_N[num_validation:]
        if len(kept) == 0:
            return max(l2), None
        best, best_accuracy = max(l2), -1.0
        best_RC: Tensor | None = None
        head_RC: Tensor | None = None
        for penalty in sorted(l2, reverse=True):  # the strong ones are quick and start the weak ones
            head_RC = self._head(self._train_NR[kept], labels_N[kept], num_classes, penalty, head_RC)
            hits_N = _logits(head_RC, self._train_NR[held]).argmax(dim=1) == labels_N[held]
            accuracy = float(hits_N.double().mean())
            if accuracy < best_accuracy:
                break
            if accuracy > best_accuracy:
                best, best_accuracy, best_RC = penalty, accuracy, head_RC
        return best, best_RC

    def _head(
        self,
        features_NR: Tensor,
        labels_N: Tensor,
        num_classes: int,
        l2: float,
        start_RC: Tensor | None,
    ) -> Tensor:
        """Weights, and biases as their last row [R + 1, C]."""
        variance_R = self._variance_R
        # The floor keeps the curvature positive in float32.
        curvature_R = (variance_R + _CURVATURE_FLOOR * variance_R.sum()) / num_classes + l2
        scale_R1 = torch.cat([curvature_R.rsqrt(), curvature_R.new_ones(1)])[:, None]
        if start_RC is None:
            start_RC = features_NR.new_zeros(len(scale_R1), num_classes)
        rounded_RC = (start_RC / scale_R1).requires_grad_(True)
        solver = torch.optim.LBFGS(
            [rounded_RC],
            max_iter=_MAX_ITERATIONS,
            tolerance_grad=_GRADIENT_TOLERANCE,
            tolerance_change=1e-9,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            solver.zero_grad()
            head_RC = scale_R1 * rounded_RC
            loss = F.cross_entropy(_logits(head_RC, features_NR), labels_N)
            loss = loss + 0.5 * l2 * head_RC[:-1].square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            solver.step(closure)  # type: ignore[no-untyped-call]
        return scale_R1 * rounded_RC.detach()


def _on_principal_axes(train_ND: Tensor, test_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both sets of features on the principal axes of the training part, and its variances [R] along them."""
    num_images, width = train_ND.shape
    if width <= num_images:
        variance_R, axes_DR = torch.linalg.eigh(train_ND.T @ train_ND / num_images)
        return train_ND @ axes_DR, test_ND @ axes_DR, variance_R.clamp_min(0)
    variance_R, shares_NR = torch.linalg.eigh(train_ND @ train_ND.T / num_images)
    is_axis_R = variance_R > _CURVATURE_FLOOR * variance_R[-1].clamp_min(1e-30)
    variance_R, shares_NR = variance_R[is_axis_R], shares_NR[:, is_axis_R]
    length_R = (num_images * variance_R).sqrt()
    return shares_NR * length_R, test_ND @ (train_ND.T @ (shares_NR / length_R)), variance_R


def _logits(head_DC: Tensor, features_ND: Tensor) -> Tensor:
    return torch.addmm(head_DC[-1], features_ND, head_DC[:-1])


def _standardised(train_ND: Tensor, test_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Both by the training part's mean and standard deviation; dimensions that never vary become 0."""
    mean_D, std_D = train_ND.mean(dim=0), train_ND.std(dim=0, correction=0)
    varies_D = std_D > 1e-6 * mean_D.abs().clamp_min(1e-6)
    scale_D = torch.where(varies_D, 1 / std_D.where(varies_D, torch.ones_like(std_D)), 0.0)
    return (train_ND - mean_D) * scale_D, (test_ND - mean_D) * scale_D
