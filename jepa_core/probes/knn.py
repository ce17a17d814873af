"""The k-NN probe: the nearest training images vote.

Shape suffixes: N training images, B test images of a chunk, K neighbours, D width, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_core.probes.result import ProbeResult, check_features

_CHUNK_IMAGES = 1024


@torch.no_grad()
def knn_probe(
    train_ND: Tensor,
    train_labels: Tensor,
    test_ND: Tensor,
    test_labels: Tensor,
    *,
    num_classes: int,
    num_neighbors: int = 20,
    temperature: float = 0.07,
) -> ProbeResult:
    """Classify test features by the weighted vote of their nearest training features in cosine similarity.

    Each neighbour votes for its class with exp(cosine / temperature); fewer training images than neighbours all
    vote. Labels are integers from 0 to `num_classes` - 1.

    Raises:
        ValueError: Features and labels do not belong together.

    Source: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (CVPR 2018),
    section 3.4, as used by DINO.
    """
    check_features(train_ND, train_labels, test_ND, test_labels)
    train_unit_ND, test_unit_ND = F.normalize(train_ND.float()), F.normalize(test_ND.float())
    neighbors = min(num_neighbors, len(train_unit_ND))
    correct = []
    for start in range(0, len(test_unit_ND), _CHUNK_IMAGES):
        chunk_BD = test_unit_ND[start : start + _CHUNK_IMAGES]
        labels_B = test_labels[start : start + _CHUNK_IMAGES]
        cosine_BK, nearest_BK = (chunk_BD @ train_unit_ND.T).topk(neighbors, dim=1)
        # The largest weight is taken out: it changes no vote, and a small temperature cannot overflow.
        weights_BK = ((cosine_BK - cosine_BK[:, :1]) / temperature).exp()
        votes_BC = weights_BK.new_zeros(len(chunk_BD), num_classes)
        votes_BC.scatter_add_(1, train_labels[nearest_BK].long(), weights_BK)
        correct.append(votes_BC.argmax(dim=1) == labels_B)
    return ProbeResult(correct_N=torch.cat(correct).cpu())
