"""What scripted trials measure: pure functions of point, seed and images, with no draw and no machine in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

METRIC = "probe/linear/mean"
UNTRAINED = 30.0
RATE = "optimizer.learning_rate"

Point = Mapping[str, Any]


def fraction(*basis: Any) -> float:
    """A number from 0 to 1 that depends on its arguments alone."""
    text = json.dumps(basis, sort_keys=True)
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def by_digest(point: Point, seed: int) -> float:
    """Final accuracy in per cent, different at every point, with two points of seed noise."""
    return 40 + 25 * fraction("point", point) + 2 * fraction("seed", point, seed)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Accuracies that rise to `final(point, seed)`, and what a second trains at `images_per_s`."""

    total_images: int
    final: Callable[[Point, int], float] = by_digest
    images_per_s: float = 10.0

    def accuracy(self, point: Point, seed: int, images: int) -> float:
        """The probe's accuracy after so many images, in per cent."""
        share = 1.25 * images / (images + self.total_images / 4)
        return round(UNTRAINED + (self.final(point, seed) - UNTRAINED) * share, 3)

    def metrics(self, point: Point, seed: int, images: int, *, probe: bool) -> dict[str, float]:
        """A row of metrics as a worker has them."""
        if images == 0:
            return {
                **self._probed(point, seed, 0),
                "baseline/untrained/linear/class": UNTRAINED,
                "baseline/untrained/linear/mean": UNTRAINED,
                "baseline/pixels/linear/class": 34.0,
                "baseline/pixels/linear/mean": 34.0,
                "health/effective_rank": 8.0,
                "health/std": 0.4,
            }
        share = images / self.total_images
        metrics = {
            "train/loss": round(0.5 - 0.2 * share, 4),
            "train/images_per_s": self.speed(point),
            "data/wait_fraction": 0.05,
        }
        if probe:
            metrics |= self._probed(point, seed, images)
            metrics |= {"health/effective_rank": round(8 + 10 * share, 3), "time/probe_s": 2.0}
        return metrics

    def _probed(self, point: Point, seed: int, images: int) -> dict[str, float]:
        value = self.accuracy(point, seed, images)
        return {"probe/linear/class": value, METRIC: value, "probe/knn/mean": round(value - 6, 3)}

    def correct(self, point: Point, seed: int, images: int) -> dict[str, str]:
        """Which of 64 test images the probe gets right, as packed bits in hexadecimal."""
        share = self.accuracy(point, seed, images) / 100
        hits = [0.8 * fraction("image", n) + 0.2 * fraction(n, point, seed) < share for n in range(64)]
        return {"class": f"{int(''.join('01'[hit] for hit in hits), 2):016x}"}

    def speed(self, point: Point) -> float:
        """Images a second of a point, between 0.8 and 1.2 of the usual."""
        return round(self.images_per_s * (0.8 + 0.4 * fraction("speed", point)), 2)
