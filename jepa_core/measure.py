"""Measuring a training step of a model on a device: by phase, in images a second, as a share of the device's peak.

Called by `orchestrator bench step`. Images are noise and masks are drawn as in training; nothing is read from disk.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from jepa_core.accounting import (
    device_name,
    measured_matmul_flops,
    peak_flops,
    synchronise,
    take_peak_memory_bytes,
)
from jepa_core.flops import ModelDims, StepFlops, flops_per_image
from jepa_core.masks import MaskSampler, mask_metrics
from jepa_core.objectives import IJepa
from jepa_core.phases import PHASES, PhaseTimer
from jepa_core.step import TrainState, train_step

_WARM_UP_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class StepMeasurement:
    """What a step came to; seconds are means of one step.

    `peak_flops` is the maker's figure, or where that is not known the measured rate of large matrix products, as
    `peak_is_stated` says; `utilisation` is the model's own operations a second as a share of it.
    """

    device: str
    batch_size: int
    num_steps: int
    step_s: float
    phases_s: dict[str, float]
    masks_s: float
    flops: StepFlops
    context_patches: float
    target_patches: float
    peak_flops: float
    peak_is_stated: bool
    peak_memory_bytes: float

    @property
    def images_per_s(self) -> float:
        """Images a second of one device."""
        return self.batch_size / self.step_s

    @property
    def utilisation(self) -> float:
        """Share of the peak."""
        return self.flops.total * self.images_per_s / self.peak_flops


def measure_step(
    state: TrainState, sampler: MaskSampler, *, batch_size: int, num_steps: int
) -> StepMeasurement:
    """Train `state` on noise for `num_steps` steps after two that do not count.

    Raises:
        ValueError: The objective is not I-JEPA, whose operations alone are counted.
    """
    objective, device = state.objective, state.device
    if not isinstance(objective, IJepa):
        raise ValueError("only the ijepa objective can be measured")
    side = objective.context_encoder.patch_embed.proj.weight
    grid = objective.context_encoder.grid
    shape = (batch_size, side.shape[1], grid.rows * side.shape[2], grid.columns * side.shape[3])
    dtype = next(objective.parameters()).dtype
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    ids_B, timer = torch.arange(batch_size), PhaseTimer(device)
    timer.attach(objective)
    counts: list[tuple[torch.Tensor, torch.Tensor]] = []
    masks_s = started = 0.0
    for step in range(_WARM_UP_STEPS + num_steps):
        if step == _WARM_UP_STEPS:
            timer.drain()
            take_peak_memory_bytes(device)
            counts, masks_s, started = [], 0.0, time.perf_counter()
        drawing = time.perf_counter()
        masks = sampler.sample(ids_B, torch.full_like(ids_B, step), seed=0, step=step, device=device)
        masks_s += time.perf_counter() - drawing
        train_step(state, images, masks, timer=timer)
        found = mask_metrics(masks, grid)
        counts.append((found["masks/context_patches"], found["masks/target_patches"]))
    synchronise(device)
    step_s = (time.perf_counter() - started) / num_steps
    phases = timer.drain()
    timer.detach()
    context, target = (torch.stack(column).mean().item() for column in zip(*counts, strict=True))
    stated = peak_flops(device_name(device), state.precision)
    return StepMeasurement(
        device=device_name(device),
        batch_size=batch_size,
        num_steps=num_steps,
        step_s=step_s,
        phases_s={name: phases.get(name, 0.0) / num_steps for name in PHASES},
        masks_s=masks_s / num_steps,
        flops=flops_per_image(
            ModelDims.of(objective.context_encoder, objective.predictor),
            context_patches=context,
            target_patches=target,
            num_target_blocks=sampler.settings.num_target_blocks,
            num_context_blocks=sampler.settings.num_context_blocks,
        ),
        context_patches=context,
        target_patches=target,
        peak_flops=stated or measured_matmul_flops(device, state.precision),
        peak_is_stated=stated is not None,
        peak_memory_bytes=take_peak_memory_bytes(device),
    )
