from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jepa_core.health import (
    effective_rank,
    embedding_std,
    health_metrics,
    lidar,
    mean_cosine,
    position_share,
    rankme,
)


def features(count: int = 40, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, width, generator=generator, dtype=torch.float64) * torch.arange(1, width + 1) + 0.5
    )


def entropy_rank(values: list[float]) -> float:
    total = sum(values)
    return math.exp(-sum(v / total * math.log(v / total) for v in values if v > 0))


def test_std_equals_the_loop_over_dimensions() -> None:
    rows = [row / row.norm() for row in features()]
    spreads = [torch.stack([row[d] for row in rows]).std(correction=0).item() for d in range(6)]
    assert embedding_std(features()).item() == pytest.approx(sum(spreads) / 6 * math.sqrt(6))


def test_cosine_equals_the_loop_over_pairs() -> None:
    z = features(12)
    cosines = [
        (z[i] @ z[j] / z[i].norm() / z[j].norm()).item() for i in range(12) for j in range(12) if i != j
    ]
    assert mean_cosine(z).item() == pytest.approx(sum(cosines) / len(cosines))


def test_ranks_equal_the_entropy_of_the_gram_matrix_spectrum() -> None:
    z = features()
    centred = z - z.mean(0)
    spectrum = [math.sqrt(max(v, 0.0)) for v in torch.linalg.eigvalsh(centred.T @ centred).tolist()]
    assert effective_rank(z).item() == pytest.approx(entropy_rank(spectrum), rel=1e-6)
    spectrum = [math.sqrt(max(v, 0.0)) for v in torch.linalg.eigvalsh(z.T @ z).tolist()]
    assert rankme(z).item() == pytest.approx(entropy_rank(spectrum), rel=1e-4)


def test_position_share_equals_the_loop_over_positions() -> None:
    z = torch.randn(9, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z += torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mean = z.mean((0, 1))
    between = sum(((z[:, n].mean(0) - mean) ** 2).sum().item() * 9 for n in range(5))
    total = sum(((z[b, n] - mean) ** 2).sum().item() for b in range(9) for n in range(5))
    assert position_share(z).item() == pytest.approx(between / total)


def test_lidar_equals_the_formula_with_matrix_roots() -> None:
    z = torch.randn(30, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    z += 3 * torch.randn(30, 1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    mean = z.mean((0, 1))
    between = sum(torch.outer(v.mean(0) - mean, v.mean(0) - mean) for v in z) / 30
    within = sum(torch.outer(e - v.mean(0), e - v.mean(0)) for v in z for e in v) / 120 + 1e-4 * torch.eye(5)
    values, vectors = torch.linalg.eigh(within)
    root = vectors @ torch.diag(values**-0.5) @ vectors.T
    spectrum = torch.linalg.eigvalsh(root @ between @ root)
    shares = spectrum / spectrum.sum() + 1e-7
    assert lidar(z).item() == pytest.approx(math.exp(-(shares * shares.log()).sum().item()), rel=1e-9)


def test_lidar_of_images_that_are_one_point_is_one_and_of_distinct_ones_near_the_width() -> None:
    generator = torch.Generator().manual_seed(0)
    assert lidar(torch.zeros(8, 3, 6)).item() == pytest.approx(1.0, abs=1e-3)
    distinct = torch.randn(200, 1, 6, generator=generator) + 0.01 * torch.randn(
        200, 3, 6, generator=generator
    )
    assert lidar(distinct).item() > 5.5


def test_collapsed_and_healthy_features_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(1, 16, 32, generator=generator).expand(64, -1, -1)
    collapsed = health_metrics(positions + 0.5)
    assert collapsed["health/std"].item() < 1e-3
    assert collapsed["health/cosine"].item() > 0.999
    assert collapsed["health/position_share"].item() == pytest.approx(1.0, abs=1e-4)
    healthy = health_metrics(torch.randn(64, 16, 32, generator=generator))
    assert healthy["health/std"].item() > 0.9
    assert abs(healthy["health/cosine"].item()) < 0.05
    assert healthy["health/effective_rank"].item() > 24
    assert healthy["health/position_share"].item() < 0.05


def test_features_that_are_exactly_one_point_give_finite_metrics() -> None:
    metrics = health_metrics(torch.zeros(8, 4, 6))
    assert all(value.isfinite() for value in metrics.values())
    assert metrics["health/effective_rank"].item() == 1.0
