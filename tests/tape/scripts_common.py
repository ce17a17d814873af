"""Settings and curves that several scripts share."""

from __future__ import annotations

from typing import Any

from .cluster import Cluster
from .curves import RATE, Curves, Point
from .play import Session

Json = dict[str, Any]


SMALL = {
    "name": "tape",
    "encoder.image_size_px": 32,
    "encoder.patch_size_px": 4,
    "encoder.width": 32,
    "encoder.depth": 2,
    "encoder.num_heads": 2,
    "predictor.width": 16,
    "predictor.depth": 1,
    "predictor.num_heads": 2,
    "train.images": 400,
    "train.batch_size": 10,
    "train.report_every_images": 100,
    "train.checkpoint_every_images": 200,
    "probe.every_images": 200,
    "probe.train_images": 40,
    "probe.test_images": 64,
}


def rates(count: int, **more: Any) -> Json:
    """Settings of a grid over learning rates, 0.001 to 0.001 * count."""
    choices = [round(0.001 * number, 6) for number in range(1, count + 1)]
    named = {key.replace("__", "."): value for key, value in more.items()}
    return {**SMALL, "sweep.space": {RATE: {"choices": choices}}, **named}


def rising(point: Point, seed: int) -> float:
    """The higher the rate the better."""
    return 40 + 2000 * float(point[RATE]) + 0.25 * seed


CURVES = Curves(total_images=400, final=rising)


def run_plainly(name: str, settings: Json, curves: Curves = CURVES, **more: Any) -> Session:
    """A sweep whose trials are known beforehand, from its start to its end."""
    session = Session(name, {"own": settings})
    cluster = Cluster(session, curves, **more)
    cluster.play("own")
    return session


LAST = {"probe": True, "rung": None, "final": True}
