"""What the data benchmarks share: photograph-like images, interleaved rounds on the CPU clock, results on disk."""

from __future__ import annotations

import io
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results"
VIT_B_IMAGES_PER_S = 5900
"""What an ideal ViT-B/16 I-JEPA step takes on an H100."""


def photo(seed: int, *, width: int = 500, height: int = 375, quality: int = 97) -> bytes:
    """A JPEG with detail at every scale, of about ImageNet's bytes a pixel (109 KB at 500 x 375)."""
    drawn, pixels_HWC = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for octave in range(2, 10):
        side = 2**octave
        noise = Image.fromarray(drawn.integers(0, 256, (side, side, 3), dtype=np.uint8))
        layer = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128
        pixels_HWC += layer * 2.0 ** (-0.55 * (octave - 2))
    out = io.BytesIO()
    Image.fromarray(np.clip(128 + 0.7 * pixels_HWC, 0, 255).astype(np.uint8)).save(
        out, "JPEG", quality=quality
    )
    return out.getvalue()


def cpu_s_in_rounds(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds, over all threads, of each call, the calls taking turns: a slow machine slows them all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def check_limit(what: str, rate: float, limit: float, limit_name: str) -> None:
    """A result above its physical limit is a fault of the measurement."""
    if rate > limit:
        sys.exit(f"{what}: {rate:,.0f} a second beat {limit_name}, {limit:,.0f}: the measurement is wrong")


def save(name: str, results: Mapping[str, object], *, packages: tuple[str, ...]) -> None:
    """Print the results and keep them as `results/<name>-cpu.json`."""
    facts = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores shared with other work",
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
    }
    text = json.dumps({**facts, **results}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}-cpu.json").write_text(text + "\n", encoding="utf-8")
    print(text)
