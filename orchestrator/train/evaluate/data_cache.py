"""What one trial of a worker leaves to the next: opened shards and decoded probe images.

Only the newest of each is kept. Both are functions of their key, so a trial is the same with and without.
"""

from __future__ import annotations

from typing import Any

from orchestrator.config.models import RunConfig
from orchestrator.data import ShardSet, open_shards
from orchestrator.train.evaluate.evaluation import ProbeData, load_probe_data


class DataCache:
    """The newest shard set and the newest probe images of a process."""

    def __init__(self) -> None:
        self._shards: tuple[Any, ShardSet] | None = None
        self._probes: tuple[Any, ProbeData | None] | None = None

    def shards(self, uri: str, config: RunConfig) -> ShardSet:
        """The shard set at `uri`, opened once."""
        key = (uri, config.data, config.storage)
        if self._shards is None or self._shards[0] != key:
            self._shards = (key, open_shards(uri, config.data, config.storage))
        return self._shards[1]

    def probes(self, config: RunConfig, shards: ShardSet) -> ProbeData | None:
        """The images of a run's probes, decoded once."""
        probe = config.probe
        key = (
            shards.digest,
            config.data.train_split,
            config.data.test_split,
            config.encoder.image_size_px,
            (probe.train_images, probe.test_images, probe.labels),
        )
        if self._probes is None or self._probes[0] != key:
            self._probes = None  # the old ones go before the new ones come
            self._probes = (key, load_probe_data(config, shards))
        return self._probes[1]
