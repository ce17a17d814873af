from __future__ import annotations

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from jepa_core.probes import LinearProbe, knn_probe, linear_probe


def blobs(count: int = 600, width: int = 12, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(classes, (count,), generator=generator)
    scales = 10.0 ** torch.linspace(-3, 3, width)
    noise = 1.5 * torch.randn(count, width, generator=generator)
    return (centres[labels] + noise) * scales + 7, labels


@pytest.mark.parametrize("count", [600, 60], ids=["more_images_than_features", "more_features_than_images"])
def test_the_linear_probe_agrees_with_scikit_learn_at_one_penalty(count: int):
    (train, train_labels), (test, test_labels) = blobs(count, width=90), blobs(width=90, seed=1)
    ours = linear_probe(train, train_labels, test, test_labels, num_classes=4, l2=(1e-2,))
    scaler = StandardScaler().fit(train.numpy())
    theirs = LogisticRegression(C=1 / (len(train) * 1e-2), tol=1e-8, max_iter=1000)
    theirs.fit(scaler.transform(train.numpy()), train_labels.numpy())
    expected = theirs.predict(scaler.transform(test.numpy())) == test_labels.numpy()
    assert (ours.correct_N.numpy() != expected).mean() < 0.005
    assert ours.l2 == 1e-2


def test_labels_that_share_features_are_fitted_as_if_each_was_alone():
    (train, train_labels), (test, test_labels) = blobs(), blobs(seed=1)
    probe = LinearProbe(train, test)
    for divisor, classes in ((1, 4), (2, 2)):
        together = probe.fit(train_labels // divisor, test_labels // divisor, num_classes=classes)
        alone = linear_probe(
            train, train_labels // divisor, test, test_labels // divisor, num_classes=classes
        )
        assert torch.equal(together.correct_N, alone.correct_N)
        assert together.l2 == alone.l2


def test_the_penalty_is_chosen_without_the_test_images():
    (train, train_labels), (test, test_labels) = blobs(), blobs(seed=1)
    found = {
        linear_probe(train, train_labels, test[part], test_labels[part], num_classes=4, seed=3).l2
        for part in (slice(0, 10), slice(10, 300), slice(300, 600))
    }
    assert len(found) == 1


def test_a_strong_penalty_is_chosen_where_features_are_noise():
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(100, 80, generator=generator), torch.randn(100, 80, generator=generator)
    labels = (train[:, 0] + torch.randn(100, generator=generator) > 0).long()
    chosen = linear_probe(train, labels, test, labels, num_classes=2, l2=(1e-6, 10.0))
    assert chosen.l2 == 10.0


def test_features_that_never_vary_change_nothing():
    (train, train_labels), (test, test_labels) = blobs(), blobs(seed=1)
    without = linear_probe(train, train_labels, test, test_labels, num_classes=4)
    constant = torch.full((len(train), 1), 123.456)
    with_constant = linear_probe(
        torch.cat([train, constant], 1),
        train_labels,
        torch.cat([test, constant], 1),
        test_labels,
        num_classes=4,
    )
    assert torch.equal(without.correct_N, with_constant.correct_N)


def test_features_given_three_times_are_fitted_like_one_under_a_third_of_the_penalty():
    (train, train_labels), (test, test_labels) = blobs(), blobs(seed=1)
    once = linear_probe(train, train_labels, test, test_labels, num_classes=4, l2=(1e-3,))
    thrice = linear_probe(
        train.repeat(1, 3), train_labels, test.repeat(1, 3), test_labels, num_classes=4, l2=(3e-3,)
    )
    assert (once.correct_N != thrice.correct_N).double().mean() < 0.005


def test_collapsed_features_reach_the_share_of_the_commonest_class():
    labels = torch.tensor([0, 0, 0, 1])
    same = torch.ones(4, 3)
    result = linear_probe(same, labels, same, labels, num_classes=2, l2=(1e-2,))
    assert result.accuracy == 0.75


def naive_knn(train: Tensor, labels: Tensor, test: Tensor, neighbors: int, temperature: float) -> list[int]:
    predicted = []
    for query in test.double():
        cosines = [float(query @ row / (query.norm() * row.norm())) for row in train.double()]
        nearest = sorted(range(len(cosines)), key=lambda index: -cosines[index])[:neighbors]
        votes: dict[int, float] = {}
        for index in nearest:
            label = int(labels[index])
            votes[label] = votes.get(label, 0.0) + math.exp(cosines[index] / temperature)
        predicted.append(max(votes, key=lambda label: votes[label]))
    return predicted


@pytest.mark.parametrize("neighbors", [1, 7, 20])
def test_the_knn_probe_agrees_with_a_loop_over_images(neighbors: int):
    (train, train_labels), (test, test_labels) = blobs(120), blobs(40, seed=1)
    train, test = train - 7, test - 7
    result = knn_probe(
        train, train_labels, test, test_labels, num_classes=4, num_neighbors=neighbors, temperature=0.07
    )
    expected = naive_knn(train, train_labels, test, neighbors, 0.07)
    assert result.correct_N.tolist() == [a == b for a, b in zip(expected, test_labels.tolist(), strict=True)]


def test_all_images_vote_when_there_are_fewer_than_neighbours():
    train, labels = torch.eye(3), torch.tensor([0, 1, 1])
    result = knn_probe(train, labels, torch.eye(3), labels, num_classes=2, num_neighbors=50)
    assert result.accuracy == 1.0


def test_a_tiny_temperature_does_not_overflow():
    (train, train_labels), (test, test_labels) = blobs(60), blobs(30, seed=1)
    result = knn_probe(train, train_labels, test, test_labels, num_classes=4, temperature=1e-4)
    nearest = knn_probe(train, train_labels, test, test_labels, num_classes=4, num_neighbors=1)
    assert torch.equal(result.correct_N, nearest.correct_N)


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_features_without_their_labels_are_refused(probe):
    with pytest.raises(ValueError, match="4 features and 3 labels"):
        probe(torch.ones(4, 2), torch.zeros(3), torch.ones(1, 2), torch.zeros(1), num_classes=2)
