"""95 % intervals of what a probe measures."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LEVEL = 0.95
"""Of both intervals."""
_Z = 1.959964


def wilson_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """The interval of a share of right answers, from the binomial distribution; 0 to 1.

    Source: Wilson 1927; it stays inside 0 to 1 and holds for few images too.
    """
    share, weight = num_correct / num_images, _Z**2 / num_images
    middle = (share + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(share * (1 - share) / num_images + weight / (4 * num_images))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_interval(
    values: Tensor, statistic: Callable[[Tensor], Tensor], *, seed: int = 0, num_draws: int = 1000
) -> tuple[float, float]:
    """The interval of a statistic of the images' values [N, ...], by drawing images with replacement.

    `statistic` takes draws [num_draws, N, ...] to one number each.

    Source: Efron 1979, percentile interval.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(values), (num_draws, len(values)), generator=generator)
    found = statistic(values[draws]).double()
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
