"""What I-JEPA's targets are: the teacher's features, of one or several blocks, brought to one scale.

Pure functions of features. `ijepa` chooses the features and gathers the target blocks from the result.

Shape suffixes: B images of a process, N patches of the grid, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_core.objectives.parts import full_precision
from jepa_core.settings import TargetNorm

_TANH_SCALE = 0.5
_EPSILON = 1e-5


def averaged_targets(
    layers: Sequence[Tensor], norm: TargetNorm, mean_over_batches: Callable[[Tensor], Tensor]
) -> Tensor:
    """The mean of the normalised layers, [B, N, D]; one layer is itself, normalised.

    `mean_over_batches` makes the mean of a process's batch the mean of all processes' batches.

    Source: for several layers Bootleg (arXiv 2603.15553), data2vec (arXiv 2202.03555, section 3.3).
    Deviates: one prediction is made of the layers' mean, as in data2vec, and not one of each layer; the mean is not
        normalised again, so its variance is below 1 where the layers differ.
    """
    normed = [normalized(layer, norm, mean_over_batches) for layer in layers]
    return normed[0] if len(normed) == 1 else torch.stack([full_precision(layer) for layer in normed]).mean(0)


def normalized(
    features_BND: Tensor, norm: TargetNorm, mean_over_batches: Callable[[Tensor], Tensor]
) -> Tensor:
    """Features without affine parameters of a norm, [B, N, D].

    Source: `layer` is the published implementation's; `instance` data2vec 2.0's (arXiv 2212.07525), section 3; `tanh`
        Colton 2025 (arXiv 2508.02829), which keeps apart what the lengths of tokens say.
    Deviates: `tanh` has one fixed scale, at the 0.5 from which the source learns one for each feature, and no affine
        parameters: no gradient reaches the teacher.
    """
    match norm:
        case "layer":
            return F.layer_norm(features_BND, features_BND.shape[-1:])
        case "batch":
            return _standardized(full_precision(features_BND), (0, 1), mean_over_batches)
        case "instance":
            return _standardized(full_precision(features_BND), (1,), lambda mean: mean)
        case "tanh":
            return torch.tanh(_TANH_SCALE * full_precision(features_BND))
        case "none":
            return features_BND


def _standardized(
    values_BND: Tensor, axes: tuple[int, ...], whole_mean: Callable[[Tensor], Tensor]
) -> Tensor:
    """Each feature with mean 0 and variance 1 over `axes`."""
    centred_BND = values_BND - whole_mean(values_BND.mean(axes, keepdim=True))
    variance = whole_mean(centred_BND.square().mean(axes, keepdim=True))
    return centred_BND * torch.rsqrt(variance + _EPSILON)
