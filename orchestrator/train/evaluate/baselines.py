"""What a run's probes are compared with: its untrained encoder and raw pixels, under the same probe in the same run.

They do not depend on the masks, so they are stored and shared by the trials of a sweep: those of the encoder for each
(data, encoder, probe, seed), those of pixels for each (data, image size, probe). Each is measured once. Trials that
start together on a node measure different ones, and one that finds the rest in the making trains meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from jepa_core.parallel import gathered
from jepa_core.step import TrainState
from orchestrator.config.models import RunConfig
from orchestrator.data import ShardSet
from orchestrator.data.format import file_lock
from orchestrator.errors import NotFoundError
from orchestrator.protocol.metrics import PIXELS, PROBE, UNTRAINED, baseline_metric, of_context
from orchestrator.storage import Store
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.evaluation import (
    Evaluation,
    ProbeData,
    probe_encoder,
    try_probe,
)

_PIXELS_SIDE_PX = 32
_POLL_S = 1.0


@dataclass(kw_only=True)
class Baselines:
    """The baselines of one run, as they are found; `untrained` gives a state with the run's initial weights."""

    untrained: Callable[[], TrainState]
    shards: ShardSet
    probes: ProbeData
    config: RunConfig
    rank: Rank
    store: Store
    _found: dict[str, float] = field(default_factory=dict)
    _missing: dict[str, Callable[[], dict[str, float]]] = field(init=False)
    _looked_s: float = 0.0

    def __post_init__(self) -> None:
        self._missing = {
            untrained_key(self.config, self.shards, self.rank): self._measure_untrained,
            pixels_key(self.config, self.shards): self._measure_pixels,
        }

    def find(self, *, wait: bool) -> bool:
        """Read or measure what is missing; returns whether all is there. Every rank must call it.

        What another trial of the node is measuring is waited for, after the rest is done, or with `wait` False left
        for another call.
        """
        for key in list(self._missing):
            self._take(key, wait=False)
        for key in list(self._missing) if wait else []:
            self._take(key, wait=True)
        return not self._missing

    def look(self) -> bool:
        """Read what others have stored meanwhile, at most once a second; returns whether all is there now."""
        now_s = time.monotonic()
        if self._missing and now_s - self._looked_s >= _POLL_S:
            self._looked_s = now_s
            for key in list(self._missing):
                stored = self._stored(key)
                if stored is not None:
                    self._keep(key, stored)
        return not self._missing

    @property
    def figures(self) -> dict[str, float]:
        """Accuracies in per cent, on rank 0; without those that are missing, or whose probe failed."""
        if self.config.probe.encoder != "both":
            return dict(self._found)
        return self._found | {of_context(name): value for name, value in self._found.items()}

    def _take(self, key: str, *, wait: bool) -> None:
        """Read a baseline's figures, or measure and store them; nothing while another process of the node does so."""
        with self._alone_on_node(key, wait=wait) as is_held:
            if not self.rank.broadcast(is_held):
                return
            stored = self._stored(key) if self.rank.index == 0 else None
            if self.rank.broadcast(stored is not None):
                self._keep(key, stored or {})
                return
            found = self._missing[key]()
            if found:  # on rank 0, unless the probe failed
                self.store.write(f"{key}.json", json.dumps(found, sort_keys=True).encode())
            self._keep(key, found)

    def _keep(self, key: str, found: Mapping[str, float]) -> None:
        self._found |= found
        del self._missing[key]

    @contextmanager
    def _alone_on_node(self, key: str, *, wait: bool) -> Iterator[bool]:
        """A lock between the processes of a node, held by rank 0 and let go when its process dies."""
        if self.rank.index != 0:
            yield True
            return
        with file_lock(self.shards.cache.folder / "locks" / f"baseline-{key}.lock", wait=wait) as is_held:
            yield is_held

    def _stored(self, key: str) -> dict[str, float] | None:
        try:
            figures: dict[str, float] = json.loads(self.store.read(f"{key}.json"))
        except (NotFoundError, ValueError):  # a damaged one is measured and stored again
            return None
        return figures

    def _measure_untrained(self) -> dict[str, float]:
        # Untrained, the two encoders of a method are one; they are told apart in `figures`.
        objective = self.untrained().objective
        with gathered(objective):
            found = probe_encoder(objective.target_encoder, self.probes, config=self.config, rank=self.rank)
        return _as_baseline(found, of=UNTRAINED)

    def _measure_pixels(self) -> dict[str, float]:
        if self.rank.index != 0:
            return {}
        train_ND, test_ND = (
            _pixels(part.images_uint8_NCHW) for part in (self.probes.train, self.probes.test)
        )
        train = self.config.train.model_copy(update={"seed": 0})  # one figure for trials of every seed
        config = self.config.model_copy(update={"train": train})
        return _as_baseline(try_probe(train_ND, test_ND, self.probes, config=config), of=PIXELS)


def _as_baseline(evaluation: Evaluation, *, of: str) -> dict[str, float]:
    return {
        baseline_metric(metric, of): value
        for metric, value in evaluation.metrics.items()
        if metric.startswith(PROBE)
    }


def _pixels(images_NCHW: Tensor) -> Tensor:
    """Raw pixels as features: at most 32 x 32, so that the probe's size stays bounded."""
    images = images_NCHW.float() / 255
    if max(images.shape[-2:]) > _PIXELS_SIDE_PX:
        size = (min(images.shape[-2], _PIXELS_SIDE_PX), min(images.shape[-1], _PIXELS_SIDE_PX))
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images.flatten(1)


def pixels_key(config: RunConfig, shards: ShardSet) -> str:
    """What the probe accuracies of raw pixels depend on."""
    return _digest(_probed(config, shards))


def untrained_key(config: RunConfig, shards: ShardSet, rank: Rank) -> str:
    """What the probe accuracies of the untrained encoder depend on."""
    return _digest(
        {
            **_probed(config, shards),
            "normalisation": [config.data.mean, config.data.std],
            "encoder": asdict(config.encoder),
            "seed": config.train.seed,
            "precision": rank.precision,
        }
    )


def _probed(config: RunConfig, shards: ShardSet) -> dict[str, Any]:
    return {
        "data": shards.digest,
        "splits": [config.data.train_split, config.data.test_split],
        "size": config.encoder.image_size_px,
        "probe": config.probe.model_dump(
            mode="json", exclude={"every_images", "beside", "max_failures", "encoder"}
        ),
    }


def _digest(basis: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()[:16]
