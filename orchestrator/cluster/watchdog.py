"""Notices that the cluster under a running driver is gone: its node's raylet, or the cluster's GCS.

Stock Ray leaves a driver hanging for ever when its raylet dies, and ends it without a word a minute after the GCS did.
The watchdog asks both for a TCP connection every second from a thread of its own, which needs nothing of Ray, and
calls `on_cluster_loss` when one of them has refused for longer than its limit. The caller ends the process:
no call into Ray can be trusted to return by then. The journal and the checkpoints are whole at any moment, so the
sweep can go on.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from orchestrator.errors import ClusterError
from orchestrator.storage import OPEN_FILES_REMEDY, find_open_files_limit

_log = logging.getLogger(__name__)
_POLL_S = 1.0
_CONNECT_LIMIT_S = 3.0
LOCAL_LIMITS_S = {"raylet": 5.0, "GCS": 5.0}
"""On a cluster of our own nothing restarts these processes."""
JOINED_LIMITS_S = {"raylet": 10.0, "GCS": 45.0}
"""A GCS with fault tolerance may come back; Ray itself gives up after 60 s."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A process of the cluster: what it is, where it listens, and how long it may be silent."""

    name: str
    host: str
    port: int
    limit_s: float


@dataclass
class Silence:
    """How long something has been silent; time is the caller's clock in seconds."""

    limit_s: float
    since_s: float | None = None

    def observe(self, *, answers: bool, now_s: float) -> bool:
        """Note an observation; returns whether the silence is longer than its limit."""
        if answers:
            self.since_s = None
            return False
        if self.since_s is None:
            self.since_s = now_s
        return now_s - self.since_s >= self.limit_s


@contextmanager
def watchdog(
    limits_s: Mapping[str, float], on_cluster_loss: Callable[[ClusterError], None]
) -> Iterator[None]:
    """Watch the connected cluster in a `with` block; `on_cluster_loss` is called in the watching thread."""
    ended = threading.Event()
    watched = find_watched(limits_s)
    thread = threading.Thread(
        target=watch, args=(watched, ended, on_cluster_loss), name="watchdog", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()


def watch(
    watched: tuple[Watched, ...], ended: threading.Event, on_cluster_loss: Callable[[ClusterError], None]
) -> None:
    """Ask each process in turn until `ended` is set or one of them is lost."""
    silences = {process: Silence(process.limit_s) for process in watched}
    while not ended.wait(_POLL_S):
        for process, silence in silences.items():
            is_lost = silence.observe(answers=answers(process), now_s=time.monotonic())
            if is_lost and not ended.is_set():
                _log.info("no answer from the %s at %s:%d", process.name, process.host, process.port)
                on_cluster_loss(lost_error(process))
                return


def answers(process: Watched) -> bool:
    """Whether it takes a connection; True where this process can open none, which says nothing of the other."""
    try:
        with socket.create_connection((process.host, process.port), timeout=_CONNECT_LIMIT_S):
            return True
    except OSError as err:
        limit = find_open_files_limit(err)
        if limit is not None:
            _log.warning("cannot ask the %s (%s); %s", process.name, limit, OPEN_FILES_REMEDY)
        return limit is not None


def lost_error(process: Watched) -> ClusterError:
    """The error that ends the driver."""
    return ClusterError(
        f"the cluster is lost: its {process.name} at {process.host}:{process.port} has not answered for "
        f"{process.limit_s:g} s; the journal and every checkpoint are safe"
    )


def find_watched(limits_s: Mapping[str, float]) -> tuple[Watched, ...]:
    """The raylet of this driver's node and the GCS of the cluster that this process is connected to."""
    context = ray.get_runtime_context()
    gcs_host, _, gcs_port = context.gcs_address.rpartition(":")
    found = [Watched(name="GCS", host=gcs_host.strip("[]"), port=int(gcs_port), limit_s=limits_s["GCS"])]
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id() and node["NodeManagerPort"]:
            raylet = node["NodeManagerAddress"], int(node["NodeManagerPort"])
            found.append(Watched(name="raylet", host=raylet[0], port=raylet[1], limit_s=limits_s["raylet"]))
    return tuple(found)
