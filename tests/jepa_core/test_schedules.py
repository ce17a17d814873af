from __future__ import annotations

import math

import pytest
import torch
from core_models import tiny_state
from hypothesis import given
from hypothesis import strategies as st

from jepa_core.optim import OptimizerSettings, build_optimizer, check_groups, set_rates
from jepa_core.schedules import cosine, linear, warmup_cosine, whole_steps


def naive_warmup_cosine(
    steps: int, warmup: int, total: int, start: float, peak: float, final: float
) -> list[float]:
    """The counter is advanced before each use, as in the published implementation."""
    values = []
    for counter in range(1, steps + 1):
        if counter < warmup:
            values.append(start + counter * (peak - start) / warmup)
        else:
            angle = math.pi * (counter - warmup) / (total - warmup)
            values.append(final + (peak - final) * (1 + math.cos(angle)) / 2)
    return values


@given(st.integers(0, 20), st.integers(1, 60), st.floats(0, 1), st.floats(0.001, 1), st.floats(0, 1))
def test_learning_rate_equals_the_loop(
    warmup: int, decay: int, start: float, peak: float, final: float
) -> None:
    total = warmup + decay
    expected = naive_warmup_cosine(total, warmup, total, start, peak, final)
    found = [
        warmup_cosine(step, start=start, peak=peak, final=final, warmup_steps=warmup, total_steps=total)
        for step in range(total)
    ]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert found[-1] == pytest.approx(final, abs=1e-12)


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1))
def test_weight_decay_equals_the_loop_and_momentum_is_a_straight_line(
    total: int, start: float, final: float
) -> None:
    expected = naive_warmup_cosine(total, 0, total, 0.0, start, final)
    found = [cosine(step, start=start, final=final, total_steps=total) for step in range(total)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)
    momentum, value = [], start
    for _ in range(total):
        momentum.append(value)
        value += (final - start) / total
    line = [linear(step, start=start, final=final, total_steps=total) for step in range(total)]
    assert line == pytest.approx(momentum, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("step", [10, 11, 500])
def test_beyond_the_last_step_every_schedule_stays_at_its_end(step: int) -> None:
    assert warmup_cosine(step, start=0.1, peak=1.0, final=0.2, warmup_steps=3, total_steps=10) == 0.2
    assert cosine(step, start=1.0, final=0.2, total_steps=10) == 0.2
    assert linear(step, start=1.0, final=0.2, total_steps=10) == 0.2


def test_a_stretched_run_ends_before_its_schedules_do() -> None:
    plain, stretched = OptimizerSettings(), OptimizerSettings(schedule_stretch=1.25)
    for step in range(20):
        assert stretched.weight_decay_at(step, 80) == plain.weight_decay_at(step, 100)
    assert stretched.learning_rate_at(79, 80) > plain.learning_rate_at(79, 80)


@pytest.mark.parametrize(
    ("fraction", "total", "steps"),
    [(0.15, 10, 1), (0.19, 10, 1), (0.0, 10, 0), (1.15, 100, 115), (40 / 300, 30_000, 4000), (1.25, 3, 3)],
)
def test_a_share_of_a_run_is_cut_to_whole_steps_but_not_by_rounding(
    fraction: float, total: int, steps: int
) -> None:
    assert whole_steps(fraction, total) == steps


def test_a_warm_up_and_schedules_of_a_fraction_of_a_step_end_at_the_whole_one_before() -> None:
    """The warm-up of 1.9 steps is one, so that the first step is at the peak; a stretch to 12.5 steps ends at 12."""
    short = OptimizerSettings(start_learning_rate=0.0, warmup_fraction=0.19)
    assert short.learning_rate_at(0, 10) == short.learning_rate
    stretched = OptimizerSettings(schedule_stretch=1.25)
    assert stretched.weight_decay_at(11, 10) == stretched.final_weight_decay
    assert stretched.weight_decay_at(10, 10) < stretched.final_weight_decay


def test_published_figures_of_the_first_epochs() -> None:
    """300 epochs of 100 steps, 40 of them warm-up from 2e-4 to 1e-3."""
    settings = OptimizerSettings()
    assert settings.learning_rate_at(1999, 30_000) == pytest.approx(6e-4)
    assert settings.learning_rate_at(3999, 30_000) == pytest.approx(1e-3)
    assert settings.learning_rate_at(29_999, 30_000) == pytest.approx(1e-6)
    assert settings.weight_decay_at(14_999, 30_000) == pytest.approx(0.22)


def test_biases_and_vectors_are_not_decayed_and_everything_else_is() -> None:
    state = tiny_state()
    names = {value: name for name, value in state.objective.named_parameters()}
    groups = {group["decayed"]: {names[p] for p in group["params"]} for group in state.optimizer.param_groups}
    assert "predictor.mask_token" in groups[True]
    assert "context_encoder.patch_embed.proj.weight" in groups[True]
    ends = ("bias", "norm.weight", "norm1.weight", "norm2.weight")
    assert groups[False] == {name for name in groups[True] | groups[False] if name.endswith(ends)}
    set_rates(state.optimizer, learning_rate=0.5, weight_decay=0.3)
    assert [(g["lr"], g["weight_decay"]) for g in state.optimizer.param_groups] == [(0.5, 0.3), (0.5, 0.0)]


def test_groups_that_miss_repeat_or_invent_a_parameter_are_refused() -> None:
    model = torch.nn.Linear(2, 2)
    check_groups(model, [[model.weight], [model.bias]])
    stranger = torch.nn.Parameter(torch.zeros(1))
    for groups in (
        [[model.weight]],
        [[model.weight, model.bias], [model.bias]],
        [[*model.parameters(), stranger]],
    ):
        with pytest.raises(ValueError, match="one group"):
            check_groups(model, groups)
    model.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="one group"):
        check_groups(model, [[model.weight, model.bias]])


def test_adamw_equals_its_formula() -> None:
    model = torch.nn.Linear(3, 2).double()
    settings = OptimizerSettings(betas=(0.8, 0.9), epsilon=1e-6)
    optimizer = build_optimizer(model, settings)
    weight = model.weight.detach().clone()
    first = second = torch.zeros_like(weight)
    for step in range(1, 4):
        gradient = torch.full_like(weight, 0.1 * step)
        set_rates(optimizer, learning_rate=0.01 * step, weight_decay=0.2)
        model.weight.grad, model.bias.grad = gradient.clone(), torch.zeros_like(model.bias)
        optimizer.step()
        first, second = 0.8 * first + 0.2 * gradient, 0.9 * second + 0.1 * gradient**2
        weight = weight * (1 - 0.01 * step * 0.2)
        weight -= 0.01 * step * (first / (1 - 0.8**step)) / ((second / (1 - 0.9**step)).sqrt() + 1e-6)
    torch.testing.assert_close(model.weight.detach(), weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": 0.0}, {"warmup_fraction": 1.5}, {"betas": (0.9, 1.0)}, {"gradient_clip_norm": -1.0}],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        OptimizerSettings(**changes)  # type: ignore[arg-type]
