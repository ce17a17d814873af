from __future__ import annotations

import time

import pytest
import torch
from core_models import tiny_images, tiny_masks, tiny_state

from jepa_core.phases import PHASES, PhaseTimer
from jepa_core.step import train_step


def test_a_step_counts_every_phase_and_nothing_else() -> None:
    state, timer = tiny_state(), PhaseTimer("cpu")
    timer.attach(state.objective)
    started = time.perf_counter()
    for seed in range(2):
        train_step(state, tiny_images(seed=seed), tiny_masks(seed=seed), timer=timer)
    elapsed = time.perf_counter() - started
    found = timer.drain()
    assert set(found) == set(PHASES)
    assert all(seconds > 0 for seconds in found.values())
    assert sum(found.values()) <= elapsed


def test_draining_starts_anew() -> None:
    timer = PhaseTimer("cpu")
    with timer.phase("target"):
        pass
    assert list(timer.drain()) == ["target"]
    assert timer.drain() == {}


def test_features_for_probes_and_calls_after_detaching_are_not_counted() -> None:
    state, timer = tiny_state(), PhaseTimer("cpu")
    timer.attach(state.objective)
    state.objective.target_encoder.eval()(tiny_images())
    assert timer.drain() == {}
    state.objective.target_encoder.train()
    timer.detach()
    state.objective(tiny_images(), tiny_masks())
    assert timer.drain() == {}


def test_a_phase_that_fails_is_counted_and_the_error_passes() -> None:
    timer = PhaseTimer("cpu")
    with pytest.raises(RuntimeError, match="inside"), timer.phase("backward"):
        raise RuntimeError("inside")
    assert list(timer.drain()) == ["backward"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_timed_by_its_own_clock_without_waiting() -> None:
    state, timer = tiny_state(device="cuda"), PhaseTimer("cuda")
    timer.attach(state.objective)
    images, masks = tiny_images().cuda(), tiny_masks().to("cuda")
    train_step(state, images, masks, timer=timer)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(state, images, masks, timer=timer)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert set(timer.drain()) == set(PHASES)
