"""Hears that a worker group's node will be taken away, or that its sweep is to stop, and asks for a checkpoint in time.

A cloud's notice reaches Ray as a drain of the node (SIGTERM to `ray start --block`, `infra/ray/spot_watch.sh`, or the
autoscaler). A sweep that was asked to stop does so at its trials' next reports, which may be long in coming. Rank 0
asks Ray for draining nodes, and the coordinator, in a thread, and the loop looks at a flag between two steps: nothing
is exchanged between ranks, since rank 0 alone writes checkpoints and holds the whole state.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import ray

_log = logging.getLogger(__name__)
POLL_S = 2.0
_SWEEP = "the sweep"


@dataclass
class PreemptionNotice:
    """Raised once for every node of `node_ids` that is found in `draining()`, and once when `is_stopping()`."""

    node_ids: frozenset[str]
    draining: Callable[[], Collection[str]]
    is_stopping: Callable[[], bool] = lambda: False
    _known: set[str] = field(default_factory=set)
    _raised: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    def take(self) -> bool:
        """Whether a notice has come since this was last asked."""
        if not self._raised.is_set():
            return False
        self._raised.clear()
        return True

    def look(self) -> None:
        """Ask once."""
        fresh = self.node_ids & set(self.draining()) | ({_SWEEP} if self.is_stopping() else set())
        fresh -= self._known
        if fresh:
            self._known |= fresh
            _log.warning(
                "writing a checkpoint, since these stop or are taken away: %s", ", ".join(sorted(fresh))
            )
            self._raised.set()

    def start(self) -> None:
        """Ask every two seconds from now on, in a daemon thread."""
        threading.Thread(target=self._watch, name="preemption", daemon=True).start()

    def end(self) -> None:
        """Stop asking."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self.look()
            except Exception as err:  # a moment without the GCS must not cost the notice that comes after it
                _log.debug("cannot ask for draining nodes: %s", err)


def notice_of_this_group(is_stopping: Callable[[], bool]) -> PreemptionNotice | None:
    """The notice for the nodes of this worker's placement group and its sweep; None outside of a group."""
    group = ray.util.get_current_placement_group()
    if group is None:
        return None
    nodes = ray.util.placement_group_table(group)["bundles_to_node_id"].values()
    return PreemptionNotice(frozenset(nodes), draining_nodes, is_stopping)


def draining_nodes() -> Collection[str]:
    """The ids of the nodes that will be taken away."""
    found: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return found
