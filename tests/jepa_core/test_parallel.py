"""Two processes on one batch against one process: DDP and FSDP2 over gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from core_models import tiny_images, tiny_masks, tiny_state
from torch import Tensor

from jepa_core.execution import ExecutionSettings, micro_batches
from jepa_core.masks import MaskBatch
from jepa_core.optim import OptimizerSettings
from jepa_core.parallel import gathered, wrap
from jepa_core.step import TrainState, train_step

NUM_RANKS = 2
STEPS = 3


def new_state(execution: ExecutionSettings, *, distributed: bool) -> TrainState:
    return tiny_state(
        precision="float64",
        optimizer=OptimizerSettings(gradient_clip_norm=0.1),
        execution=execution,
        distributed=distributed,
    )


def train(state: TrainState, steps: range, *, rank: int | None = None, unlike: bool = False) -> list[float]:
    """The losses of a rank's half of each batch, or of the whole batch; `unlike` halves keep unlike contexts."""
    model, losses = None if rank is None else wrap(state.objective), []
    for step in steps:
        images, whole = tiny_images(seed=step, batch=4, dtype=torch.float64), tiny_masks(seed=step, batch=4)
        shares = [masks for _, masks in micro_batches(images, whole, NUM_RANKS)]
        if unlike:
            shares[1] = tiny_masks(seed=100 + step, batch=2, kept=9)
        masks: MaskBatch | list[MaskBatch] = shares if unlike else whole
        if rank is not None:
            images, masks = images.tensor_split(NUM_RANKS)[rank], shares[rank]
        losses.append(train_step(state, images, masks, model=model)["train/loss"].item())
    return losses


@torch.no_grad()
def infer(state: TrainState, rank: int) -> Tensor:
    """Run the target encoder unequally often."""
    with gathered(state.objective):
        for _ in range(1 + rank):
            features: Tensor = state.objective.target_encoder(tiny_images(dtype=torch.float64))
    return features


def run_rank(rank: int, folder: str, settings: dict[str, Any], unlike: bool) -> None:
    """One of the processes: train, save, go on from the saved state, with inference before and after."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=NUM_RANKS)
    execution = ExecutionSettings(**settings)
    first = new_state(execution, distributed=True)
    losses = train(first, range(1), rank=rank, unlike=unlike)
    saved = {"tensors": {k: v.clone() for k, v in first.state_dict()["tensors"].items()}}
    saved["meta"] = first.state_dict()["meta"]
    state = new_state(execution, distributed=True)
    state.load_state_dict(saved)
    infer(state, rank)
    losses += train(state, range(1, STEPS), rank=rank, unlike=unlike)
    features = infer(state, rank)
    tensors = state.state_dict()["tensors"]
    torch.save({"losses": losses, "features": features, **tensors}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("settings", "unlike"),
    [
        ({"parallel": "ddp", "accumulation_steps": 2}, False),
        ({"parallel": "fsdp", "accumulation_steps": 2, "activation_checkpointing": True}, False),
        ({"parallel": "ddp", "accumulation_steps": 2}, True),
    ],
    ids=["ddp", "fsdp", "unlike shares"],
)
def test_two_processes_train_to_the_weights_of_one(
    tmp_path: Path, settings: dict[str, Any], unlike: bool
) -> None:
    alone = new_state(ExecutionSettings(), distributed=False)
    expected = train(alone, range(STEPS), unlike=unlike)
    mp.spawn(run_rank, args=(str(tmp_path), settings, unlike), nprocs=NUM_RANKS)
    ranks: list[dict[str, Any]] = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(NUM_RANKS)]
    means = [sum(pair) / NUM_RANKS for pair in zip(*(found.pop("losses") for found in ranks), strict=True)]
    assert means == pytest.approx(expected, rel=1e-10)
    weights: dict[str, Tensor] = alone.state_dict()["tensors"]
    with torch.no_grad():
        weights["features"] = alone.objective.target_encoder(tiny_images(dtype=torch.float64))
    for found in ranks:
        assert found.keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-9, msg=name)
