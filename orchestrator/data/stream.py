"""The stream of training batches of one rank, and the labelled images of the probes.

The global batch at step s is positions [s * batch_size, (s + 1) * batch_size) of the endless order; each rank takes its
contiguous share. Threads decode a few batches ahead (Pillow frees the interpreter while it decodes), another fetches
the next window's shards. Nothing here depends on the number of threads or ranks but speed.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from orchestrator.config.models import DataConfig
from orchestrator.data.decode import Box, Pixels, UndecodableError, central_box, decode_into, random_box
from orchestrator.data.order import GlobalOrder, Int64s
from orchestrator.data.quarantine import BadSample, GoodSamples, Quarantine
from orchestrator.data.shardset import SampleReader, ShardSet
from orchestrator.errors import DataError

# B images of a rank's share of a batch, C channels, H W pixels, N images of a probe.
_PROBE_WINDOW_SHARDS = 64
_READ_AHEAD_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's share of a global batch; `keys` are the samples' names in their shards."""

    images_uint8_BCHW: Tensor
    sample_ids_B: Tensor
    epochs_B: Tensor
    keys: list[str]


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images without augmentation and their integer labels by name."""

    images_uint8_NCHW: Tensor
    labels: dict[str, Tensor]
    keys: list[str]


class BatchStream:
    """Iterates over one rank's batches from `start_step` to `total_steps`; a context manager.

    `batch_size` is the global one. `wait_s` adds up the seconds that the caller waited for data. An error in a thread
    is raised by the iteration.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        data: DataConfig,
        image_size_px: int,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        start_step: int,
        total_steps: int,
    ) -> None:
        infos, first_id = shards.split(data.train_split)
        sizes = [info.num_samples for info in infos]
        self._order = GlobalOrder(sizes, seed=seed, window_shards=data.shuffle_shards, first_id=first_id)
        self._share = (batch_size * rank // world_size, batch_size * (rank + 1) // world_size)
        self._batch_size, self._total_steps, self._next_step = batch_size, total_steps, start_step
        self._quarantine = Quarantine(self._order.num_samples)
        reader = SampleReader(shards, max_open=3 * data.shuffle_shards)
        self._crop = _Cropper(data=data, seed=seed, image_size_px=image_size_px)
        self._samples = GoodSamples(reader, self._quarantine)
        self._pool = ThreadPoolExecutor(data.loader_threads, "decode") if data.loader_threads else None
        self._num_ahead = data.loader_threads + 1
        self._pending: deque[Future[Batch]] = deque()
        self._read_ahead = _ReadAhead(reader, self._order, first_shard=_first_shard(shards, data.train_split))
        self.wait_s = 0.0

    @property
    def num_bad_samples(self) -> int:
        """Samples that could not be used and were replaced, each counted once."""
        return len(self._quarantine)

    @property
    def bad_samples(self) -> tuple[BadSample, ...]:
        """The samples that could not be used, where they are and why."""
        return self._quarantine.entries

    def take_wait_s(self) -> float:
        """Seconds waited for data since the last call."""
        waited_s, self.wait_s = self.wait_s, 0.0
        return waited_s

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        started_s = time.monotonic()
        try:
            while self._next_step < self._total_steps and len(self._pending) < max(1, self._num_ahead):
                self._pending.append(self._start(self._next_step))
                self._next_step += 1
            if not self._pending:
                raise StopIteration
            return self._pending.popleft().result()
        finally:
            self.wait_s += time.monotonic() - started_s

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; batches that are being decoded are finished and thrown away."""
        self._read_ahead.close()
        self._pending.clear()
        self._next_step = self._total_steps
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, step: int) -> Future[Batch]:
        positions = np.arange(*self._share, dtype=np.int64) + step * self._batch_size
        epochs, ids = self._order.locate(positions)
        self._read_ahead.at(step * self._batch_size)
        if self._pool is not None:
            return self._pool.submit(self._load, epochs, ids)
        future: Future[Batch] = Future()
        future.set_result(self._load(epochs, ids))
        return future

    def _load(self, epochs: Int64s, ids: Int64s) -> Batch:
        side = self._crop.image_size_px
        pixels_BHWC = np.empty((len(ids), side, side, 3), dtype=np.uint8)
        used, keys = np.empty_like(ids), [""] * len(ids)
        for row in np.argsort(ids).tolist():
            use = functools.partial(self._crop, pixels_BHWC[row], int(epochs[row]))
            used[row], keys[row] = self._samples.take(int(ids[row]), use)
        return Batch(
            images_uint8_BCHW=_channels_first(pixels_BHWC),
            sample_ids_B=torch.from_numpy(used),
            epochs_B=torch.from_numpy(epochs),
            keys=keys,
        )


@dataclass(frozen=True, kw_only=True)
class _Cropper:
    """Decodes an image and takes its random-resized crop."""

    data: DataConfig
    seed: int
    image_size_px: int

    def __call__(self, out_HWC: Pixels, epoch: int, image: bytes, sample_id: int) -> None:
        def box(width_px: int, height_px: int) -> Box:
            return random_box(
                width_px,
                height_px,
                scale=self.data.crop_scale,
                aspect_ratio=self.data.crop_aspect_ratio,
                seed=self.seed,
                epoch=epoch,
                sample_id=sample_id,
            )

        decode_into(image, out_HWC, box)


class _ReadAhead:
    """Opens the shards of this window and the next in a thread, so that downloads run before they are needed."""

    def __init__(self, reader: SampleReader, order: GlobalOrder, *, first_shard: int) -> None:
        self._reader, self._order, self._first = reader, order, first_shard
        self._is_remote = reader.shards.store.local_path("manifest.json") is None
        self._wanted: list[int] = []
        self._is_closed = threading.Event()
        self._pool = ThreadPoolExecutor(1, "read-ahead") if self._is_remote else None

    def at(self, position: int) -> None:
        """Tell where the stream is."""
        if self._pool is None:
            return
        shards = self._order.shards_at(position, 2)
        if shards != self._wanted:
            self._wanted = shards
            self._pool.submit(self._open, self._affordable(shards))

    def close(self) -> None:
        """Stop after the shard that is being fetched."""
        self._is_closed.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _affordable(self, shards: Sequence[int]) -> list[int]:
        """The first shards that together take at most half of the cache."""
        left = _READ_AHEAD_SHARE * self._reader.shards.cache.limit_bytes
        chosen = []
        for shard in dict.fromkeys(shards):
            left -= self._reader.infos[self._first + shard].size_bytes
            if left < 0:
                break
            chosen.append(shard)
        return chosen

    def _open(self, shards: Sequence[int]) -> None:
        for shard in shards:
            if self._is_closed.is_set():
                return
            try:
                self._reader.open(self._first + shard)
            except Exception:  # the stream meets the same error when it needs the shard, and raises it
                return


def load_images(
    shards: ShardSet, split: str, num_images: int, *, image_size_px: int, threads: int = 1
) -> LabelledImages:
    """Up to `num_images` of a split: the largest centred square, resized; a sample without its labels is left out.

    Which ones is a function of the manifest alone; they come from few shards, so a probe need not fetch all of them.

    Raises:
        DataError: No such split, or too many samples cannot be used.
    """
    infos, first_id = shards.split(split)
    sizes = [info.num_samples for info in infos]
    order = GlobalOrder(sizes, seed=0, window_shards=_PROBE_WINDOW_SHARDS, first_id=first_id)
    ids = np.sort(order.locate(np.arange(min(num_images, order.num_samples), dtype=np.int64))[1])
    samples = _LabelledSamples(shards, Quarantine(len(ids)))
    pixels_NHWC = np.empty((len(ids), image_size_px, image_size_px, 3), dtype=np.uint8)
    if threads > 1:
        with ThreadPoolExecutor(threads, "probe-images") as pool:
            found = list(pool.map(samples.load, ids.tolist(), pixels_NHWC))
    else:
        found = [
            samples.load(sample_id, out) for sample_id, out in zip(ids.tolist(), pixels_NHWC, strict=True)
        ]
    rows = [row for row, sample in enumerate(found) if sample is not None]
    if not rows:
        raise DataError(
            f"{shards.uri}: none of {len(ids)} images of split {split!r} can be used; pack them again"
        )
    kept = [sample for sample in found if sample is not None]
    return LabelledImages(
        images_uint8_NCHW=_channels_first(pixels_NHWC[rows] if len(rows) < len(ids) else pixels_NHWC),
        labels={name: torch.tensor([labels[name] for _, labels in kept]) for name in shards.labels},
        keys=[key for key, _ in kept],
    )


class _LabelledSamples:
    """Decodes a sample and reads its labels, or puts it into quarantine."""

    def __init__(self, shards: ShardSet, quarantine: Quarantine) -> None:
        self._shards, self._quarantine = shards, quarantine
        self._reader = SampleReader(shards, max_open=_PROBE_WINDOW_SHARDS)

    def load(self, sample_id: int, out_HWC: Pixels) -> tuple[str, dict[str, int]] | None:
        """Key and labels; None when the sample cannot be used."""
        sample = self._reader.sample(sample_id)
        try:
            decode_into(sample.image, out_HWC, central_box)
            return sample.key, self._labels(sample_id)
        except (UndecodableError, DataError) as err:
            self._quarantine.add(
                BadSample(
                    sample_id=sample_id,
                    shard=sample.shard,
                    key=sample.key,
                    offset=sample.offset,
                    reason=str(err),
                )
            )
            return None

    def _labels(self, sample_id: int) -> dict[str, int]:
        found = self._reader.labels(sample_id) if self._shards.labels else {}
        for name, info in self._shards.labels.items():
            if not 0 <= found.get(name, -1) < info.num_classes:
                raise DataError(f"label {name} is {found.get(name)}, must be 0 to {info.num_classes - 1}")
        return found


def _channels_first(pixels_BHWC: Pixels) -> Tensor:
    return torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).contiguous()


def _first_shard(shards: ShardSet, split: str) -> int:
    """The number, in the manifest's splits one after another, of a split's first shard."""
    first = 0
    for name, infos in shards.splits.items():
        if name == split:
            break
        first += len(infos)
    return first
