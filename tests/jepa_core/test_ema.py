"""The momentum of the target encoder, as such and as a share of the run, and how far it makes the encoder lag."""

from __future__ import annotations

import pytest
import torch
from core_models import tiny_images, tiny_masks, tiny_state
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_core.ema import EmaSettings
from jepa_core.step import rates_at, train_step


def naive_lag(ema: EmaSettings, total_steps: int, stretch: float) -> float:
    """The share of each step's weights in the target encoder, times their age."""
    shares = {0: 1.0}
    for step in range(total_steps):
        momentum = ema.momentum_at(step, total_steps, schedule_stretch=stretch)
        shares = {at: momentum * share for at, share in shares.items()}
        shares[step + 1] = 1 - momentum
    assert sum(shares.values()) == pytest.approx(1)
    return sum(share * (total_steps - at) for at, share in shares.items())


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 60), st.sampled_from([1.0, 1.25]))
def test_the_lag_is_the_mean_age_of_the_weights(
    start: float, final: float, total_steps: int, stretch: float
) -> None:
    ema = EmaSettings(start_momentum=start, final_momentum=final)
    found = ema.lag_at_end(total_steps, schedule_stretch=stretch)
    assert found == pytest.approx(naive_lag(ema, total_steps, stretch), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("ema", "total_steps", "share"),
    [
        (EmaSettings(), 1562, 0.494),
        (EmaSettings(start_momentum=0.99), 1562, 0.316),
        (EmaSettings(), 187_500, 0.0458),
        (EmaSettings(start_momentum=1.0), 1562, 1.0),
        (EmaSettings(start_momentum=0.0, final_momentum=0.0), 1562, 0.0),
    ],
)
def test_the_published_momentum_lags_by_half_of_a_short_run_and_by_little_of_a_long_one(
    ema: EmaSettings, total_steps: int, share: float
) -> None:
    assert ema.lag_at_end(total_steps) / total_steps == pytest.approx(share, rel=2e-3)


@pytest.mark.parametrize("total_steps", [100, 1000, 100_000])
def test_a_window_is_the_same_share_of_every_run(total_steps: int) -> None:
    constant = EmaSettings(window=0.05)
    assert constant.lag_at_end(total_steps) / total_steps == pytest.approx(0.05, rel=0.25)
    assert constant.momentum_at(0, total_steps) == constant.momentum_at(total_steps, total_steps)
    rising = EmaSettings(start_window=0.01, window=0.05)
    assert rising.momentum_at(0, total_steps) == pytest.approx(max(0, 1 - 1 / (0.01 * total_steps)))
    assert rising.momentum_at(total_steps, total_steps) == pytest.approx(1 - 1 / (0.05 * total_steps))


def test_a_step_moves_the_target_encoder_towards_the_weights_that_the_optimizer_has_just_written() -> None:
    state = tiny_state(ema=EmaSettings(start_momentum=0.6, final_momentum=0.9), total_steps=10)
    train_step(state, tiny_images(), tiny_masks())
    target, context = state.objective.target_encoder, state.objective.context_encoder
    before = [weight.clone() for weight in target.parameters()]
    momentum = rates_at(state, 1)["train/momentum"]
    train_step(state, tiny_images(), tiny_masks())
    for old, found, source in zip(before, target.parameters(), context.parameters(), strict=True):
        torch.testing.assert_close(found, momentum * old + (1 - momentum) * source)
    assert 0.6 < momentum < 0.9


def test_a_window_of_less_than_a_step_follows_at_once() -> None:
    state = tiny_state(ema=EmaSettings(window=0.05), total_steps=10)
    assert rates_at(state, 0)["train/momentum"] == 0
    train_step(state, tiny_images(), tiny_masks())
    pairs = zip(
        state.objective.target_encoder.parameters(), state.objective.context_encoder.parameters(), strict=True
    )
    assert all(torch.equal(target, source) for target, source in pairs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window": 0.0}, "window must be above 0"),
        ({"window": 1.5}, "window must be above 0 and at most 1"),
        ({"start_window": 0.1}, "start_window needs window"),
        ({"window": 0.1, "final_momentum": 0.999}, "final_momentum is not read where window is set"),
        ({"window": 0.1, "start_momentum": 0.9}, "start_momentum is not read where window is set"),
    ],
)
def test_windows_without_meaning_and_beside_momenta_are_refused(
    changes: dict[str, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        EmaSettings(**changes)
