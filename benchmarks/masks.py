"""Mask sampling per image: the vectorised samplers against the published algorithm, image by image.

The plain sampler below is the published algorithm as one would first write it: a Python loop over images, a search
with a mask of the grid for each block, `nonzero` for the indices, and a cut to the smallest of the batch. All run in
one process on one thread, in turn, on batches whose draws all differ. Each block of batches counts with the best of
its processor times in several rounds, so that other processes do not, and the mean over the blocks stands. The audit
of 100 geometries is timed too. Writes benchmarks/results/masks-cpu.json, and masks-cuda.json where there is a GPU.
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from jepa_core.masks import MaskSettings, PatchGrid, audit_geometry, build_sampler

RESULTS = Path(__file__).parent / "results"
BATCH_SIZE = 128
ROUNDS = 7
VIT_B_IMAGES_PER_S = 5873
"""ViT-B/16 training steps at half of an H100's peak, the speed that a mask sampler must keep up with."""


class PlainSampler:
    """The published algorithm, one image and one block at a time."""

    def __init__(self, settings: MaskSettings, grid: PatchGrid) -> None:
        self.settings, self.grid = settings, grid

    def _size(
        self, rng: random.Random, scale: tuple[float, float], aspect: tuple[float, float]
    ) -> tuple[int, int]:
        draw = rng.random()
        area = int(self.grid.num_patches * (scale[0] + draw * (scale[1] - scale[0])))
        ratio = aspect[0] + draw * (aspect[1] - aspect[0])
        height = min(round(math.sqrt(area * ratio)), self.grid.rows - 1)
        width = min(round(math.sqrt(area / ratio)), self.grid.columns - 1)
        return height, width

    def _block(self, size: tuple[int, int], allowed: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        attempts, relaxed = 20, 0
        while True:
            top = int(torch.randint(0, self.grid.rows - size[0], (1,)))
            left = int(torch.randint(0, self.grid.columns - size[1], (1,)))
            mask = torch.zeros(self.grid.rows, self.grid.columns, dtype=torch.int32)
            mask[top : top + size[0], left : left + size[1]] = 1
            outside = torch.ones_like(mask)
            outside[top : top + size[0], left : left + size[1]] = 0
            for region in allowed[: max(len(allowed) - relaxed, 0)]:
                mask *= region
            indices = mask.flatten().nonzero().squeeze(-1)
            if len(indices) >= self.settings.min_context_patches:
                return indices, outside
            attempts -= 1
            if attempts == 0:
                attempts, relaxed = 20, relaxed + 1

    def sample(self, batch_size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Context indices [B, K] and target indices [M, B, T]."""
        rng, settings = random.Random(seed), self.settings
        target_size = self._size(rng, settings.target_scale, settings.target_aspect_ratio)
        context_size = self._size(rng, settings.context_scale, settings.context_aspect_ratio)
        contexts, targets = [], []
        for _ in range(batch_size):
            blocks = [self._block(target_size, []) for _ in range(settings.num_target_blocks)]
            targets.append([indices for indices, _ in blocks])
            contexts.append(self._block(context_size, [outside for _, outside in blocks])[0])
        num_kept = min(len(context) for context in contexts)
        context_BK = torch.stack([context[:num_kept] for context in contexts])
        return context_BK, torch.stack([torch.stack(blocks) for blocks in zip(*targets, strict=True)])


def times_s(call: Callable[[int], object], repeats: int, block: int) -> list[float]:
    """The processor time of a call, over blocks of so many calls, on batches whose draws all differ."""
    times = []
    for first in range(0, repeats, block):
        start = time.process_time()
        for number in range(first, first + block):
            call(number)
        times.append((time.process_time() - start) / block)
    return times


def cpu_results(settings: MaskSettings, grid: PatchGrid) -> dict[str, object]:
    """Rounds of all samplers in turn, so that a machine that slows down slows them all."""
    plain = PlainSampler(settings, grid)
    ids_B, epochs_B = torch.arange(BATCH_SIZE), torch.zeros(BATCH_SIZE, dtype=torch.int64)
    calls: dict[str, Callable[[int], object]] = {"plain": lambda step: plain.sample(BATCH_SIZE, step)}
    for name in ("exact", "reference"):
        sampler = build_sampler(replace(settings, sampler=name), grid)
        calls[name] = lambda step, sampler=sampler: sampler.sample(ids_B, epochs_B, seed=step, step=step)
    best: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times = times_s(call, 8, 1) if name == "plain" else times_s(call, 400, 20)
            best[name] = [min(pair) for pair in zip(best.get(name, times), times, strict=True)]
    mean = {name: sum(times) / len(times) for name, times in best.items()}
    rows: dict[str, object] = {}
    for name, seconds in mean.items():
        figures = {"us_per_image": round(seconds / BATCH_SIZE * 1e6, 2)}
        rows[name] = figures | {"times_faster": round(mean["plain"] / seconds, 1)}
    return rows


def audit_seconds(grid: PatchGrid) -> dict[str, object]:
    """Processor time of the audit of 100 different geometries of the default sampler, and of `reference`."""
    found: dict[str, object] = {}
    for name in ("exact", "reference"):
        geometries = [
            MaskSettings(
                sampler=name, target_scale=(0.1 + low / 100, 0.2 + low / 100), num_target_blocks=count
            )
            for low in range(20)
            for count in (1, 2, 3, 4, 5)
        ]
        start = time.process_time()
        for settings in geometries:
            audit_geometry(settings, grid)
        found[name] = {"seconds_for_100_geometries": round(time.process_time() - start, 2)}
    return found


def cuda_results(settings: MaskSettings, grid: PatchGrid) -> dict[str, object]:
    sampler = build_sampler(settings, grid)
    ids_B = torch.arange(BATCH_SIZE, device="cuda")
    epochs_B = torch.zeros_like(ids_B)

    def call(step: int) -> None:
        sampler.sample(ids_B, epochs_B, seed=0, step=step, device="cuda")

    def synchronised(repeats: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for step in range(repeats):
            call(step)
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    synchronised(20)
    batch_us = min(synchronised(100) for _ in range(ROUNDS)) * 1e6
    step_us = BATCH_SIZE / VIT_B_IMAGES_PER_S * 1e6
    return {
        "exact": {"us_per_batch": round(batch_us, 1), "share_of_vit_b_step": round(batch_us / step_us, 4)}
    }


def main() -> None:
    torch.set_num_threads(1)
    grid = PatchGrid(14, 14)
    settings = MaskSettings()
    found = {"cpu": {**cpu_results(settings, grid), "audit": audit_seconds(grid)}}
    if torch.cuda.is_available():
        found["cuda"] = cuda_results(settings, grid)
    RESULTS.mkdir(exist_ok=True)
    for device, rows in found.items():
        name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, one thread"
        facts = {
            "device": name,
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        report = {**facts, "grid": str(grid), "batch_size": BATCH_SIZE, "results": rows}
        text = json.dumps(report, indent=2)
        (RESULTS / f"masks-{device}.json").write_text(text + "\n", encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
