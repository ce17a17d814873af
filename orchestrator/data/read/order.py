"""The global order of samples: a pure function of (seed, epoch, shard sizes), whatever reads it.

    epoch e:  shards permuted, the samples of each shuffled -> one row of samples, cut into lanes of equal length
              -> position p of the epoch is entry p // lanes of lane p % lanes

There are as many lanes as shards that are to be mixed at a time (`window_shards`), whatever the number of ranks, so a
global batch draws evenly from that many shards, and a rank that takes some of the lanes reads their shards alone. A set
of no more shards than that has one lane of all its samples shuffled together. Lanes differ by one sample at most, so no
rank runs out before another. A position maps to a sample in constant time once the orders of the current shards are
known: a run resumes anywhere without replaying, and its cursor is the number of steps taken. Randomness is a
counter-based hash (splitmix64), independent of library versions. Also draws the per-sample numbers of augmentation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jepa_core.splitmix64 import GOLDEN, LIMIT, mix_bits, mix_int

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

ORDER_VERSION = 2
"""Part of a run's fingerprint: checkpoints of another order cannot be continued."""
_STREAM_SHARDS, _STREAM_SAMPLES, STREAM_CROP = 1, 2, 3
_KEPT_PLANS = 4


def hash_of(*values: int) -> int:
    """A 64-bit hash of integers."""
    state = 0
    for value in values:
        state = mix_int((state + GOLDEN + value) % LIMIT)
    return state


def hash_each(base: int, values: Int64s) -> NDArray[np.uint64]:
    """`hash_of(..., value)` for each value, where `base` is the hash of what stands before it."""
    return mix_bits(values.astype(np.uint64) + np.uint64((base + GOLDEN) % LIMIT))


def uniforms(seed: int, epoch: int, sample_id: int, *, stream: int, count: int) -> Floats:
    """`count` numbers in [0, 1), a function of (seed, epoch, sample, stream) alone."""
    base = hash_of(seed, epoch, stream, sample_id)
    drawn: Floats = (hash_each(base, np.arange(count)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return drawn


def uniform(base: int, index: int) -> float:
    """Number `index` of `uniforms`, where `base` is the hash of what stands before it."""
    return (mix_int((base + GOLDEN + index) % LIMIT) >> 11) * 2.0**-53


class GlobalOrder:
    """Where every position of the endless sample stream of one split points.

    `shard_sizes` are the samples of each shard in manifest order; `first_id` is the id of the first. A sample's id is
    its index in the manifest. Not for use by several threads at once.
    """

    def __init__(
        self, shard_sizes: Sequence[int], *, seed: int, window_shards: int, first_id: int = 0
    ) -> None:
        if window_shards < 1:
            raise ValueError("window_shards must be at least 1")
        self.sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.first_ids = first_id + np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)
        self.num_samples = int(self.sizes.sum())
        if self.num_samples == 0:
            raise ValueError("a split without samples has no order")
        self.seed = seed
        has_lanes = len(self.sizes) > window_shards
        self.num_lanes = window_shards if has_lanes else 1
        self._shards_together = 1 if has_lanes else len(self.sizes)
        length, num_longer = divmod(self.num_samples, self.num_lanes)
        lanes = np.arange(self.num_lanes, dtype=np.int64)
        self._lane_starts = lanes * length + np.minimum(lanes, num_longer)
        self._kept_runs = 2 * self.num_lanes + _KEPT_PLANS
        self._plans: OrderedDict[int, tuple[Int64s, Int64s]] = OrderedDict()
        self._runs: OrderedDict[tuple[int, int], Int64s] = OrderedDict()

    def locate(self, positions: Int64s) -> tuple[Int64s, Int64s]:
        """Epochs and sample ids at positions of the endless stream."""
        epochs, offsets = np.divmod(positions, self.num_samples)
        places = self._lane_starts[offsets % self.num_lanes] + offsets // self.num_lanes
        ids = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            starts = self._plan(epoch)[1]
            here = epochs == epoch
            runs = np.searchsorted(starts, places, side="right") - 1
            for run in np.unique(runs[here]).tolist():
                chosen = here & (runs == run)
                ids[chosen] = self._run(epoch, run)[places[chosen] - starts[run]]
        return epochs, ids

    def batch(self, step: int, batch_size: int) -> Int64s:
        """The positions of a global batch, lane by lane: the order in which ranks take contiguous shares of it."""
        positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
        lanes = positions % self.num_samples % self.num_lanes
        return positions[np.argsort(lanes, kind="stable")]

    def shards_of(self, sample_ids: Int64s) -> list[int]:
        """Indices of the shards of samples, each once, in the order of their first appearance."""
        shards = np.searchsorted(self.first_ids, sample_ids, side="right") - 1
        return list(dict.fromkeys(shards.tolist()))

    def _plan(self, epoch: int) -> tuple[Int64s, Int64s]:
        """The epoch's shards in order, and where the samples of each run of shards shuffled together start."""
        if epoch not in self._plans:
            permuted = _permuted(np.arange(len(self.sizes)), hash_of(self.seed, epoch, _STREAM_SHARDS))
            starts = np.concatenate([[0], np.cumsum(self.sizes[permuted])[:-1]])
            self._plans[epoch] = (permuted, starts[:: self._shards_together].astype(np.int64))
            if len(self._plans) > _KEPT_PLANS:
                self._plans.popitem(last=False)
        return self._plans[epoch]

    def _run(self, epoch: int, run: int) -> Int64s:
        """The sample ids of a run of shards, in order."""
        key = (epoch, run)
        if key in self._runs:
            self._runs.move_to_end(key)
            return self._runs[key]
        permuted = self._plan(epoch)[0]
        shards = permuted[run * self._shards_together : (run + 1) * self._shards_together]
        ids = np.concatenate(
            [np.arange(self.sizes[shard], dtype=np.int64) + self.first_ids[shard] for shard in shards]
        )
        self._runs[key] = _permuted(ids, hash_of(self.seed, epoch, _STREAM_SAMPLES))
        if len(self._runs) > self._kept_runs:
            self._runs.popitem(last=False)
        return self._runs[key]


def _permuted(values: Int64s, base: int) -> Int64s:
    """Values ordered by the hash of each: a permutation that depends on the values and the base alone."""
    shuffled: Int64s = values[np.argsort(hash_each(base, values), kind="stable")]
    return shuffled
