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
    larger penalty. The test images choose nothing. Labels are integers from 0 to `num_classes` - 1.

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
    penalty = l2[0] if len(l2) == 1 else _best_penalty(train_ND, train_labels, num_classes, l2, seed)
    head_DC = _fit(train_ND, train_labels, num_classes, penalty)
    correct_N = _logits(head_DC, test_ND).argmax(dim=1) == test_labels
    return ProbeResult(correct_N=correct_N.cpu(), l2=penalty)


def _best_penalty(
    features_ND: Tensor, labels_N: Tensor, num_classes: int, l2: Sequence[float], seed: int
) -> float:
    order_N = torch.randperm(len(features_ND), generator=torch.Generator().manual_seed(seed % 2**63))
    num_validation = max(1, round(_VALIDATION_FRACTION * len(order_N)))
    held, kept = order_N[:num_validation], order_N[num_validation:]
    if len(kept) == 0:
        return max(l2)
    best, best_accuracy, head_DC = max(l2), -1.0, None
    for penalty in sorted(l2, reverse=True):  # the strong ones are quick and start the weak ones
        head_DC = _fit(features_ND[kept], labels_N[kept], num_classes, penalty, start_DC=head_DC)
        hits_N = _logits(head_DC, features_ND[held]).argmax(dim=1) == labels_N[held]
        accuracy = float(hits_N.double().mean())
        if accuracy > best_accuracy:
            best, best_accuracy = penalty, accuracy
    return best


def _fit(
    features_ND: Tensor, labels_N: Tensor, num_classes: int, l2: float, start_DC: Tensor | None = None
) -> Tensor:
    """Weights, and biases as their last row [D + 1, C]."""
    width = features_ND.shape[1]
    head_DC = features_ND.new_zeros(width + 1, num_classes) if start_DC is None else start_DC.clone()
    head_DC.requires_grad_(True)
    solver = torch.optim.LBFGS(
        [head_DC],
        max_iter=_MAX_ITERATIONS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(_logits(head_DC, features_ND), labels_N)
        loss = loss + 0.5 * l2 * head_DC[:-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return head_DC.detach()


def _logits(head_DC: Tensor, features_ND: Tensor) -> Tensor:
    return torch.addmm(head_DC[-1], features_ND, head_DC[:-1])


def _standardised(train_ND: Tensor, test_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Both by the training part's mean and standard deviation; dimensions that never vary become 0."""
    mean_D, std_D = train_ND.mean(dim=0), train_ND.std(dim=0, correction=0)
    varies_D = std_D > 1e-6 * mean_D.abs().clamp_min(1e-6)
    scale_D = torch.where(varies_D, 1 / std_D.where(varies_D, torch.ones_like(std_D)), 0.0)
    return (train_ND - mean_D) * scale_D, (test_ND - mean_D) * scale_D
