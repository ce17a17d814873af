"""Samples that cannot be used: what and why, how many are borne, and what stands in for them.

A broken sample is replaced by the next good one of its shard, and a sample of a damaged shard by one of the next sound
shard, so the order of the rest does not change and every rank and every resumed run sees the same. Above a share of the
data the run stops. Each entry is also kept in a ledger in the cache folder, one file for each manifest, and what all
ranks of a trial met, on whichever nodes, beside its checkpoints. `orchestrator shards quarantine` prints both.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.data.format import DamagedShardError, OpenShard, SampleReader, ShardSet, jpeg
from orchestrator.data.read.decode import UndecodableError
from orchestrator.errors import DataError, StorageError
from orchestrator.storage import Store
from orchestrator.text import counted

MAX_BAD_FRACTION = 0.01
MIN_BAD_SAMPLES = 16
_MAX_TRIES = 64
_TRIAL_LEDGER = "quarantine.jsonl"
UseSample = Callable[[jpeg.Encoded, int], None]
"""Decodes the image of a sample id, or raises `UndecodableError`."""

_log = logging.getLogger(__name__)


def bearable(num_samples: int, max_bad_fraction: float = MAX_BAD_FRACTION) -> int:
    """How many bad samples a run on this many bears."""
    return max(MIN_BAD_SAMPLES, int(max_bad_fraction * num_samples)) if max_bad_fraction > 0 else 0


@dataclass(frozen=True, kw_only=True)
class BadSample:
    """What cannot be used, where it is and why: one sample, or `num_samples` of a shard when `key` is empty."""

    shard: str
    key: str
    offset: int
    reason: str
    num_samples: int = 1


class Quarantine:
    """The bad samples met by one process; safe to use from several threads.

    `num_samples` is the size of the split, `max_bad_fraction` the share of it that is borne (at least 16 samples, none
    at 0). With a `ledger`, entries are appended to that file.
    """

    def __init__(
        self, num_samples: int, *, max_bad_fraction: float = MAX_BAD_FRACTION, ledger: Path | None = None
    ) -> None:
        self.limit = bearable(num_samples, max_bad_fraction)
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str, int], BadSample] = {}
        self._ledger = ledger

    def __len__(self) -> int:
        with self._lock:
            return count_samples(self._entries.values())

    @property
    def entries(self) -> tuple[BadSample, ...]:
        """What is in it, by shard and offset."""
        with self._lock:
            return _sorted(self._entries.values())

    def add(self, entry: BadSample) -> None:
        """Record a bad sample; the same one counts once.

        Raises:
            DataError: More samples are bad than a run bears.
        """
        place = (entry.shard, entry.key, entry.offset)
        with self._lock:
            if place in self._entries:
                return
            self._entries[place] = entry
            count = count_samples(self._entries.values())
        _log.warning(
            "%s: %s is left out: %s",
            entry.shard,
            f"sample {entry.key} at byte {entry.offset}" if entry.key else f"all from byte {entry.offset}",
            entry.reason,
        )
        if self._ledger is not None:
            _append(self._ledger, entry)
        check_borne(count, self.limit, entry)

    def add_damage(self, opened: OpenShard) -> None:
        """Record that the end of a shard cannot be read, if that is so."""
        if opened.index.damage:
            self.add(
                BadSample(
                    shard=opened.info.name,
                    key="",
                    offset=opened.index.damage_offset,
                    reason=opened.index.damage,
                )
            )


def check_borne(count: int, limit: int, latest: BadSample) -> None:
    """Stop a run that has met too many bad samples.

    Raises:
        DataError: There are more than `limit`.
    """
    if count > limit:
        what = repr(latest.key) if latest.key else "the shard itself"
        raise DataError(
            f"{latest.shard}: {counted(count, 'sample')} cannot be used, more than {limit} are not borne; the "
            f"latest is {what} ({latest.reason}); repair the data and pack it again, or raise data.max_bad_fraction"
        )


def read_ledger(shards: ShardSet) -> tuple[BadSample, ...]:
    """What runs on this node have found unusable in a shard set, each once, by shard and offset."""
    try:
        return _parsed(ledger_path(shards).read_bytes())
    except FileNotFoundError:
        return ()


def keep_trial_ledger(trial: Store, entries: Iterable[BadSample]) -> None:
    """Add what the ranks of a trial could not use to the ledger in its folder; failing at it stops no run."""
    try:
        kept = _parsed(trial.read(_TRIAL_LEDGER)) if trial.exists(_TRIAL_LEDGER) else ()
        lines = [_line(entry) for entry in _each_once((*kept, *entries))]
        if len(lines) > len(kept):
            trial.write(_TRIAL_LEDGER, b"".join(lines))
    except StorageError as err:
        _log.warning("the list of bad samples cannot be kept in the sweep's folder: %s", err)


def read_sweep_ledger(sweep: Store) -> tuple[BadSample, ...]:
    """What the trials of a sweep could not use, on all of its nodes, each once, by shard and offset."""
    keys = [info.key for info in sweep.list("trials/") if info.key.endswith(f"/{_TRIAL_LEDGER}")]
    return _each_once(entry for key in keys for entry in _parsed(sweep.read(key)))


def ledger_path(shards: ShardSet) -> Path:
    """Where the ledger of a shard set is."""
    return shards.cache.ledgers / f"{shards.digest}.jsonl"


class GoodSamples:
    """Gives every sample id a usable sample: itself, or the next good one."""

    def __init__(self, reader: SampleReader, quarantine: Quarantine) -> None:
        self.reader, self.quarantine = reader, quarantine

    def take(self, sample_id: int, use: UseSample) -> tuple[int, str]:
        """Hand samples to `use`, beginning with `sample_id`, until one is used; its id and key are returned.

        Raises:
            DataError: Too many bad samples, or none in this stretch of the shard is good.
            StorageError: A shard cannot be fetched.
        """
        wanted_shard, member = self.reader.locate(sample_id)
        damage = ""  # the text: an error kept here would keep its frames, and with them whole batches
        for shard in self.reader.from_shard_on(wanted_shard):
            try:
                opened = self.reader.open(shard)
            except DamagedShardError as err:
                damage = str(err)
                self.quarantine.add(damaged_shard(self.reader, shard, err))
                continue
            self.quarantine.add_damage(opened)
            return self._take_from(opened, shard, member % opened.info.num_samples, use)
        raise DataError(f"{damage}; no shard of the split can be used")

    def _take_from(self, opened: OpenShard, shard: int, first: int, use: UseSample) -> tuple[int, str]:
        for attempt in range(min(_MAX_TRIES, opened.info.num_samples)):
            member = (first + attempt) % opened.info.num_samples
            sample = opened.sample(member)
            sample_id = self.reader.first_id(shard) + member
            try:
                use(sample.image, sample_id)
                return sample_id, sample.key
            except UndecodableError as err:
                self.quarantine.add(
                    BadSample(shard=sample.shard, key=sample.key, offset=sample.offset, reason=str(err))
                )
        raise DataError(
            f"{sample.shard}: no image can be decoded near sample {sample.key!r}; verify the shards and pack them again"
        )


def damaged_shard(reader: SampleReader, shard: int, error: DamagedShardError) -> BadSample:
    """The entry of a shard of which nothing can be used."""
    info = reader.infos[shard]
    return BadSample(
        shard=info.name,
        key="",
        offset=error.offset,
        reason=f"{error.reason}; {error.remedy}",
        num_samples=info.num_samples,
    )


def count_samples(entries: Iterable[BadSample]) -> int:
    """How many samples entries stand for."""
    return sum(entry.num_samples for entry in entries)


def _parsed(text: bytes) -> tuple[BadSample, ...]:
    """The entries of a ledger, each once, by shard and offset."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):  # half a line of a process that was killed
            found.append(BadSample(**json.loads(line)))
    return _each_once(found)


def _each_once(entries: Iterable[BadSample]) -> tuple[BadSample, ...]:
    return _sorted({(entry.shard, entry.key, entry.offset): entry for entry in entries}.values())


def _line(entry: BadSample) -> bytes:
    return json.dumps(asdict(entry)).encode() + b"\n"


def _sorted(entries: Iterable[BadSample]) -> tuple[BadSample, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.shard, entry.offset, entry.key)))


def _append(path: Path, entry: BadSample) -> None:
    """One write at the end of the file, so that processes do not mix their lines; a full disk is no reason to stop."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, _line(entry))
        finally:
            os.close(descriptor)
    except OSError as err:
        _log.warning("the list of bad samples %s cannot be written: %s", path, err.strerror or err)
