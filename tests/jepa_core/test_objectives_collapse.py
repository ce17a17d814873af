"""Collapse provoked on purpose shows in the health metrics, and not in the same run without the provocation.

MAE and CAE are left out: their targets are the own pixels of the image, which no model changes, so that features which
say nothing of the image cost the whole variance of the pixels. So is data2vec 2.0: its targets have variance 1 over the
patches of every image, and no setting that was tried, the teacher's average switched off among them, made them agree.
I-JEPA's fall to 0.03 on these few images with the average too, which tells nothing.
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
from jepa_core.health import assignment_information, spread_over_images
from jepa_core.objectives import DinoSettings
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


def spread_kept(
    settings: Any, images: Callable[[int], Tensor], *, learning_rate: float, momentum: float = 0.98
) -> float:
    """How much of the untrained model's spread of targets over held-out images is left after a short training."""
    optimizer = OptimizerSettings(
        learning_rate=learning_rate, start_learning_rate=0.0, warmup_fraction=0.1, final_weight_decay=0.04
    )
    ema = EmaSettings(start_momentum=momentum, final_momentum=momentum)
    state = tiny_state(objective=settings, optimizer=optimizer, ema=ema, total_steps=150)
    before = state.objective.target_spread(images(10_000))
    assert before is not None
    for step in range(150):
        batch = images(step)
        train_step(state, batch, method_masks(state.objective, batch=len(batch), epoch=step))
    after = state.objective.target_spread(images(10_000))
    assert after is not None
    return float(after / before)


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
def test_methods_whose_targets_are_pixels_have_nothing_to_collapse(method: str) -> None:
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
