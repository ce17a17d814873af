"""Label-free signs of collapse, from a batch of features.

They are used one-sidedly: they can say that a run has collapsed, never that one run is better than another.

Shape suffixes: B images, N patches, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_RANKME_EPSILON = 1e-7
_LIDAR_DELTA = 1e-4
_LIDAR_EPSILON = 1e-7


@torch.no_grad()
def health_metrics(features_BND: Tensor) -> dict[str, Tensor]:
    """All metrics of this module over the average-pooled features of different images, float32 device scalars.

    `features_BND` are the target encoder's; at least two images, and several times D for the ranks to mean much.
    """
    tokens_BND = features_BND.float()
    pooled_BD = tokens_BND.mean(dim=1)
    return {
        "health/std": embedding_std(pooled_BD),
        "health/cosine": mean_cosine(pooled_BD),
        "health/effective_rank": effective_rank(pooled_BD),
        "health/rankme": rankme(pooled_BD),
        "health/position_share": position_share(tokens_BND),
    }


def embedding_std(features_BD: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation of unit-length features, times sqrt(D): about 1 is healthy.

    It is 0 when all images have one feature.

    Source: Chen and He 2021 (SimSiam, arXiv 2011.10566), section 4.1.
    """
    spread_D = F.normalize(features_BD, dim=1).std(dim=0, correction=0)
    return spread_D.mean() * math.sqrt(features_BD.shape[1])


def mean_cosine(features_BD: Tensor) -> Tensor:
    """Mean cosine similarity over all pairs of different images: near 1 when collapsed.

    The sum over pairs is the squared length of the summed unit vectors, so no B x B matrix is made.
    """
    count = len(features_BD)
    unit_BD = F.normalize(features_BD, dim=1)
    return (unit_BD.sum(dim=0).square().sum() - unit_BD.square().sum()) / (count * (count - 1))


def effective_rank(features_BD: Tensor) -> Tensor:
    """Exponential of the entropy of the centred features' normalised singular values, from 1 to min(B - 1, D).

    It is 1 when all images have one feature.

    Source: Roy and Vetterli 2007, "The effective rank".
    """
    return _spread(_shares(features_BD - features_BD.mean(dim=0)))


def rankme(features_BD: Tensor) -> Tensor:
    """Exponential of the entropy of the uncentred features' normalised singular values plus 1e-7.

    Source: Garrido et al. 2023 (RankMe, arXiv 2210.02885), equation 1.
    """
    return _spread(_shares(features_BD) + _RANKME_EPSILON)


def position_share(features_BND: Tensor) -> Tensor:
    """Share of the tokens' variance that their position alone explains, from 0 to 1: near 1 when only it is encoded."""
    per_position_ND = features_BND.mean(dim=0)
    mean_D = per_position_ND.mean(dim=0)
    total = (features_BND - mean_D).square().mean()
    return (per_position_ND - mean_D).square().mean() / total.clamp_min(torch.finfo(total.dtype).tiny)


def spread_over_images(features_BND: Tensor) -> Tensor:
    """Variance over images at each place and dimension, averaged: 0 when all agree, at most 1 when layer-normed."""
    return features_BND.float().var(dim=0, correction=0).mean()


def assignment_information(shares_BK: Tensor) -> Tensor:
    """Mutual information of an image and what it is assigned to, as a share of the most there can be, 0 to 1.

    It is 0 both when all images go to one place and when each goes everywhere alike.
    """
    shares = shares_BK.float()
    information = torch.special.entr(shares.mean(dim=0)).sum() - torch.special.entr(shares).sum(dim=1).mean()
    share: Tensor = information / math.log(min(shares.shape))
    return share


def lidar(features_BQD: Tensor) -> Tensor:
    """Effective rank of what tells images apart, measured in units of how much the Q views of one image differ.

    Eigenvalues of W^-1/2 S W^-1/2, S the scatter of the images' means and W the mean scatter within an image plus
    1e-4 times the identity. From 1 to min(B - 1, D). Views of I-JEPA are draws of its context.

    Source: Thilak et al. 2023 (LiDAR, arXiv 2312.04000), section 4; delta and epsilon as there.
    """
    views_BQD = features_BQD.double()
    images, views, _ = views_BQD.shape
    means_BD = views_BQD.mean(dim=1)
    centred_BD = means_BD - means_BD.mean(dim=0)
    between_DD = centred_BD.T @ centred_BD / images
    around_RD = (views_BQD - means_BD[:, None]).flatten(0, 1)
    within_DD = around_RD.T @ around_RD / (images * views)
    within_DD.diagonal().add_(_LIDAR_DELTA)
    lower_DD = torch.linalg.cholesky(within_DD)
    half_DD = torch.linalg.solve_triangular(lower_DD, between_DD, upper=False)
    whitened_DD = torch.linalg.solve_triangular(lower_DD, half_DD.T, upper=False)  # same eigenvalues
    values_D = torch.linalg.eigvalsh(whitened_DD).clamp_min(0)
    shares_D = values_D / values_D.sum().clamp_min(torch.finfo(values_D.dtype).tiny)
    return _spread(shares_D + _LIDAR_EPSILON).to(features_BQD.dtype)


def _shares(features_BD: Tensor) -> Tensor:
    """Singular values divided by their sum."""
    values: Tensor = torch.linalg.svdvals(features_BD)
    return values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)


def _spread(shares: Tensor) -> Tensor:
    """Exponential of the entropy, with 0 log 0 = 0."""
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy.exp()
