from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from core_models import ENCODER, padded, tiny_images, tiny_masks, tiny_state
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_core.encoder import build_encoder
from jepa_core.optim import OptimizerSettings
from jepa_core.predictor import PredictorSettings
from jepa_core.step import TrainState, prepare_images, train_step


def train(state: TrainState, steps: range, model: torch.nn.Module | None = None) -> list[float]:
    return [
        train_step(state, tiny_images(seed=step), padded(tiny_masks(seed=step), target=2), model=model)[
            "train/loss"
        ].item()
        for step in steps
    ]


def weights(state: TrainState) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.state_dict()["tensors"].items()}


def gradient_of(state: TrainState) -> Tensor:
    return torch.cat(
        [value.grad.flatten() for value in state.objective.parameters() if value.grad is not None]
    )


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_weights_are_a_function_of_the_seed_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = tiny_state(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert_same(weights(tiny_state(seed=3)), weights(first))
    other = weights(tiny_state(seed=4))
    assert not torch.equal(
        other["objective/predictor.mask_token"], weights(first)["objective/predictor.mask_token"]
    )


def test_a_step_neither_reads_nor_changes_the_global_state() -> None:
    states = [tiny_state(), tiny_state()]
    for seed, state in enumerate(states):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        train(state, range(2))
        assert torch.equal(torch.get_rng_state(), before)
    assert_same(weights(states[1]), weights(states[0]))


def test_the_encoder_starts_the_same_whatever_the_predictor_is() -> None:
    one, two = tiny_state(), tiny_state(predictor=PredictorSettings(width=24, depth=1, num_heads=2))
    for name, value in one.objective.context_encoder.state_dict().items():
        assert torch.equal(two.objective.context_encoder.state_dict()[name], value)
        assert torch.equal(two.objective.target_encoder.state_dict()[name], value)


def test_initial_weights_have_the_published_distribution() -> None:
    encoder = build_encoder(ENCODER)
    for name, value in encoder.named_parameters():
        if value.ndim > 1:
            assert value.std().item() == pytest.approx(0.02, rel=0.1), name
            assert abs(value.mean().item()) < 0.002, name
        else:
            assert torch.equal(
                value.detach(), torch.full_like(value, float("norm" in name and "weight" in name))
            )


def test_training_lowers_the_loss_on_one_batch() -> None:
    state = tiny_state(total_steps=60, optimizer=OptimizerSettings(learning_rate=3e-3))
    images, masks = tiny_images(), tiny_masks()
    losses = [train_step(state, images, masks)["train/loss"].item() for _ in range(40)]
    assert losses[-1] < 0.6 * losses[0]
    assert state.step == 40


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    straight = tiny_state()
    train(straight, range(2))
    saved = straight.state_dict()
    saved = {"tensors": weights(straight), "meta": json.loads(json.dumps(saved["meta"]))}
    resumed = tiny_state(seed=99)
    resumed.load_state_dict(saved)
    assert resumed.step == 2
    assert train(resumed, range(2, 6)) == train(straight, range(2, 6))
    assert_same(weights(resumed), weights(straight))


def test_loading_copies_what_it_is_given() -> None:
    state = tiny_state()
    train(state, range(1))
    saved = {"tensors": weights(state), "meta": state.state_dict()["meta"]}
    kept = {name: value.clone() for name, value in saved["tensors"].items()}
    other = tiny_state()
    other.load_state_dict(saved)
    train(other, range(1, 3))
    assert_same(saved["tensors"], kept)


def test_an_untrained_state_can_be_saved_and_loaded_over_a_trained_one() -> None:
    fresh, used = tiny_state(), tiny_state()
    saved = {"tensors": weights(fresh), "meta": fresh.state_dict()["meta"]}
    train(used, range(3))
    used.load_state_dict(saved)
    assert train(used, range(2)) == train(fresh, range(2))


def test_a_state_of_another_model_or_length_is_refused() -> None:
    state = tiny_state()
    train(state, range(1))
    saved = state.state_dict()
    with pytest.raises(ValueError, match="another model"):
        tiny_state(predictor=PredictorSettings(width=24, depth=2, num_heads=2)).load_state_dict(saved)
    with pytest.raises(ValueError, match="10 steps"):
        tiny_state(total_steps=11).load_state_dict(saved)
    missing = {
        key: value for key, value in saved["tensors"].items() if "exp_avg_sq/predictor.norm" not in key
    }
    with pytest.raises(ValueError, match="incomplete"):
        tiny_state().load_state_dict(saved | {"tensors": missing})


def test_metrics_are_the_scheduled_values_and_scalars() -> None:
    state = tiny_state(optimizer=OptimizerSettings(warmup_fraction=0.5))
    metrics = train_step(state, tiny_images(), tiny_masks())
    assert metrics.keys() == {"train/loss", "train/learning_rate", "train/weight_decay", "train/momentum"}
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    assert metrics["train/learning_rate"].item() == pytest.approx(2e-4 + (1e-3 - 2e-4) / 5)
    assert metrics["train/momentum"].item() == pytest.approx(0.9)


def test_clipping_bounds_the_gradient_and_reports_its_norm() -> None:
    free, clipped = tiny_state(), tiny_state(optimizer=OptimizerSettings(gradient_clip_norm=1e-3))
    free.objective(tiny_images(), tiny_masks()).backward()
    expected = gradient_of(free).norm().item()
    seen: list[float] = []
    clipped.optimizer.register_step_pre_hook(lambda *_: seen.append(gradient_of(clipped).norm().item()))
    metrics = train_step(clipped, tiny_images(), tiny_masks())
    assert metrics["train/gradient_norm"].item() == pytest.approx(expected, rel=1e-5)
    assert seen == [pytest.approx(1e-3, rel=1e-2)]


def test_bfloat16_stays_near_float32() -> None:
    """The loss within 0.5 per cent, the whole gradient within 3 per cent of its length; weights stay float32."""
    images, masks = tiny_images(), tiny_masks()
    losses, gradients = [], []
    for precision in ("float32", "bfloat16"):
        state = tiny_state(precision=precision)
        state.optimizer.register_step_pre_hook(lambda *_, state=state: gradients.append(gradient_of(state)))
        losses.append(train_step(state, images, masks)["train/loss"].item())
        assert {value.dtype for value in state.objective.parameters()} == {torch.float32}
    assert losses[1] == pytest.approx(losses[0], rel=0.005)
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert 0 < difference.item() < 0.03


class HostReads(TorchDispatchMode):
    """Counts the operations that must wait for a device to give the host a value or a shape."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.found += [name] if name.startswith(self.names) else []
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_gives_the_host_nothing_to_wait_for(precision: str) -> None:
    state = tiny_state(precision=precision, optimizer=OptimizerSettings(gradient_clip_norm=1.0))
    masks = padded(tiny_masks(contexts=2), context=2, target=2)
    with HostReads() as reads:
        loss = train_step(state, tiny_images(), masks)["train/loss"]
        assert reads.found == []
        loss.item()
    assert reads.found == ["_local_scalar_dense"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_does_not_wait_and_agrees_with_the_cpu() -> None:
    settings = {"optimizer": OptimizerSettings(gradient_clip_norm=1.0)}
    here, there = tiny_state(**settings), tiny_state(**settings, device="cuda")
    images, masks = tiny_images(), padded(tiny_masks(contexts=2), context=2, target=2)
    expected = [train_step(here, images, masks)["train/loss"].item() for _ in range(3)]
    images, masks = images.cuda(), masks.to("cuda")
    losses = [train_step(there, images, masks)["train/loss"]]
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses += [train_step(there, images, masks)["train/loss"] for _ in range(2)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [loss.item() for loss in losses] == pytest.approx(expected, rel=1e-3)


def test_data_parallel_wrapping_changes_nothing(tmp_path: Path) -> None:
    plain, wrapped = tiny_state(), tiny_state()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(wrapped.objective, broadcast_buffers=False)
        assert train(wrapped, range(4), model) == train(plain, range(4))
    finally:
        dist.destroy_process_group()
    assert_same(weights(wrapped), weights(plain))


def test_images_are_normalised_as_channels_say() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    found = prepare_images(images, mean, std, "cpu")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    channels_last = prepare_images(images.contiguous(memory_format=torch.channels_last), mean, std, "cpu")
    assert torch.equal(channels_last, found)
    assert channels_last.is_contiguous()


def test_settings_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="predictor width 20"):
        tiny_state(predictor=PredictorSettings(width=20), encoder=replace(ENCODER, num_heads=8))
    with pytest.raises(ValueError, match="total_steps"):
        tiny_state(total_steps=0)
