from __future__ import annotations

from typing import Any

import pytest
import torch
from core_models import padded, tiny_images, tiny_masks, tiny_state
from torch import Tensor

from jepa_core.attention import choose_attention
from jepa_core.execution import ExecutionSettings, micro_batches, pad_masks
from jepa_core.masks import MaskBatch
from jepa_core.optim import OptimizerSettings
from jepa_core.predictor import PredictorSettings
from jepa_core.step import TrainState, train_step

quiet_tracing = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


def ragged_masks() -> MaskBatch:
    """Masks whose images have different numbers of valid targets."""
    masks = tiny_masks(contexts=2, blocks=2)
    valid = torch.arange(5) < torch.tensor([[5, 2, 4], [1, 5, 3]])[..., None]
    return MaskBatch(masks.context_indices_CBK, masks.target_indices_MBT, None, valid)


def trained(masks: MaskBatch, *, context: str = "repeated", **execution: Any) -> tuple[list[float], Tensor]:
    """Losses of two steps in float64, and all weights after them."""
    state: TrainState = tiny_state(
        precision="float64",
        predictor=PredictorSettings(width=16, depth=2, num_heads=2, context=context),
        optimizer=OptimizerSettings(gradient_clip_norm=1.0),
        execution=ExecutionSettings(**execution),
    )
    images = tiny_images(dtype=torch.float64)
    losses = [train_step(state, images, masks)["train/loss"].item() for _ in range(2)]
    return losses, torch.cat([value.detach().flatten() for value in state.objective.parameters()])


@quiet_tracing
@pytest.mark.parametrize("context", ["repeated", "shared"])
@pytest.mark.parametrize(
    "execution",
    [
        {"accumulation_steps": 2},
        {"accumulation_steps": 7},
        {"activation_checkpointing": True},
        {"pad_tokens_to": 4},
        {"attention": "written_out"},
        {"optimizer": "foreach"},
        {"compile": "blocks", "compile_backend": "aot_eager"},
    ],
    ids=lambda execution: "-".join(map(str, execution.items())),
)
def test_ragged_masks_train_to_the_same_weights_in_each_mode(context: str, execution: dict[str, Any]) -> None:
    losses, weights = trained(ragged_masks(), context=context)
    found_losses, found = trained(ragged_masks(), context=context, **execution)
    assert found_losses == pytest.approx(losses, rel=1e-11)
    torch.testing.assert_close(found, weights, rtol=1e-7, atol=1e-10)


def test_micro_batches_cut_the_batch_without_losing_an_image() -> None:
    images, masks = tiny_images(batch=5), padded(tiny_masks(batch=5), target=1)
    parts = micro_batches(images, masks, 3)
    assert [len(part) for part, _ in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part for part, _ in parts]), images)
    assert torch.equal(
        torch.cat([part.target_indices_MBT for _, part in parts], dim=1), masks.target_indices_MBT
    )
    assert all(part.context_valid_CBK is None for _, part in parts)


def test_padding_reaches_the_multiple_and_keeps_what_fits_as_it_is() -> None:
    masks = tiny_masks(kept=8, targets=5)
    found = pad_masks(masks, 4)
    assert found.context_indices_CBK is masks.context_indices_CBK
    assert found.context_valid_CBK is None
    assert found.target_indices_MBT.shape[-1] == 8
    assert found.target_valid_MBT is not None
    assert found.target_valid_MBT.sum(-1).unique().tolist() == [5]


@quiet_tracing
def test_changing_token_counts_stop_asking_for_new_graphs() -> None:
    """After a few counts every graph has variable sizes, and no further count is compiled."""
    torch._dynamo.reset()
    graphs: list[int] = []

    def counting(module: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(1)
        return module.forward

    torch._dynamo.register_backend(counting)
    execution = ExecutionSettings(compile="blocks", compile_backend="counting")
    state, seen = tiny_state(execution=execution, total_steps=20), []
    for kept, targets in [(7, 5), (9, 4), (6, 6), (8, 3), (11, 7), (5, 9)]:
        train_step(state, tiny_images(), tiny_masks(kept=kept, targets=targets))
        seen.append(len(graphs))
    assert seen[0] > 0
    assert seen[2:] == [seen[2]] * 4
    torch._dynamo.reset()


def test_checkpointing_keeps_fewer_activations() -> None:
    def saved_bytes(**execution: Any) -> int:
        state, total = tiny_state(execution=ExecutionSettings(**execution)), [0]

        def pack(tensor: Tensor) -> Tensor:
            total[0] += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            state.objective(tiny_images(), tiny_masks())
        return total[0]

    assert saved_bytes(activation_checkpointing=True) < 0.5 * saved_bytes()


@pytest.mark.parametrize(
    ("kernel", "head", "low_precision", "fused"),
    [
        ("auto", 16, False, True),
        ("auto", 8, False, False),
        ("auto", 16, True, False),
        ("fused", 8, True, True),
        ("written_out", 16, False, False),
    ],
)
def test_a_cpu_fuses_attention_where_that_is_faster_or_asked_for(
    kernel: str, head: int, low_precision: bool, fused: bool
) -> None:
    module = tiny_state(predictor=PredictorSettings(width=2 * head, num_heads=2, depth=1)).objective.predictor
    choose_attention(module, "cpu", low_precision=low_precision, kernel=kernel)
    assert module.blocks[0].attn.fused_attn is fused


@pytest.mark.parametrize("key", ["accumulation_steps", "pad_tokens_to"])
def test_a_count_below_one_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} must be at least 1, not 0"):
        ExecutionSettings(**{key: 0})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compile_blocks", ["off", "blocks"])
def test_a_gpu_in_bfloat16_stays_near_the_cpu_in_float32(compile_blocks: str) -> None:
    execution = ExecutionSettings(compile=compile_blocks)
    here, there = tiny_state(), tiny_state(precision="bfloat16", device="cuda", execution=execution)
    images, masks = tiny_images(), padded(tiny_masks(contexts=2), context=2, target=2)
    expected = [train_step(here, images, masks)["train/loss"].item() for _ in range(3)]
    found = [train_step(there, images.cuda(), masks.to("cuda"))["train/loss"].item() for _ in range(3)]
    assert found == pytest.approx(expected, rel=0.02)
