"""The stream of training batches of one rank.

The global batch at step s is positions [s * batch_size, (s + 1) * batch_size) of the endless order, sorted by lane;
each rank takes its contiguous share, so it reads the shards of its own lanes. Threads decode a few batches ahead (the
decoders free the interpreter; measured in benchmarks/decode.py against processes), others fetch the coming shards.
Nothing here depends on the number of threads or ranks but speed.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from jepa_core.settings import ImageSize, height_and_width
from orchestrator.config.models import DataConfig
from orchestrator.data.format import Box, Encoded, Pixels, SampleReader, ShardSet
from orchestrator.data.read.decode import decode_into, random_box
from orchestrator.data.read.order import GlobalOrder, Int64s
from orchestrator.data.read.quarantine import BadSample, GoodSamples, Quarantine, ledger_path
from orchestrator.data.read.readahead import ReadAhead

# B images of a rank's share of a batch, C channels, H W pixels.


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's share of a global batch; `keys` are the samples' names in their shards.

    The images' memory is channels last, as they were decoded: the device reorders it faster.
    """

    images_uint8_BCHW: Tensor
    sample_ids_B: Tensor
    epochs_B: Tensor
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
        image_size_px: ImageSize,
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
        self._quarantine = Quarantine(
            self._order.num_samples, max_bad_fraction=data.max_bad_fraction, ledger=ledger_path(shards)
        )
        reader = SampleReader(shards, max_open=3 * data.shuffle_shards)
        self._first_shard = reader.infos.index(infos[0])
        self._crop = _Cropper(data=data, seed=seed, image_size_px=image_size_px)
        self._samples = GoodSamples(reader, self._quarantine)
        self._pool = ThreadPoolExecutor(data.loader_threads, "decode") if data.loader_threads else None
        self._num_ahead = data.loader_threads + 1
        self._pending: deque[Future[Batch]] = deque()
        self._read_ahead = ReadAhead(
            reader,
            self._shards_of_step,
            first_step=start_step,
            total_steps=total_steps,
            num_shards=data.shuffle_shards,
        )
        self.wait_s = 0.0

    @property
    def num_bad_samples(self) -> int:
        """Samples that this rank could not use and replaced, each counted once."""
        return len(self._quarantine)

    @property
    def bad_samples(self) -> tuple[BadSample, ...]:
        """What this rank could not use, where it is and why."""
        return self._quarantine.entries

    @property
    def max_bad_samples(self) -> int:
        """How many bad samples a run bears, over all of its ranks."""
        return self._quarantine.limit

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
        self._read_ahead.at(step)
        epochs, ids = self._share_of_step(step)
        if self._pool is not None:
            return self._pool.submit(self._load, epochs, ids)
        future: Future[Batch] = Future()
        future.set_result(self._load(epochs, ids))
        return future

    def _share_of_step(self, step: int) -> tuple[Int64s, Int64s]:
        """Epochs and sample ids of this rank's share of a global batch."""
        first, end = self._share
        return self._order.locate(self._order.batch(step, self._batch_size)[first:end])

    def _shards_of_step(self, step: int) -> list[int]:
        """The shards that this rank reads at a step, by their numbers in the manifest."""
        shards = self._order.shards_of(self._share_of_step(step)[1])
        return [self._first_shard + shard for shard in shards]

    def _load(self, epochs: Int64s, ids: Int64s) -> Batch:
        pixels_BHWC = np.empty((len(ids), *height_and_width(self._crop.image_size_px), 3), dtype=np.uint8)
        used, keys = np.empty_like(ids), [""] * len(ids)
        for row in np.argsort(ids).tolist():
            use = functools.partial(self._crop, pixels_BHWC[row], int(epochs[row]))
            used[row], keys[row] = self._samples.take(int(ids[row]), use)
        return Batch(
            images_uint8_BCHW=torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2),
            sample_ids_B=torch.from_numpy(used),
            epochs_B=torch.from_numpy(epochs),
            keys=keys,
        )


@dataclass(frozen=True, kw_only=True)
class _Cropper:
    """Decodes an image and takes its random-resized crop."""

    data: DataConfig
    seed: int
    image_size_px: ImageSize

    def __call__(self, out_HWC: Pixels, epoch: int, image: Encoded, sample_id: int) -> None:
        low, high = self.data.crop_aspect_ratio
        own = out_HWC.shape[1] / out_HWC.shape[0]  # a crop is stretched as little where images are not square

        def box(width_px: int, height_px: int) -> Box:
            return random_box(
                width_px,
                height_px,
                scale=self.data.crop_scale,
                aspect_ratio=(low * own, high * own),
                seed=self.seed,
                epoch=epoch,
                sample_id=sample_id,
            )

        decode_into(image, out_HWC, box)
