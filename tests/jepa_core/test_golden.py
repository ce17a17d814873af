"""The method against numbers that the published implementation computed in float64; see tests/golden/README.md."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa_core.ema import EmaSettings
from jepa_core.encoder import EncoderSettings
from jepa_core.execution import ExecutionSettings
from jepa_core.interop import from_reference
from jepa_core.masks import MaskBatch
from jepa_core.objectives import IJepaSettings
from jepa_core.optim import OptimizerSettings
from jepa_core.predictor import PredictorSettings
from jepa_core.step import TrainState, create_state, train_step

RELATIVE = 1e-9
PARTS = {"encoder": "context_encoder", "predictor": "predictor", "target_encoder": "target_encoder"}


def golden_files() -> list[Path]:
    folders = [Path(__file__).parent.parent / "golden"]
    extra = os.environ.get("ORCHESTRATOR_GOLDEN_DIR")
    folders += [Path(extra)] if extra else []
    return [path for folder in folders for path in sorted(folder.glob("*.npz"))]


@cache
def load(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(bytes(arrays.pop("meta"))), arrays


def new_state(
    meta: dict[str, Any], arrays: dict[str, np.ndarray], execution: ExecutionSettings | None = None
) -> TrainState:
    encoder, predictor, optimizer = meta["encoder"], meta["predictor"], meta["optimizer"]
    state = create_state(
        encoder=EncoderSettings(
            name="vit_tiny_patch16_224",
            image_size_px=meta["image_size"],
            patch_size_px=meta["patch_size"],
            width=encoder["width"],
            depth=encoder["depth"],
            num_heads=encoder["heads"],
        ),
        predictor=PredictorSettings(
            width=predictor["width"], depth=predictor["depth"], num_heads=predictor["heads"]
        ),
        objective=IJepaSettings(),
        optimizer=OptimizerSettings(
            learning_rate=optimizer["ref_lr"],
            start_learning_rate=optimizer["start_lr"],
            final_learning_rate=optimizer["final_lr"],
            warmup_fraction=optimizer["warmup"] / optimizer["num_epochs"],
            weight_decay=optimizer["wd"],
            final_weight_decay=optimizer["final_wd"],
            betas=tuple(optimizer["betas"]),
            epsilon=optimizer["eps"],
            schedule_stretch=optimizer["ipe_scale"],
        ),
        ema=EmaSettings(start_momentum=meta["ema"][0], final_momentum=meta["ema"][1]),
        total_steps=optimizer["iterations_per_epoch"] * optimizer["num_epochs"],
        seed=0,
        precision="float64",
        execution=execution,
    )
    for part, name in PARTS.items():
        getattr(state.objective, name).load_state_dict(ours(arrays, f"init/{part}/", part), strict=True)
    return state


def ours(arrays: dict[str, np.ndarray], prefix: str, part: str) -> dict[str, Tensor]:
    found = {
        name.removeprefix(prefix): torch.from_numpy(value).double()
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
    return from_reference(part, found)


def batch(arrays: dict[str, np.ndarray], step: int) -> tuple[Tensor, MaskBatch]:
    def blocks(kind: str) -> Tensor:
        names = sorted(
            (name for name in arrays if name.startswith(f"step{step}/{kind}_indices")),
            key=lambda name: int(name.rpartition("indices")[2]),
        )
        return torch.stack([torch.from_numpy(arrays[name]) for name in names])

    masks = MaskBatch(context_indices_CBK=blocks("context"), target_indices_MBT=blocks("target"))
    return torch.from_numpy(arrays[f"step{step}/images"]).double(), masks


def assert_close(found: Tensor, expected: Tensor | np.ndarray, what: str) -> None:
    """Every element to 1e-9 of the tensor's largest one: elements near zero are differences of larger numbers."""
    expected = torch.as_tensor(expected)
    assert found.shape == expected.shape, what
    scale = expected.abs().max().clamp_min(1e-12)
    worst = ((found - expected).abs().max() / scale).item()
    assert worst <= RELATIVE, f"{what}: relative difference {worst:.2e}"


EXACT_MODES = {
    "default": {},
    "fused-attention": {"attention": "fused"},
    "written-out-attention": {"attention": "written_out"},
    "loop-optimizer": {"optimizer": "loop"},
    "foreach-optimizer": {"optimizer": "foreach"},
    "accumulation": {"accumulation_steps": 2},
    "checkpointing": {"activation_checkpointing": True},
    "padded-tokens": {"pad_tokens_to": 8},
    "captured-graph": {"compile": "blocks", "compile_backend": "aot_eager"},
}
ALL_AT_ONCE = ExecutionSettings(
    compile="blocks",
    compile_backend="aot_eager",
    activation_checkpointing=True,
    accumulation_steps=2,
    pad_tokens_to=16,
    attention="written_out",
)
modes = pytest.mark.parametrize(
    "mode",
    [
        *(pytest.param(ExecutionSettings(**mode), id=name) for name, mode in EXACT_MODES.items()),
        pytest.param(ExecutionSettings(compile="blocks"), id="compiled", marks=pytest.mark.slow),
        pytest.param(ALL_AT_ONCE, id="all-at-once", marks=pytest.mark.slow),
    ],
)
golden = pytest.mark.parametrize("path", golden_files(), ids=lambda path: path.stem)


def test_there_is_a_golden_file() -> None:
    assert golden_files()


@golden
def test_targets_and_predictions_are_the_published_ones(path: Path) -> None:
    meta, arrays = load(path)
    state = new_state(meta, arrays)
    images, masks = batch(arrays, 0)
    found, expected = state.objective.targets(images, masks), arrays["step0/targets"]
    if len(found) != len(expected):  # stored once for all context blocks
        found = found.unflatten(0, (-1, len(masks.context_indices_CBK), len(images)))[:, 0].flatten(0, 1)
    assert_close(found, expected, "targets")
    assert_close(
        state.objective.predictions(images, masks).detach(), arrays["step0/predictions"], "predictions"
    )


@golden
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "written-out"])
def test_every_gradient_of_the_first_step_is_the_published_one(path: Path, fused: bool) -> None:
    meta, arrays = load(path)
    state = new_state(meta, arrays)
    for module in PARTS.values():
        for block in getattr(state.objective, module).blocks:
            block.attn.fused_attn = fused
    state.objective(*batch(arrays, 0)).backward()
    for part in ("encoder", "predictor"):
        expected = ours(arrays, f"step0/grad/{part}/", part)
        found = dict(getattr(state.objective, PARTS[part]).named_parameters())
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert_close(found[name].grad, gradient, f"{part} {name}")
    assert all(parameter.grad is None for parameter in state.objective.target_encoder.parameters())


@golden
@modes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, while it traces a block
def test_all_steps_end_with_the_published_weights(path: Path, mode: ExecutionSettings) -> None:
    meta, arrays = load(path)
    state = new_state(meta, arrays, mode)
    for step, expected in enumerate(meta["per_step"]):
        metrics = train_step(state, *batch(arrays, step))
        for ours_name, theirs in (
            ("train/loss", "loss"),
            ("train/learning_rate", "lr"),
            ("train/weight_decay", "weight_decay"),
            ("train/momentum", "momentum"),
        ):
            assert metrics[ours_name].item() == pytest.approx(expected[theirs], rel=RELATIVE), (step, theirs)
    for part, module in PARTS.items():
        found = getattr(state.objective, module).state_dict()
        expected = ours(arrays, f"final/{part}/", part)
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            assert_close(found[name], weight, f"{part} {name}")


@golden
def test_l2_is_the_published_mean_squared_error(path: Path) -> None:
    meta, arrays = load(path)
    state = new_state(meta, arrays)
    state.objective.settings = IJepaSettings(loss="l2")
    loss = state.objective(*batch(arrays, 0))
    assert loss.item() == pytest.approx(meta["per_step"][0]["mse"], rel=RELATIVE)
