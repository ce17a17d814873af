"""How many workers a slot runs with: `train.num_workers` where they fit, fewer down to `train.min_workers` else.

A slot takes the most that fit whenever it starts, after a failure too. One that runs with fewer is looked after by
`Growth`: when there is room for more, its trial writes a checkpoint at its next report and the slot starts again with
them, from that very step. The numbers are divisors of `train.num_workers`, so that every worker does as many shares of
a batch (`jepa_core.step.train_step`); nothing else depends on them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import ray

from orchestrator.sweep.client import CoordinatorCalls
from orchestrator.train.loop import draining_nodes
from orchestrator.train.ray import ACCELERATOR_PREFIX, TrialResources

_log = logging.getLogger(__name__)
LOOK_S = 2.0
SETTLE_S = 5.0
"""How long a slot that would start with fewer workers looks for more: resources that were just freed show late."""

FreeResources = Callable[[], Sequence[Mapping[str, float]]]


def free_by_node() -> Sequence[Mapping[str, float]]:
    """What is free on each node that is alive and stays, in Ray's terms; Ray's own figures lag by about a second."""
    leaving = draining_nodes()
    staying = {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving}
    free: Mapping[str, Mapping[str, float]] = ray._private.state.available_resources_per_node()
    return [free[node_id] for node_id in sorted(staying & set(free))]


def count_workers(need: TrialResources, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many workers of this size fit on nodes with these free resources; no worker is spread over two nodes."""
    per_worker = need.per_worker()
    if need.gpu_type is not None and need.gpus_per_worker:
        nodes = [node for node in nodes if ACCELERATOR_PREFIX + need.gpu_type in node]
    return sum(
        min(math.floor(node.get(name, 0.0) / amount + 1e-9) for name, amount in per_worker.items())
        for node in nodes
    )


def choose_size(need: TrialResources, *, num_free: int, num_held: int = 0) -> int | None:
    """The most workers a slot can have that holds `num_held` while there is room for `num_free` more; None: too few."""
    return next((size for size in need.sizes if size <= num_held + num_free), None)


def wait_for_size(need: TrialResources, free: FreeResources, *, settle_s: float = SETTLE_S) -> TrialResources:
    """What a slot starts with now.

    Where not even the fewest fit it is all of them: the cluster's autoscaler should hear what is wanted.
    """
    if len(need.sizes) == 1:
        return need
    until_s = time.monotonic() + settle_s
    while (size := choose_size(need, num_free=count_workers(need, free()))) != need.num_workers:
        if time.monotonic() > until_s:
            break
        time.sleep(0.2)
    return need.with_workers(size or need.num_workers)


class Growth:
    """Looks for room for slots that run with fewer workers than they should."""

    def __init__(
        self,
        coordinator: CoordinatorCalls,
        need: TrialResources,
        free: FreeResources,
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self.coordinator, self.need, self.free, self._look_s = coordinator, need, free, look_s
        self._sizes: dict[str, int] = {}
        self._lock, self._ended = threading.Lock(), threading.Event()
        if len(need.sizes) > 1:
            threading.Thread(target=self._watch, name="growth", daemon=True).start()

    def started(self, slot_id: str, num_workers: int) -> None:
        """A slot starts with this many workers."""
        with self._lock:
            self._sizes[slot_id] = num_workers

    def ended(self, slot_id: str) -> None:
        """A slot runs no more."""
        with self._lock:
            self._sizes.pop(slot_id, None)

    def stop(self) -> None:
        """Look no longer."""
        self._ended.set()

    def look(self) -> str | None:
        """Ask one slot to start again with more workers if there is room; returns which.

        One at a time, the smallest first, and none while a slot is on its way up: what is free is free for one of them.
        """
        with self._lock:
            sizes = sorted((size, slot_id) for slot_id, size in self._sizes.items())
        num_free = (
            count_workers(self.need, self.free()) if sizes and sizes[0][0] < self.need.num_workers else 0
        )
        for held, slot_id in sizes:
            size = choose_size(self.need, num_free=num_free, num_held=held)
            if size is not None and size > held and self.coordinator.resize(slot_id, size):
                _log.warning("worker group %s goes on with %d workers instead of %d", slot_id, size, held)
                return slot_id
        return None

    def _watch(self) -> None:
        while not self._ended.wait(self._look_s):
            try:
                self.look()
            except Exception as err:  # a moment without the GCS must not end the watch
                _log.debug("cannot look for room: %s", err)
