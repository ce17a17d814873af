"""Samples that cannot be used: what and why, how many are borne, and what stands in for them.

A broken sample is replaced by the next good one of its shard, so the order of the rest does not change and every rank
and every resumed run sees the same. Above a share of the data the run stops.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.data.decode import UndecodableError
from orchestrator.data.shardset import SampleReader
from orchestrator.errors import DataError

MAX_BAD_FRACTION = 0.01
MIN_BAD_SAMPLES = 16
_MAX_TRIES = 64
UseSample = Callable[[bytes, int], None]
"""Decodes the image of a sample id, or raises `UndecodableError`."""

_log = logging.getLogger(__name__)


def bearable(num_samples: int) -> int:
    """How many bad samples a run on this many bears."""
    return max(MIN_BAD_SAMPLES, int(MAX_BAD_FRACTION * num_samples))


@dataclass(frozen=True, kw_only=True)
class BadSample:
    """One sample that cannot be used: where it is and why."""

    sample_id: int
    shard: str
    key: str
    offset: int
    reason: str


class Quarantine:
    """The bad samples met by one process; safe to use from several threads."""

    def __init__(self, num_samples: int) -> None:
        self._limit = bearable(num_samples)
        self._lock = threading.Lock()
        self._entries: dict[int, BadSample] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[BadSample, ...]:
        """What is in it, by sample id."""
        with self._lock:
            return tuple(entry for _, entry in sorted(self._entries.items()))

    def add(self, entry: BadSample) -> None:
        """Record a bad sample; the same one counts once.

        Raises:
            DataError: More samples are bad than a run bears.
        """
        with self._lock:
            is_new = entry.sample_id not in self._entries
            self._entries[entry.sample_id] = entry
            count = len(self._entries)
        if is_new:
            _log.warning(
                "%s: sample %s at byte %d is left out: %s", entry.shard, entry.key, entry.offset, entry.reason
            )
        if count > self._limit:
            raise DataError(
                f"{entry.shard}: {count} samples cannot be used, more than {self._limit} are not borne; the latest is "
                f"{entry.key!r} ({entry.reason}); repair the data and pack it again"
            )


class GoodSamples:
    """Gives every sample id a usable sample: itself, or the next good one of its shard."""

    def __init__(self, reader: SampleReader, quarantine: Quarantine) -> None:
        self.reader, self.quarantine = reader, quarantine

    def take(self, sample_id: int, use: UseSample) -> tuple[int, str]:
        """Hand samples to `use`, beginning with `sample_id`, until one is used; its id and key are returned.

        Raises:
            DataError: Too many bad samples, or none in this stretch of the shard is good.
        """
        wanted = sample_id
        for _ in range(_MAX_TRIES):
            sample = self.reader.sample(sample_id)
            try:
                use(sample.image, sample_id)
                return sample_id, sample.key
            except UndecodableError as err:
                self.quarantine.add(
                    BadSample(
                        sample_id=sample_id,
                        shard=sample.shard,
                        key=sample.key,
                        offset=sample.offset,
                        reason=str(err),
                    )
                )
            sample_id = self.reader.following(sample_id)
            if sample_id == wanted:
                break
        raise DataError(
            f"{sample.shard}: no image can be decoded near sample {sample.key!r}; verify the shards and pack them again"
        )
