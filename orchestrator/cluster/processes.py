"""Ending what is left of a local Ray that broke: its own processes and all that they started."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import ray


def kill_own_processes() -> None:
    """SIGKILL to every process of the Ray that this process started.

    By itself a raylet without its GCS stays for a minute, and so do the agents of a raylet that was killed, which wait
    for an answer of the GCS.
    """
    node = ray._private.worker._global_node
    if node is None:
        return
    with suppress(Exception):  # the process ends next, whatever happens here
        roots = [info.process.pid for infos in node.all_processes.values() for info in infos]
        below = descendants(roots)
        node.kill_all_processes(check_alive=False, allow_graceful=False)
        for pid in below:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def descendants(roots: Iterable[int]) -> list[int]:
    """Processes that were started by these, directly or not, and have not outlived their parents; Linux alone."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    frontier = list(roots)
    while frontier:
        frontier = [child for pid in frontier for child in children.get(pid, [])]
        found += frontier
    return found
