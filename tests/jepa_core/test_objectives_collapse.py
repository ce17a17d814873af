"""Collapse provoked on purpose shows in the health metrics, and not in the same run without the provocation.

Methods that compare features show it in the spread of their targets. The targets of MAE and CAE are the own pixels of
the image, which no model changes, and those of data2vec 2.0 have variance 1 over the patches of every image, whatever
the features: what can collapse there is the encoder, which is provoked by a weight decay that leaves it no weights and
shows in the spread of its features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from core_models import method_masks, tiny_state
from test_objectives_training import LARGE_CROPS, METHODS
from torch import Tensor

from jepa_core.ema import EmaSettings
from jepa_core.health import assignment_information, health_metrics, spread_over_images
from jepa_core.objectives import DinoSettings, IJepaSettings, Objective
from jepa_core.optim import OptimizerSettings
from jepa_core.step import train_step

FLAGGED = 0.1
"""Share of the untrained model's `health/target_spread` that a healthy run does not come near."""
SHARP_DINO = DinoSettings(
    num_local_crops=0, num_prototypes=16, head_width=32, teacher_temperature=0.02, **LARGE_CROPS
)


def unpredictable(step: int) -> Tensor:
    """Images of which no part says anything of another: features can be predicted only where they are constant."""
    return torch.randn(16, 3, 24, 24, generator=torch.Generator().manual_seed(step))


def smooth(step: int) -> Tensor:
    """The same few images in training; others where `step` is that of the held-out ones."""
    coarse = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(step // 1000))
    return 4 * F.interpolate(coarse, size=24, mode="bicubic")


def fresh(step: int) -> Tensor:
    """Smooth images that are new in every step, so that none can be learned by heart."""
    return smooth(1000 * step)


def target_spread(objective: Objective, images: Tensor) -> Tensor:
    """Spread of the targets, which the method has."""
    spread = objective.target_spread(images)
    assert spread is not None
    return spread


@torch.no_grad()
def feature_spread(objective: Objective, images: Tensor) -> Tensor:
    """Spread of the encoder's averaged features."""
    return health_metrics(objective.target_encoder(images))["health/std"]


def spread_kept(
    settings: Any,
    images: Callable[[int], Tensor],
    *,
    learning_rate: float,
    momentum: float = 0.98,
    weight_decay: float = 0.04,
    read: Callable[[Objective, Tensor], Tensor] = target_spread,
    steps: int = 150,
) -> float:
    """How much of the untrained model's spread over held-out images is left after a short training."""
    optimizer = OptimizerSettings(
        learning_rate=learning_rate,
        start_learning_rate=0.0,
        warmup_fraction=0.1,
        weight_decay=weight_decay,
        final_weight_decay=weight_decay,
    )
    ema = EmaSettings(start_momentum=momentum, final_momentum=momentum)
    state = tiny_state(objective=settings, optimizer=optimizer, ema=ema, total_steps=steps)
    before = read(state.objective, images(10_000))
    for step in range(steps):
        batch = images(step)
        train_step(state, batch, method_masks(state.objective, batch=len(batch), epoch=step))
    return float(read(state.objective, images(10_000)) / before)


def test_ijepa_without_the_moving_average_gives_all_images_the_same_targets() -> None:
    settings = METHODS["ijepa"]
    assert spread_kept(settings, fresh, learning_rate=1e-3, momentum=0.0) < FLAGGED
    assert spread_kept(settings, fresh, learning_rate=1e-3, momentum=0.996) > 3 * FLAGGED


@pytest.mark.parametrize(
    "form", [{"target_norm": "none"}, {"target_layers": 2}, {"normalize_predictions": True}], ids=str
)
def test_ijepa_without_the_moving_average_collapses_in_every_form_that_keeps_the_scale_of_features(
    form: dict[str, Any],
) -> None:
    settings = IJepaSettings(**form)
    assert spread_kept(settings, unpredictable, learning_rate=1e-2, momentum=0.0, steps=60) < FLAGGED
    assert spread_kept(settings, fresh, learning_rate=1e-3, momentum=0.996, steps=60) > 3 * FLAGGED


@pytest.mark.parametrize("norm", ["batch", "instance", "tanh"])
def test_targets_that_are_scaled_anew_keep_a_spread_and_the_features_show_the_collapse(norm: Any) -> None:
    """These forms do not collapse without the moving average; an encoder that loses its weights does."""
    settings = IJepaSettings(target_norm=norm)
    kept = [
        spread_kept(
            settings,
            fresh,
            learning_rate=1e-3,
            momentum=0.9,
            weight_decay=decay,
            read=feature_spread,
            steps=60,
        )
        for decay in (300.0, 0.04)
    ]
    assert kept[0] < 0.05 < 0.5 * kept[1]


@pytest.mark.parametrize(("method", "flagged"), [("mae", 0.03), ("cae", 0.03), ("data2vec2", FLAGGED)])
def test_an_encoder_without_weights_gives_all_images_the_same_features(method: str, flagged: float) -> None:
    """0.03 is the share at which `health.min_std_fraction` stops a trial; data2vec 2.0 stays above that."""
    kept = [
        spread_kept(METHODS[method], fresh, learning_rate=1e-3, weight_decay=decay, read=feature_spread)
        for decay in (300.0, 0.04)
    ]
    assert kept[0] < flagged < 0.5 * kept[1]


def test_data2vec_without_the_moving_average_gives_all_images_the_same_targets() -> None:
    settings = METHODS["data2vec"]
    assert spread_kept(settings, unpredictable, learning_rate=1e-2, momentum=0.0) < FLAGGED
    assert spread_kept(settings, smooth, learning_rate=1e-3) > FLAGGED


def test_vicreg_without_its_variance_term_gives_all_images_one_embedding() -> None:
    settings = METHODS["vicreg"]
    assert spread_kept(replace(settings, variance_weight=0.0), smooth, learning_rate=3e-3) < FLAGGED
    assert spread_kept(settings, smooth, learning_rate=3e-3) > FLAGGED


def test_dino_without_centring_gives_all_images_one_prototype() -> None:
    settings = replace(SHARP_DINO, center_targets=False)
    assert spread_kept(settings, smooth, learning_rate=3e-4) < FLAGGED
    assert spread_kept(SHARP_DINO, smooth, learning_rate=3e-4) > FLAGGED


@pytest.mark.parametrize("method", ["mae", "cae"])
def test_methods_whose_targets_are_pixels_have_no_spread_of_targets(method: str) -> None:
    assert tiny_state(objective=METHODS[method]).objective.target_spread(smooth(0)) is None


def test_spread_and_information_are_what_loops_over_images_give() -> None:
    tokens = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_hand = sum(
        float(((tokens[:, place, k] - tokens[:, place, k].mean()) ** 2).mean())
        for place in range(3)
        for k in range(4)
    )
    assert spread_over_images(tokens).item() == pytest.approx(by_hand / 12, rel=1e-5)
    assert assignment_information(torch.eye(4)).item() == pytest.approx(1.0)
    assert assignment_information(torch.full((4, 4), 0.25)).item() == pytest.approx(0.0, abs=1e-6)
    assert assignment_information(torch.eye(4)[torch.zeros(4, dtype=torch.long)]).item() == pytest.approx(0.0)
