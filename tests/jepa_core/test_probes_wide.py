"""The wider evaluation: many heads, low-shot, regression, attentive, fine-tuning, and their intervals."""

from __future__ import annotations

import pytest
import torch
from core_models import ENCODER, tiny_images
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from jepa_core.encoder import build_encoder
from jepa_core.probes import (
    FineTuneSettings,
    HeadGrid,
    attentive_probe,
    bootstrap_interval,
    fine_tune_probe,
    low_shot_probe,
    many_head_probe,
    regression_probe,
    wilson_interval,
)
from jepa_core.probes.finetune import layer_groups
from jepa_core.probes.lowshot import few_of_each


def blobs(count: int, *, seed: int, width: int = 24, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Classes that overlap, in features of unequal scales."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    features = centres[labels] + 2.0 * torch.randn(count, width, generator=generator)
    return features * torch.linspace(0.2, 3, width) + 1, labels


def test_the_chosen_head_is_as_good_as_scikit_learns_logistic_regression() -> None:
    (train, train_labels), (test, test_labels) = blobs(3000, seed=0), blobs(4000, seed=1)
    found = many_head_probe({"last": train}, train_labels, {"last": test}, test_labels, num_classes=5)
    scaler = StandardScaler().fit(train.numpy())
    best = max(
        LogisticRegression(C=penalty, max_iter=500)
        .fit(scaler.transform(train.numpy()), train_labels.numpy())
        .score(scaler.transform(test.numpy()), test_labels.numpy())
        for penalty in (0.001, 0.01, 0.1, 1.0)
    )
    assert found.accuracy > best - 0.005


def test_heads_of_one_grid_are_those_trained_alone() -> None:
    (train, train_labels), (test, test_labels) = blobs(400, seed=0), blobs(100, seed=1)
    whole = HeadGrid(learning_rates=(0.01, 0.1), weight_decays=(0.0, 1e-2), epochs=5, batch_size=64)
    together = many_head_probe(
        {"a": train}, train_labels, {"a": test}, test_labels, num_classes=5, grid=whole
    )
    for choice, accuracy in together.validation.items():
        alone = HeadGrid(
            learning_rates=(choice.learning_rate,),
            weight_decays=(choice.weight_decay,),
            normalize=(choice.normalize,),
            epochs=5,
            batch_size=64,
        )
        one = many_head_probe({"a": train}, train_labels, {"a": test}, test_labels, num_classes=5, grid=alone)
        assert one.validation[choice] == pytest.approx(accuracy)


def test_the_images_that_choose_the_head_do_not_train_it() -> None:
    """Labels without meaning are learned by heart: a head that had seen the validation part would be right on it."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 400, generator=generator)
    labels = torch.randint(4, (200,), generator=generator)
    grid = HeadGrid(learning_rates=(0.1,), weight_decays=(0.0,), normalize=(False,), batch_size=32)
    found = many_head_probe({"a": features}, labels, {"a": features}, labels, num_classes=4, grid=grid)
    assert found.accuracy == 1.0
    assert max(found.validation.values()) < 0.5


def test_a_head_follows_plain_stochastic_gradient_descent() -> None:
    """One head against torch's own optimiser and autograd."""
    (train, train_labels), (test, test_labels) = blobs(256, seed=0), blobs(64, seed=1)
    grid = HeadGrid(learning_rates=(0.1,), weight_decays=(0.0,), normalize=(True,), epochs=7, batch_size=64)
    found = many_head_probe({"a": train}, train_labels, {"a": test}, test_labels, num_classes=5, grid=grid)
    scaler = StandardScaler().fit(train.numpy())
    x, y = (torch.from_numpy(scaler.transform(part.numpy())).float() for part in (train, test))
    weight, bias = torch.zeros(5, 24, requires_grad=True), torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=28)
    generator = torch.Generator().manual_seed(0)
    for _ in range(7):
        for rows in torch.randperm(256, generator=generator).split(64):
            optimizer.zero_grad()
            scores = torch.nn.functional.linear(x[rows], weight, bias)
            torch.nn.functional.cross_entropy(scores, train_labels[rows]).backward()
            optimizer.step()
            schedule.step()
    expected = torch.nn.functional.linear(y, weight, bias).argmax(-1) == test_labels
    assert (found.correct_N != expected).float().mean() < 0.02


def test_the_better_feature_set_is_chosen_without_the_test_images() -> None:
    (train, train_labels), (test, test_labels) = blobs(600, seed=0), blobs(100, seed=1)
    noise = {"train": torch.randn(600, 24), "test": torch.randn(100, 24)}
    found = many_head_probe(
        {"noise": noise["train"], "good": train},
        train_labels,
        {"noise": noise["test"], "good": torch.zeros_like(test)},
        test_labels,
        num_classes=5,
        grid=HeadGrid(learning_rates=(0.1,), weight_decays=(0.0,), epochs=5),
    )
    assert found.choice.features == "good"


def test_few_labelled_images_are_a_share_of_every_class() -> None:
    labels = torch.tensor([0] * 200 + [1] * 100 + [2] * 3)
    rows = few_of_each(labels, 0.1, seed=0)
    assert torch.bincount(labels[rows]).tolist() == [20, 10, 1]
    assert not torch.equal(rows, few_of_each(labels, 0.1, seed=1))


def test_fewer_labels_give_less() -> None:
    (train, train_labels), (test, test_labels) = blobs(2000, seed=0), blobs(500, seed=1)
    found = [
        low_shot_probe(train, train_labels, test, test_labels, num_classes=5, fraction=fraction)
        for fraction in (0.01, 0.1, 1.0)
    ]
    assert found[0].accuracy < found[1].accuracy < found[2].accuracy
    assert len(found[0].draws) == 3


def test_the_regression_probe_is_scikit_learns_ridge() -> None:
    (train, _), (test, _) = blobs(500, seed=0), blobs(200, seed=1)
    truth = train[:, 0] - 2 * train[:, 3] + torch.randn(500, generator=torch.Generator().manual_seed(3))
    test_truth = test[:, 0] - 2 * test[:, 3]
    found = regression_probe(train, truth, test, test_truth, l2=(0.1,))
    scaler = StandardScaler().fit(train.double().numpy())
    model = Ridge(alpha=0.1 * 500).fit(scaler.transform(train.double().numpy()), truth.double().numpy())
    expected = torch.from_numpy(model.predict(scaler.transform(test.double().numpy())))
    torch.testing.assert_close(found.predicted_N, expected, rtol=1e-6, atol=1e-6)
    low, high = found.explained_interval()
    assert low < found.explained < high
    least, most = found.error_interval()
    assert least < found.mean_absolute_error < most


def test_the_mean_label_explains_nothing() -> None:
    train, test = torch.zeros(50, 3), torch.zeros(40, 3)
    amounts = torch.arange(50.0)
    found = regression_probe(train, amounts, test, torch.arange(40.0) + 5)
    assert found.explained == pytest.approx(0.0, abs=1e-9)
    assert found.mean_absolute_error == pytest.approx(10.0)


def test_the_attentive_probe_finds_the_patch_that_tells() -> None:
    """The class is in one patch, whose place varies; the mean over patches drowns it in the others' noise."""
    generator = torch.Generator().manual_seed(0)

    def made(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(3, (count,), generator=generator)
        tokens = torch.randn(count, 16, 12, generator=generator)
        place = torch.randint(16, (count,), generator=generator)
        mark = torch.zeros(count, 12)
        mark[:, 0], mark[torch.arange(count), 1 + labels] = 12.0, 12.0
        tokens[torch.arange(count), place] = mark
        return tokens, labels

    (train, train_labels), (test, test_labels) = made(800), made(300)
    found = attentive_probe(
        train, train_labels, test, test_labels, num_classes=3, learning_rate=1e-2, epochs=15, batch_size=64
    )
    assert found.accuracy > 0.95


def test_fine_tuning_learns_and_leaves_the_encoder_alone() -> None:
    encoder = build_encoder(ENCODER)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    labels = torch.arange(60) % 2
    images = tiny_images(batch=60) + (2 * labels - 1)[:, None, None, None] * 3 * torch.linspace(-1, 1, 24)
    settings = FineTuneSettings(epochs=10, batch_size=10, learning_rate=5e-3)
    found = fine_tune_probe(
        encoder, images[:40], labels[:40], images[40:], labels[40:], num_classes=2, settings=settings
    )
    assert found.accuracy > 0.9
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_layers_learn_the_slower_the_lower_they_are() -> None:
    encoder = build_encoder(ENCODER)
    groups = layer_groups(encoder, 0.5, 0.05)
    assert sum(len(group["params"]) for group in groups) == len(list(encoder.parameters()))  # type: ignore[arg-type]
    assert sorted({float(group["scale"]) for group in groups}) == [0.125, 0.25, 0.5, 1.0]  # type: ignore[arg-type]


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (7, 10), (730, 1000), (50, 50)])
def test_the_interval_of_an_accuracy_is_wilsons(correct: int, count: int) -> None:
    expected = binomtest(correct, count).proportion_ci(method="wilson")
    assert wilson_interval(correct, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_bootstrap_interval_of_a_mean_is_the_normal_one() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    low, high = bootstrap_interval(values, lambda draws: draws.mean(-1))
    half = 1.96 * values.std().item() / 20
    assert low == pytest.approx(values.mean().item() - half, abs=0.02)
    assert high == pytest.approx(values.mean().item() + half, abs=0.02)
