"""A synthetic sweep as its driver would have journalled it: 20 geometries under 3 seeds, with a known best.

Accuracies come from a smooth function of what the masks really cover plus seed noise; learning curves, probes, health,
mask figures, costs, one failed trial, one that was retried and early stops look as those of a real sweep do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_core.masks import MaskSettings, PatchGrid, audit_geometry
from orchestrator.config import default_config, dump
from orchestrator.config.models import RunConfig
from orchestrator.protocol.events import Entry, parse
from orchestrator.sweep.core.fold import fold_events
from orchestrator.sweep.core.record import SweepRecord

SCALES = (0.08, 0.12, 0.17, 0.23, 0.30)
RATIOS = (0.5, 0.75, 1.0, 1.5)
SEEDS = (0, 1, 2)
LABELS = ("class", "count", "distance")
BEST = (0.17, 1.0)
TOTAL_IMAGES = 40_000
_PROBES = (0, 5_000, 10_000, 20_000, 30_000, 40_000)
_NUM_TEST = 1000
_START_MS = 1_750_000_000_000


def entries(events: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Events as whoever reads a journal gets them; those without a place are numbered."""
    return [
        parse({"sequence": number, **event}, where=f"event {number}") for number, event in enumerate(events)
    ]


def record_of(events: Iterable[Mapping[str, Any]]) -> SweepRecord:
    """What a history of events comes to."""
    return fold_events(entries(events))


def sweep_config() -> RunConfig:
    """The configuration of the synthetic sweep: a small encoder on the embedded scenes."""
    scales = json.dumps([pair_of(scale, 1.15) for scale in SCALES])
    ratios = json.dumps([pair_of(ratio, 1.2) for ratio in RATIOS])
    return default_config(
        [
            "name=masks",
            "encoder.name=vit_tiny_patch16_224",
            "encoder.image_size_px=48",
            "encoder.patch_size_px=4",
            "encoder.width=96",
            "encoder.depth=4",
            "encoder.num_heads=3",
            "predictor.width=48",
            "predictor.depth=2",
            f"train.images={TOTAL_IMAGES}",
            "train.batch_size=100",
            f"probe.test_images={_NUM_TEST}",
            "probe.train_images=1000",
            f"sweep.space={{masks.target_scale: {{choices: {scales}}}, "
            f"masks.target_aspect_ratio: {{choices: {ratios}}}}}",
            f"sweep.seeds={json.dumps(list(SEEDS))}",
        ]
    )


def pair_of(middle: float, spread: float) -> list[float]:
    """A pair around a middle, as a sweep file would list it."""
    return [round(middle / spread, 3), round(middle * spread, 3)]


def true_accuracy(scale: float, ratio: float) -> float:
    """The surface: highest at BEST, falling off by several points over the range."""
    return 61.0 - 9.0 * math.log(scale / BEST[0]) ** 2 - 6.0 * math.log(ratio / BEST[1]) ** 2


def sweep_events(
    *, seed: int = 0, noise_sd: float = 0.8, stop_losers: bool = False, num_gpus: float = 1.0
) -> list[dict[str, Any]]:
    """The journal's events of one draw of the sweep."""
    rng = np.random.default_rng(seed)
    events: list[dict[str, Any]] = [
        {
            "kind": "sweep_started",
            "sweep_id": "masks-20260101-120000-ab12",
            "name": "masks",
            "config": dump(sweep_config()),
            "environment": {
                "python": "3.11.7",
                "platform": "Linux",
                "packages": {"torch": "2.14.1"},
                "resources": {"GPU": 4.0, "CPU": 32.0},
            },
            "data": {"uri": "s3://bucket/scenes", "digest": "0123456789abcdef"},
            "notes": ["two points came to the same integer blocks and were merged"],
        }
    ]
    easiness = rng.random(_NUM_TEST)
    common = {each: 0.5 * rng.standard_normal() for each in SEEDS}
    index = 0
    for scale in SCALES:
        for ratio in RATIOS:
            for each in SEEDS:
                final = true_accuracy(scale, ratio) + common[each] + noise_sd * rng.standard_normal()
                events += _trial(index, scale, ratio, each, final, easiness, rng, stop_losers, num_gpus)
                index += 1
    events.append({"kind": "sweep_ended", "state": "finished"})
    clock = _START_MS
    for number, event in enumerate(events):
        clock = max(clock, event.get("time_ms", clock))
        event.setdefault("time_ms", clock)
        event["sequence"] = number
    return events


def write_journal(folder: Path, events: Sequence[dict[str, Any]]) -> str:
    """Write events as a sweep's folder below `folder`; returns the sweep id."""
    sweep_id = str(events[0]["sweep_id"])
    journal = folder / sweep_id / "journal"
    journal.mkdir(parents=True)
    for number, event in enumerate(events):
        (journal / f"{number:08d}.json").write_text(json.dumps({"sequence": number, **event}))
    return sweep_id


def _trial(
    index: int,
    scale: float,
    ratio: float,
    seed: int,
    final: float,
    easiness: np.ndarray,
    rng: np.random.Generator,
    stop_losers: bool,
    num_gpus: float,
) -> list[dict[str, Any]]:
    point = {"masks.target_scale": pair_of(scale, 1.15), "masks.target_aspect_ratio": pair_of(ratio, 1.2)}
    trial_id = f"t{index:07x}"
    name = f"target_scale {point['masks.target_scale'][0]:g}-{point['masks.target_scale'][1]:g}, seed {seed}"
    own = {"trial_id": trial_id}
    started = _START_MS + 1000 * (index // 4) * 700
    pace = 600_000 * (1 + scale) / TOTAL_IMAGES  # milliseconds an image
    stopped = stop_losers and final < 57.0
    failed = index == 59
    planned = {
        "kind": "trial_planned",
        **own,
        "index": index,
        "point": point,
        "seed": seed,
        "name": name,
        "total_images": TOTAL_IMAGES,
    }
    attempt = {**own, "attempt_id": "a1"}
    events = [planned, {"kind": "attempt_started", **attempt, **_devices(num_gpus), "time_ms": started}]
    if index == 7:  # a worker died, and the trial went on in a second attempt
        events.append({"kind": "attempt_ended", **attempt, "time_ms": started + 60_000})
        attempt = {**own, "attempt_id": "a2"}
        started += 90_000
        events.append({"kind": "attempt_started", **attempt, **_devices(num_gpus), "time_ms": started})
    last = started
    for images in _PROBES[: 3 if stopped else 2 if failed else len(_PROBES)]:
        last = int(started + images * pace)
        metrics = _metrics(images, scale, ratio, final, rng)
        is_end = images == TOTAL_IMAGES
        hits = easiness < metrics["probe/linear/mean"] / 100
        hits ^= rng.random(_NUM_TEST) < 0.03
        row = {"images": images, "timestamp_ms": last, "metrics": metrics}
        correct = {label: np.packbits(hits).tobytes().hex() for label in LABELS} if is_end else {}
        events.append(
            {
                "kind": "report",
                **attempt,
                "rows": [row],
                "images": images,
                "correct": correct,
                "rung": None,
                "value": metrics["probe/linear/mean"],
                "action": "continue",
                "reason": "",
                "time_ms": last,
            }
        )
    state = "failed" if failed else "stopped" if stopped else "finished"
    reason = {
        "failed": "TrainingError: worker 0 was killed (out of memory) 4 times",
        "stopped": "rung 10000: 41.0 is below the 14 best of 40",
        "finished": "",
    }[state]
    events.append({"kind": "attempt_ended", **attempt, "time_ms": last + 4000})
    events.append({"kind": "trial_ended", **own, "state": state, "reason": reason, "time_ms": last + 4000})
    return events


def _devices(num_gpus: float) -> dict[str, float]:
    return {"num_gpus": num_gpus, "num_cpus": 4.0}


def _metrics(
    images: int, scale: float, ratio: float, final: float, rng: np.random.Generator
) -> dict[str, float]:
    progress = (1 - math.exp(-3 * images / TOTAL_IMAGES)) / (1 - math.exp(-3))
    value = 33.0 + (final - 33.0) * progress
    metrics = {f"probe/linear/{label}": value + 4 * place - 4 for place, label in enumerate(LABELS)}
    metrics |= {"probe/linear/mean": value, "probe/knn/mean": value - 6}
    metrics |= {"health/std": 0.4 + 0.3 * progress, "health/effective_rank": 5 + 20 * progress}
    metrics |= {"health/cosine": 0.9 - 0.5 * progress, "health/position_share": 0.2 + 0.1 * progress}
    if images == 0:
        for label, untrained, pixels in zip(LABELS, (29.0, 33.0, 37.0), (36.0, 31.0, 44.0), strict=True):
            metrics[f"baseline/untrained/linear/{label}"] = untrained
            metrics[f"baseline/pixels/linear/{label}"] = pixels
        metrics |= {"baseline/untrained/linear/mean": 33.0, "baseline/pixels/linear/mean": 37.0}
        return metrics
    return (
        metrics
        | _mask_metrics(scale, ratio)
        | {"train/loss": 0.3 - 0.1 * progress, "train/images_per_s": 66.0}
    )


_AUDITS: dict[tuple[float, float], dict[str, float]] = {}


def _mask_metrics(scale: float, ratio: float) -> dict[str, float]:
    if (scale, ratio) not in _AUDITS:
        settings = MaskSettings(
            target_scale=tuple(pair_of(scale, 1.15)),  # type: ignore[arg-type]
            target_aspect_ratio=tuple(pair_of(ratio, 1.2)),  # type: ignore[arg-type]
        )
        audit = audit_geometry(settings, PatchGrid(rows=12, columns=12), num_samples=256)
        _AUDITS[scale, ratio] = audit.metrics
    return _AUDITS[scale, ratio]
