"""A whole training step against the plain baseline: exact, and with the shared-context predictor.

Every side of a round gets the same images and the same masks, drawn by the published algorithm, so the token counts are
equal; drawing counts for every side: image by image for the baseline, our reference sampler for the others. The
exact step must give the baseline's loss. On a CPU: ViT-T/16, 224 px, batch 16, one thread, float32. On CUDA: ViT-B/16
and ViT-L/16, batch 128, bfloat16, eager and compiled. Arguments: `--rounds N`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from harness import benchmark_device, guard, interleave, median, ratio, write_result
from masks import PlainSampler
from plain import PlainRun
from torch import Tensor

from jepa_core.accounting import device_name, measured_matmul_flops, peak_flops, take_peak_memory_bytes
from jepa_core.ema import EmaSettings
from jepa_core.encoder import EncoderSettings
from jepa_core.execution import ExecutionSettings
from jepa_core.flops import ModelDims, flops_per_image
from jepa_core.masks import MaskBatch, MaskSettings, PatchGrid, build_sampler
from jepa_core.objectives import IJepaSettings
from jepa_core.optim import OptimizerSettings
from jepa_core.predictor import PredictorSettings
from jepa_core.step import TrainState, create_state, train_step

GRID = PatchGrid(14, 14)
MASKS = MaskSettings(sampler="reference", min_target_patches=11, min_context_patches=11)


@dataclass(frozen=True)
class Case:
    """One model on one kind of device; `forms` are the ways of ours that are compared."""

    model: str
    predictor_depth: int
    batch_size: int
    precision: str
    forms: dict[str, dict[str, Any]]
    required: dict[str, float]


EAGER: dict[str, dict[str, Any]] = {"exact": {}, "shared_context": {"context": "shared"}}
COMPILED: dict[str, dict[str, Any]] = {
    **EAGER,
    "exact_compiled": {"compile": "blocks", "pad_tokens_to": 8},
    "shared_context_compiled": {"context": "shared", "compile": "blocks", "pad_tokens_to": 8},
}
CASES = {
    "cpu": [Case("vit_tiny_patch16_224", 6, 16, "float32", EAGER, {"exact": 1.15, "shared_context": 1.45})],
    "cuda": [
        Case("vit_base_patch16_224", 6, 128, "bfloat16", COMPILED, {}),
        Case("vit_large_patch16_224", 12, 128, "bfloat16", COMPILED, {}),
    ],
}


def new_state(case: Case, device: torch.device, form: dict[str, Any]) -> TrainState:
    """The same initial weights for every form."""
    options = dict(form)
    predictor = PredictorSettings(depth=case.predictor_depth, context=options.pop("context", "repeated"))
    return create_state(
        encoder=EncoderSettings(name=case.model),
        predictor=predictor,
        objective=IJepaSettings(),
        optimizer=OptimizerSettings(),
        ema=EmaSettings(),
        total_steps=10_000,
        seed=0,
        device=device,
        precision=case.precision,  # type: ignore[arg-type]
        execution=ExecutionSettings(**options),
    )


class Masks:
    """The published algorithm's masks, one batch a round for every side, and what drawing them costs each side."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device = case, device
        self.plain, self.ours = PlainSampler(MASKS, GRID), build_sampler(MASKS, GRID)
        self.ids_B, self.step = torch.arange(case.batch_size), 0
        self.used: list[tuple[int, int]] = []
        self.turn()

    def turn(self) -> None:
        """Go on to the next batch of masks."""
        self.step += 1
        context_BK, target_MBT = self.plain.sample(self.case.batch_size, self.step)
        self.batch = MaskBatch(context_BK[None], target_MBT).to(self.device)
        self.used.append((context_BK.shape[-1], target_MBT.shape[-1]))

    def draw_plain(self) -> None:
        self.plain.sample(self.case.batch_size, self.step)

    def draw_ours(self) -> None:
        self.ours.sample(self.ids_B, torch.zeros_like(self.ids_B), seed=0, step=self.step, device=self.device)


def check_same_loss(plain: PlainRun, states: dict[str, TrainState], images: Tensor, masks: Masks) -> None:
    """Before anything is timed: the exact form computes what the baseline computes."""
    if masks.device.type == "cuda":
        return  # in bfloat16 the kernels round differently; the golden test holds on the CPU
    expected = plain.step(images, masks.batch)
    found = train_step(states["exact"], images, masks.batch)["train/loss"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def run_case(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    states = {name: new_state(case, device, form) for name, form in case.forms.items()}
    plain, masks = PlainRun(states["exact"]), Masks(case, device)
    images = torch.randn(case.batch_size, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)
    check_same_loss(plain, states, images, masks)

    def plain_step() -> None:
        masks.draw_plain()
        plain.step(images, masks.batch)

    def our_step(state: TrainState) -> Callable[[], None]:
        def step() -> None:
            masks.draw_ours()
            train_step(state, images, masks.batch)

        return step

    calls = {"plain": plain_step} | {name: our_step(state) for name, state in states.items()}
    repeats = 1 if device.type == "cpu" else 10
    masks.used.clear()
    found = interleave(calls, device, rounds=rounds, repeats=repeats, before_round=masks.turn)
    del masks.used[0]  # the round that does not count
    return {
        "model": case.model,
        "predictor": f"width 384, depth {case.predictor_depth}",
        "image_size_px": 224,
        "batch_size": case.batch_size,
        "precision": case.precision,
        "tokens_of_rounds": masks.used,
        "forms": {
            name: figures(case, states.get(name, states["exact"]), found[name], masks) for name in calls
        },
        "times_faster": {name: ratio(found["plain"], found[name]) for name in states},
    }


def figures(case: Case, state: TrainState, taken: list[float], masks: Masks) -> dict[str, Any]:
    """Images a second and what share of the limit they come to, by the model's own operations."""
    context, target = (sum(counts) / len(masks.used) for counts in zip(*masks.used, strict=True))
    dims = ModelDims.of(state.objective.context_encoder, state.objective.predictor)
    flops = flops_per_image(dims, context_patches=context, target_patches=target).total
    rate = case.batch_size / median(taken)
    stated = peak_flops(device_name(masks.device), case.precision)
    limit = stated or measured_matmul_flops(masks.device, case.precision)
    share = guard(case.model, flops * rate, limit)
    return {
        "images_per_s": round(rate, 2),
        "gigaflop_per_image": round(flops / 1e9, 2),
        "mfu" if stated else "share_of_measured_matmul_rate": share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    device = benchmark_device()
    for case in CASES[device.type]:
        take_peak_memory_bytes(device)
        result = run_case(case, device, rounds)
        result["peak_memory_gib"] = round(take_peak_memory_bytes(device) / 2**30, 2)
        name = "step" if device.type == "cpu" else f"step-{case.model.split('_patch')[0]}"
        write_result(name, device, result, required=case.required)


if __name__ == "__main__":
    main()
