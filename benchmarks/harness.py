"""How the benchmarks measure: both sides in one process, in turn, and a guard against measuring nothing.

On a CPU one thread runs and its CPU time counts, which other programs on the machine disturb little; on a CUDA device
wall time between two synchronisations counts. The ratio is the median over the rounds, in each of which every side ran
once. Results go to benchmarks/results/NAME-cpu.json or NAME-cuda.json. Imports torch and `jepa_core` alone.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from jepa_core.accounting import device_name, synchronise

RESULTS = Path(__file__).parent / "results"
_TOLERANCE = 1.25
"""A limit is measured too, so a figure may lie a little above it; more means that the work was not done."""


def benchmark_device() -> torch.device:
    """The CUDA device if there is one, else one thread of the CPU."""
    torch.set_num_threads(1)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Seconds of one call, the mean of `repeats` in a row."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    synchronise(device)
    started = clock()
    for _ in range(repeats):
        call()
    synchronise(device)
    return (clock() - started) / repeats


def interleave(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int,
    repeats: int = 1,
    before_round: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each call in each round, after one round that does not count; the order turns with the round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        before_round()
        names = list(calls) if number % 2 else list(reversed(calls))
        for name in names:
            taken = seconds(calls[name], device, repeats)
            if number:
                found[name].append(taken)
    return found


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as fast the second is: the median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 3)


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return float(statistics.median(values))


def guard(what: str, achieved: float, limit: float) -> float:
    """The share of a physical limit that was achieved; ends the benchmark where it is more than can be."""
    share = achieved / limit
    if share > _TOLERANCE:
        sys.exit(
            f"{what}: {share:.2f} times the machine's limit; this benchmark does not measure the work it claims"
        )
    return round(share, 3)


def stream_bytes_per_s(num_bytes: int, device: torch.device) -> float:
    """Bytes a second, read and written together, of changing a buffer in place: the limit of memory-bound work.

    `num_bytes` is the working set of what is compared, so that caches help both alike.
    """
    buffer = torch.ones(num_bytes // 4, device=device)
    best = min(seconds(lambda: buffer.mul_(1.0), device, repeats=3) for _ in range(7))
    return 2 * num_bytes / best


def write_result(
    name: str, device: torch.device, figures: Mapping[str, Any], *, required: Mapping[str, Any]
) -> None:
    """Print and store a benchmark's figures; `required` are the ratios that must hold, by path in `figures`."""
    facts = {
        "device": device_name(device) if device.type == "cuda" else f"{platform.machine()}, one thread",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    text = json.dumps({**facts, **figures, "required": dict(required)}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}-{device.type}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    missed = {key: bound for key, bound in required.items() if figures["times_faster"][key] < bound}
    if missed:
        sys.exit(f"{name}: slower than required: {missed}")
