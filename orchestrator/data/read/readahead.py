"""Opens the shards of the coming steps in threads, in the order of need, so that downloads run before they are needed.

Follows one rank's stream, so only the shards of its own lanes are fetched. As many shards as are being read, and no
more than half of the cache, are ahead at a time. Owns no retry: an error is left for the stream to meet.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from orchestrator.data.format import SampleReader
from orchestrator.errors import OrchestratorError

DOWNLOADS_IN_FLIGHT = 4
_SHARE_OF_CACHE = 0.5
_MAX_STEPS_AHEAD = 10_000


class ReadAhead:
    """Looks ahead of a stream; `shards_of_step` names the shards that a step reads. Used by the stream's thread alone.

    Does nothing for shards that are read in place, nor once all shards of the split are met and can stay open.
    """

    def __init__(
        self,
        reader: SampleReader,
        shards_of_step: Callable[[int], list[int]],
        *,
        first_step: int,
        total_steps: int,
        num_shards: int,
    ) -> None:
        self._reader, self._shards_of_step = reader, shards_of_step
        self._next_step, self._total_steps = first_step, total_steps
        self._num_shards = num_shards
        self._bytes_left = _SHARE_OF_CACHE * reader.shards.cache.limit_bytes
        self._ahead: OrderedDict[int, int] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._num_in_split = Counter(info.split for info in reader.infos if info.num_samples)
        self._is_closed, self._is_done = threading.Event(), False
        self._pool = ThreadPoolExecutor(DOWNLOADS_IN_FLIGHT, "read-ahead") if reader.is_remote else None

    def at(self, step: int) -> None:
        """Tell that the stream is about to read a step."""
        if self._pool is None or self._is_done:
            return
        while self._next_step < self._total_steps and self._next_step <= step + _MAX_STEPS_AHEAD:
            self._forget_until(step)
            if self._next_step > step and not self._has_room():
                return
            for shard in self._shards_of_step(self._next_step):
                self._meet(shard, self._next_step)
            self._next_step += 1
            if self._has_met_all():
                self._is_done = True
                self._pool.shutdown(wait=False)
                return

    def close(self) -> None:
        """Stop after the shards that are being fetched."""
        self._is_closed.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _has_room(self) -> bool:
        return len(self._ahead) < self._num_shards and self._bytes_left > 0

    def _has_met_all(self) -> bool:
        """Whether every shard of the split is open, or will be, and none has to give way to another."""
        split = self._reader.infos[next(iter(self._seen))].split if self._seen else ""
        return len(self._seen) == self._num_in_split[split]

    def _forget_until(self, step: int) -> None:
        """Shards that the stream has reached are no longer ahead of it."""
        while self._ahead and next(iter(self._ahead.values())) <= step:
            shard, _ = self._ahead.popitem(last=False)
            self._bytes_left += self._reader.infos[shard].size_bytes

    def _meet(self, shard: int, step: int) -> None:
        """Open a shard, unless it was met a short while ago and is open still."""
        if shard in self._seen:
            self._seen.move_to_end(shard)
            return
        self._seen[shard] = None
        while len(self._seen) > self._reader.max_open:
            self._seen.popitem(last=False)
        self._ahead[shard] = step
        self._bytes_left -= self._reader.infos[shard].size_bytes
        assert self._pool is not None
        self._pool.submit(self._open, shard)

    def _open(self, shard: int) -> None:
        if self._is_closed.is_set():
            return
        with contextlib.suppress(
            OrchestratorError, OSError
        ):  # the stream meets the same error, and raises it
            self._reader.open(shard)
