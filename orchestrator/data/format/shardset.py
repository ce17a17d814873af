"""A shard set that is ready to be read, and a reader of its samples by number.

`ShardSet` is a value: it is pickled to workers and opened again cheaply. `SampleReader` holds open files and indices
for one process and is used from several threads.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import functools
import itertools
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from orchestrator.data.format.cache import Cache
from orchestrator.data.format.index import ShardIndex, build_index, parse_index
from orchestrator.data.format.labels import CLASS, Value, parse_values
from orchestrator.data.format.manifest import Damage, DamagedShardError, LabelInfo, Manifest, ShardInfo
from orchestrator.errors import DataError, NotFoundError, StorageError
from orchestrator.storage import Store, check_open_files
from orchestrator.text import counted

_MIN_OPEN_SHARDS = 32
_EMPTY_IMAGE, _NO_IMAGE = BAD_IMAGES = ("empty_image", "no_image")
_IMAGE_START = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP", re.DOTALL)
_HEAD_BYTES = 16
_MAX_KEPT_BYTES = 4 * 2**20
_PASSING = (errno.EIO, errno.ESTALE)
"""What a disk or a network mount answers for a while: tried again a few times before it counts as damage."""
_PATIENCE_S = (0.1, 0.4, 1.6)
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class ShardSet:
    """Shards with their manifest: `uri` is where the manifest is, `store` where the shards are."""

    uri: str
    manifest: Manifest
    store: Store
    cache: Cache

    @property
    def digest(self) -> str:
        """SHA-256 of the content, the same wherever the shards lie."""
        return self.manifest.digest

    @property
    def amounts(self) -> Mapping[str, str]:
        """Units of the real numbers that every sample carries, by name."""
        return self.manifest.amounts

    @property
    def labels(self) -> Mapping[str, LabelInfo]:
        """Labels by name."""
        return self.manifest.labels

    @property
    def splits(self) -> Mapping[str, tuple[ShardInfo, ...]]:
        """Shards by split."""
        return self.manifest.splits

    def split(self, name: str) -> tuple[tuple[ShardInfo, ...], int]:
        """The shards of a split and the id of its first sample.

        A sample's id is its index in the manifest, splits one after another in the manifest's order.

        Raises:
            DataError: No such split, or it has no samples.
        """
        first_id = 0
        for split, shards in self.splits.items():
            num_samples = sum(shard.num_samples for shard in shards)
            if split == name and num_samples:
                return shards, first_id
            first_id += num_samples
        known = ", ".join(f"{split} ({self.manifest.num_samples(split)})" for split in self.splits)
        raise DataError(
            f"{self.uri}: no samples in split {name!r}, there are: {known}; set data.train_split and data.test_split"
        )


class Sample(NamedTuple):
    """One sample's image as stored. `shard` and `offset` say where it came from."""

    key: str
    image: memoryview
    shard: str
    offset: int


class _Buffers(threading.local):
    """A thread's memory for one stored image: what was read stays in the processor's cache until it is decoded."""

    def __init__(self) -> None:
        self._memory = memoryview(bytearray())

    def of_thread(self, size: int) -> memoryview:
        """So many bytes, the same memory at each call; very large images get their own."""
        if size > len(self._memory):
            if size > _MAX_KEPT_BYTES:
                return memoryview(bytearray(size))
            self._memory = memoryview(bytearray(size))
        return self._memory[:size]


_buffers = _Buffers()


class OpenShard:
    """An open, indexed shard. Closed when nobody refers to it any more, so that no thread reads a closed file.

    `renew` is called between two tries of a read that found the file stale.
    """

    def __init__(
        self, descriptor: int, index: ShardIndex, info: ShardInfo, renew: Callable[[], None] | None = None
    ) -> None:
        self._descriptor, self.index, self.info, self._renew = descriptor, index, info, renew
        self._spans = index.images_N2.ravel().data  # plain integers, at a third of NumPy's cost

    def __del__(self) -> None:
        os.close(self._descriptor)

    def sample(self, member: int) -> Sample:
        """The image of a sample, by its number in the shard; its bytes are valid until the thread's next call."""
        offset, size = self._spans[2 * member], self._spans[2 * member + 1]
        image = self._fill(_buffers.of_thread(size), offset)
        return Sample(self.index.keys[member], image, self.info.name, offset)

    def bad_images(self) -> Iterator[tuple[int, str]]:
        """The samples whose image is empty, or by its first bytes none that is read, each with its kind of note."""
        for member, (offset, size) in enumerate(self.index.images_N2.tolist()):
            if not size:
                yield member, _EMPTY_IMAGE
            elif not _IMAGE_START.match(self._read(offset, min(size, _HEAD_BYTES))):
                yield member, _NO_IMAGE

    def label_members(self, member: int) -> dict[str, bytes]:
        """The text of each label member beside a sample's image, by extension."""
        spans = {extension: spans_N2[member].tolist() for extension, spans_N2 in self.index.labels_N2.items()}
        return {
            extension: self._read(offset, size) for extension, (offset, size) in spans.items() if offset >= 0
        }

    def _values(self, member: int) -> dict[str, Value]:
        """The numbers and names beside a sample's image, by name; what `.cls` says stands.

        Raises:
            DataError: A label that cannot be read.
        """
        found: dict[str, Value] = {}
        for extension, text in self.label_members(member).items():
            try:
                found |= parse_values(extension, text)
            except (ValueError, RecursionError) as err:
                if extension == "txt":  # a caption
                    continue
                key = self.index.keys[member]
                raise DataError(
                    f"{self.info.name}: {key}.{extension} holds no label; pack the data again"
                ) from err
        return found

    def checked_labels(self, member: int, known: Mapping[str, LabelInfo]) -> dict[str, int]:
        """The labels of a sample, which must be all those that are known, each within its classes.

        Raises:
            DataError: One is missing, or stands for no class.
        """
        values, found = self._values(member) if known else {}, dict[str, int]()
        for name, info in known.items():
            number = info.class_of(values.get(name))
            if number is None:
                rule = "the name of a class" if info.named else f"0 to {info.num_classes - 1}"
                raise DataError(f"label {name} is {values.get(name)}, must be {rule}")
            found[name] = number
        return found

    def checked_amounts(self, member: int, known: Collection[str]) -> dict[str, float]:
        """The amounts of a sample that are known, each a finite number.

        Raises:
            DataError: One is missing or is no finite number.
        """
        numbers = self._values(member) if known else {}
        found = {name: _as_float(numbers.get(name)) for name in known}
        for name, value in found.items():
            if not math.isfinite(value):
                raise DataError(f"amount {name} is {numbers.get(name)}, must be a finite number")
        return found

    def members(self, member: int, known: Mapping[str, LabelInfo]) -> tuple[str, dict[str, bytes]]:
        """The key of a sample, and the bytes of its image and labels by extension; a class by name becomes a number."""
        found = {self.index.extensions[member].rpartition(".")[2]: bytes(self.sample(member).image)}
        found |= {name: text for name, text in self.label_members(member).items() if name != "txt"}
        if CLASS in known and known[CLASS].named:
            found.pop("cls", None)
            with contextlib.suppress(DataError):  # a damaged label: the sample is written without
                number = known[CLASS].class_of(self._values(member).get(CLASS))
                found |= {} if number is None else {"cls": str(number).encode()}
        return self.index.keys[member], found

    def _read(self, offset: int, size: int) -> bytes:
        return bytes(self._fill(memoryview(bytearray(size)), offset))

    def _fill(self, out: memoryview, offset: int) -> memoryview:
        """Fill `out` with the shard's bytes from `offset`; returns it."""
        try:
            filled = self._fill_once(out, offset)
            while filled < len(out):
                count = self._fill_once(out[filled:], offset + filled)
                if not count:
                    raise DataError(
                        f"{self.info.name}: ends before byte {offset + len(out)}; the shard changed while it was read"
                    )
                filled += count
        except OSError as err:
            raise DataError(
                f"{self.info.name}: cannot be read at byte {offset} ({err.strerror}); check the disk or the mount"
            ) from err
        return out

    def _fill_once(self, part: memoryview, offset: int) -> int:
        return patiently(lambda: os.preadv(self._descriptor, (part,), offset), self._renew)


class SampleReader:
    """Reads samples by id, from files in place or through the cache; safe to use from several threads.

    A shard is opened and indexed by one thread while the others that want it wait for that one. That a shard is
    damaged is remembered, so that it is not fetched again for each of its samples.
    """

    def __init__(self, shards: ShardSet, *, max_open: int = _MIN_OPEN_SHARDS) -> None:
        self.shards = shards
        self.infos = [info for infos in shards.splits.values() for info in infos]
        self.max_open = max(max_open, _MIN_OPEN_SHARDS)
        self._ends = list(itertools.accumulate(info.num_samples for info in self.infos))
        self._starts = [0, *self._ends[:-1]]
        self._lock = threading.Lock()
        self._opening: dict[int, Future[OpenShard]] = {}
        self._opened: dict[int, OpenShard] = {}
        self._last_use: dict[int, int] = {}
        self._clock = itertools.count()
        self._damaged: dict[int, Damage] = {}

    @property
    def is_remote(self) -> bool:
        """Whether shards come through the cache."""
        return self.shards.store.local_path("manifest.json") is None

    def locate(self, sample_id: int) -> tuple[int, int]:
        """The shard's number and the sample's number in it."""
        shard = bisect.bisect_right(self._ends, sample_id)
        return shard, sample_id - self._starts[shard]

    def first_id(self, shard: int) -> int:
        """The id of a shard's first sample."""
        return self._starts[shard]

    def key(self, sample_id: int) -> str:
        """The key of a sample."""
        shard, member = self.locate(sample_id)
        return self.open(shard).index.keys[member]

    def keys(self, shard: int) -> tuple[str, ...]:
        """The keys of a shard, by its number in the manifest; a shard whose index is kept is not opened."""
        info = self.infos[shard]
        kept = self.shards.cache.read_index(info.sha256)
        index = parse_index(kept) if kept is not None else None
        is_good = index is not None and len(index.keys) == info.num_samples
        return index.keys if index is not None and is_good else self.open(shard).index.keys

    def from_shard_on(self, shard: int) -> Iterator[int]:
        """A shard and those after it in its split, then the split's first ones; each once, empty ones left out."""
        split = self.infos[shard].split
        same = [number for number, info in enumerate(self.infos) if info.split == split and info.num_samples]
        yield from [number for number in same if number >= shard]
        yield from [number for number in same if number < shard]

    def open(self, shard: int) -> OpenShard:
        """An open shard, by its number in the manifest.

        Raises:
            DamagedShardError: Missing, or not what the manifest says.
            StorageError: It cannot be fetched.
        """
        opened = self._opened.get(shard)  # without a lock: this is asked for every sample
        if opened is None:
            opened = self._wait_or_open(shard)
        self._last_use[shard] = next(self._clock)
        return opened

    def _wait_or_open(self, shard: int) -> OpenShard:
        with self._lock:
            if shard in self._damaged:
                raise DamagedShardError(*self._damaged[shard])
            if shard in self._opened:
                return self._opened[shard]
            future = self._opening.get(shard)
            is_mine = future is None
            if future is None:
                future = self._opening[shard] = Future()
        try:
            if is_mine:
                self._open_one(shard, future)
            return future.result()
        finally:
            del future  # it holds an error, whose traceback holds this frame and the batch of its callers

    def _open_one(self, shard: int, future: Future[OpenShard]) -> None:
        try:
            opened = open_shard(self.shards, self.infos[shard])
        except BaseException as err:
            with self._lock:
                del self._opening[shard]
                if isinstance(err, DamagedShardError):
                    # Not the error itself: its traceback would keep batches alive.
                    self._damaged[shard] = (err.where, err.reason, err.remedy, err.offset)
            future.set_exception(err)
            del future
            return
        with self._lock:
            del self._opening[shard]
            while len(self._opened) >= self.max_open:
                oldest = min(self._opened, key=lambda number: self._last_use.get(number, -1))
                del self._opened[oldest]
            self._opened[shard] = opened
            self._last_use[shard] = next(self._clock)
        future.set_result(opened)


def open_shard(shards: ShardSet, info: ShardInfo) -> OpenShard:
    """Open one shard and find its members; a local one is read in place, another from the cache.

    Raises:
        DamagedShardError: Missing, of another size, or with another number of samples than the manifest says.
        StorageError: It cannot be fetched, or too many files are open.
    """
    where = f"{shards.store.uri}/{info.name}"
    with _opening(shards, where):
        descriptor = _open_file(shards, info, where)
        renew = functools.partial(_renew, shards, info, where, descriptor)
        try:
            index = patiently(lambda: _index_of(shards.cache, descriptor, info, where), renew)
        except BaseException:
            os.close(descriptor)
            raise
        return OpenShard(descriptor, index, info, renew)


@contextlib.contextmanager
def _opening(shards: ShardSet, where: str) -> Iterator[None]:
    """Tell why a shard cannot be opened."""
    try:
        yield
    except (OSError, StorageError) as err:
        check_open_files(err, f"{where}: cannot open the shard", or_else=", or lower data.shuffle_shards")
        if isinstance(err, OSError):
            raise StorageError(
                f"{where}: cannot open the shard ({err.strerror}); check the disk, and that "
                f"{shards.cache.folder} (data.cache_dir) can be written"
            ) from err
        raise


def patiently(call: Callable[[], _Result], renew: Callable[[], None] | None = None) -> _Result:
    """Call, again after a while where a disk or a mount fails in a way that passes.

    `renew` opens a stale file anew before the next try: no read of it succeeds any more.

    Raises:
        OSError: Another failure, or the last one.
    """
    for wait_s in _PATIENCE_S:
        try:
            return call()
        except OSError as err:
            if err.errno not in _PASSING:
                raise
            is_stale = err.errno == errno.ESTALE
        time.sleep(wait_s * random.uniform(0.5, 1.0))
        if is_stale and renew is not None:
            renew()
    return call()


def _renew(shards: ShardSet, info: ShardInfo, where: str, descriptor: int) -> None:
    """Have an open descriptor refer to the file that now has the shard's path; other threads may be reading it."""
    with _opening(shards, where):
        fresh = _open_file(shards, info, where)
        try:
            os.dup2(fresh, descriptor, inheritable=False)
        finally:
            os.close(fresh)


def _open_file(shards: ShardSet, info: ShardInfo, where: str) -> int:
    path = shards.store.local_path(info.name)
    if path is not None:
        return _open_local(path, info, where)
    try:
        return shards.cache.open_shard(
            shards.store, info.name, size_bytes=info.size_bytes, sha256=info.sha256
        )
    except NotFoundError as err:
        raise DamagedShardError(
            where, "the manifest names this shard, but it is not there", "upload it again"
        ) from err


def _open_local(path: Path, info: ShardInfo, where: str) -> int:
    try:
        descriptor = patiently(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as err:
        check_open_files(err, f"{where}: cannot open the shard")
        raise DamagedShardError(
            where, f"cannot read the shard ({err.strerror})", "restore it or pack again"
        ) from err
    found_bytes = os.fstat(descriptor).st_size
    if found_bytes != info.size_bytes:
        os.close(descriptor)
        raise DamagedShardError(
            where,
            f"{found_bytes:,} bytes where the manifest says {info.size_bytes:,}, truncated or replaced",
            "pack or copy it again",
            min(found_bytes, info.size_bytes),
        )
    return descriptor


def _index_of(cache: Cache, descriptor: int, info: ShardInfo, where: str) -> ShardIndex:
    kept = cache.read_index(info.sha256)
    index = parse_index(kept) if kept is not None else None
    if index is None or len(index.keys) != info.num_samples:
        index = build_index(descriptor, where)
        if len(index.keys) == info.num_samples:
            cache.write_index(info.sha256, index.to_json())
    if len(index.keys) != info.num_samples:
        reason = f"{counted(len(index.keys), 'sample')} where the manifest says {info.num_samples}"
        if index.damage:
            reason += f" ({index.damage})"
        raise DamagedShardError(where, reason, "pack the data again", index.damage_offset)
    return index


def _as_float(value: Value | None) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
