"""The global order of samples: a pure function of (seed, epoch, shard sizes), whatever reads it.

    epoch e:  shards permuted -> cut into windows of `window_shards` -> samples shuffled within each window

Position p of the endless concatenation of epochs maps to a sample in time proportional to a window, so a run resumes
anywhere without replaying, and any number of ranks and threads can each take its share. Randomness is a counter-based
hash (splitmix64), independent of library versions. Also draws the per-sample numbers of augmentation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_STREAM_SHARDS, _STREAM_SAMPLES, STREAM_CROP = 1, 2, 3
_KEPT_WINDOWS = 4


def hash_of(*values: int) -> int:
    """A 64-bit hash of integers."""
    state = 0
    for value in values:
        state = _mix_int((state + _GOLDEN + value) & _MASK)
    return state


def hash_each(base: int, values: Int64s) -> NDArray[np.uint64]:
    """`hash_of(..., value)` for each value, where `base` is the hash of what stands before it."""
    state = values.astype(np.uint64) + np.uint64((base + _GOLDEN) & _MASK)
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def uniforms(seed: int, epoch: int, sample_id: int, *, stream: int, count: int) -> Floats:
    """`count` numbers in [0, 1), a function of (seed, epoch, sample, stream) alone."""
    base = hash_of(seed, epoch, stream, sample_id)
    drawn: Floats = (hash_each(base, np.arange(count)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return drawn


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
        self.seed, self.window_shards = seed, window_shards
        self._plans: OrderedDict[int, tuple[Int64s, Int64s]] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int], Int64s] = OrderedDict()

    def locate(self, positions: Int64s) -> tuple[Int64s, Int64s]:
        """Epochs and sample ids at positions of the endless stream."""
        epochs, offsets = np.divmod(positions, self.num_samples)
        ids = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            starts = self._plan(epoch)[1]
            here = epochs == epoch
            windows = np.searchsorted(starts, offsets, side="right") - 1
            for window in np.unique(windows[here]).tolist():
                chosen = here & (windows == window)
                ids[chosen] = self._window(epoch, window)[offsets[chosen] - starts[window]]
        return epochs, ids

    def shards_at(self, position: int, num_windows: int = 1) -> list[int]:
        """Indices of the shards of the window at a position and of those after it, in the order of the epochs."""
        epoch, offset = divmod(position, self.num_samples)
        window = int(np.searchsorted(self._plan(epoch)[1], offset, side="right")) - 1
        shards: list[int] = []
        for _ in range(num_windows):
            permuted = self._plan(epoch)[0]
            shards += permuted[window * self.window_shards : (window + 1) * self.window_shards].tolist()
            window += 1
            if window * self.window_shards >= len(permuted):
                epoch, window = epoch + 1, 0
        return shards

    def _plan(self, epoch: int) -> tuple[Int64s, Int64s]:
        """The epoch's shards in order, and the offset at which each window starts."""
        if epoch not in self._plans:
            shards = np.arange(len(self.sizes))
            permuted = _permuted(shards, hash_of(self.seed, epoch, _STREAM_SHARDS))
            ends = np.cumsum(self.sizes[permuted])
            starts = np.concatenate([[0], ends[self.window_shards - 1 :: self.window_shards]])
            num_windows = -(-len(shards) // self.window_shards)
            self._plans[epoch] = (permuted, starts[:num_windows].astype(np.int64))
            if len(self._plans) > _KEPT_WINDOWS:
                self._plans.popitem(last=False)
        return self._plans[epoch]

    def _window(self, epoch: int, window: int) -> Int64s:
        """The sample ids of a window, in order."""
        key = (epoch, window)
        if key not in self._windows:
            permuted = self._plan(epoch)[0]
            shards = permuted[window * self.window_shards : (window + 1) * self.window_shards]
            ids = np.concatenate(
                [np.arange(self.sizes[shard], dtype=np.int64) + self.first_ids[shard] for shard in shards]
            )
            self._windows[key] = _permuted(ids, hash_of(self.seed, epoch, _STREAM_SAMPLES))
            if len(self._windows) > _KEPT_WINDOWS:
                self._windows.popitem(last=False)
        return self._windows[key]


def _permuted(values: Int64s, base: int) -> Int64s:
    """Values ordered by the hash of each: a permutation that depends on the values and the base alone."""
    shuffled: Int64s = values[np.argsort(hash_each(base, values), kind="stable")]
    return shuffled


def _mix_int(value: int) -> int:
    value ^= value >> 30
    value = (value * 0xBF58476D1CE4E5B9) & _MASK
    value ^= value >> 27
    value = (value * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
