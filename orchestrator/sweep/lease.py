"""One driver a sweep: a lease in the sweep's folder that its holder renews and a second driver is refused by.

A holder that was killed on this machine is recognised by its process; one on another machine by a lease that does not
change while it is watched. A driver that takes over from one that is only slow is safe too: the journal fences the
slower one off (`journal.Journal.take_over`).
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.errors import NotFoundError, StorageError
from orchestrator.storage import Store

_log = logging.getLogger(__name__)
_KEY = "driver.json"
RENEW_S = 5.0
WATCH_S = 3 * RENEW_S


@contextmanager
def driver_lease(store: Store, *, renew_s: float = RENEW_S, watch_s: float = WATCH_S) -> Iterator[None]:
    """Hold the lease of the sweep whose folder is `store` for the length of a `with` block.

    Raises:
        StorageError: Another driver holds it and is alive.
    """
    token = secrets.token_hex(8)
    for _ in range(2):
        if store.create(_KEY, _content(token, 0)):
            break
        holder = _read(store)
        if holder is not None and _is_alive(store, holder, watch_s):
            raise StorageError(
                f"{store.uri}: a driver runs this sweep already, process {holder['pid']} on {holder['host']}; "
                "wait for it, or end it first"
            )
        store.delete(_KEY)
    else:
        raise StorageError(f"{store.uri}: another driver has just taken this sweep over")
    done = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(store, token, renew_s, done), name="driver-lease", daemon=True
    )
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        if (held := _read(store)) is not None and held["token"] == token:
            store.delete(_KEY)


def driver_text(store: Store) -> str:
    """Who drives the sweep whose folder is `store`, in words; empty when nobody does, as far as can be told."""
    holder = _read(store)
    if holder is None:
        return ""
    if holder["host"] == socket.gethostname() and holder["process_started"]:
        is_alive = _process_started(holder["pid"]) == holder["process_started"]
        return f"process {holder['pid']}" if is_alive else ""
    return f"process {holder['pid']} on {holder['host']}"


def _renew(store: Store, token: str, renew_s: float, done: threading.Event) -> None:
    count = 0
    while not done.wait(renew_s):
        count += 1
        try:
            held = _read(store)
            if held is not None and held["token"] != token:
                _log.error("%s: another driver has taken this sweep over", store.uri)
                return
            store.write(_KEY, _content(token, count))
        except StorageError as err:
            _log.warning("the lease cannot be renewed now: %s", err)


def _content(token: str, count: int) -> bytes:
    pid = os.getpid()
    holder = {
        "token": token,
        "count": count,
        "host": socket.gethostname(),
        "pid": pid,
        "process_started": _process_started(pid),
    }
    return json.dumps(holder).encode()


def _read(store: Store) -> dict[str, Any] | None:
    try:
        holder: dict[str, Any] = json.loads(store.read(_KEY))
    except NotFoundError:
        return None
    return holder


def _is_alive(store: Store, holder: dict[str, Any], watch_s: float) -> bool:
    if holder["host"] == socket.gethostname() and holder["process_started"]:
        return bool(_process_started(holder["pid"]) == holder["process_started"])
    until_s = time.monotonic() + watch_s
    while time.monotonic() < until_s:
        time.sleep(min(1.0, watch_s / 10))
        if _read(store) != holder:
            return True
    return False


def _process_started(pid: int) -> str:
    """When a process of this machine started, in the kernel's ticks; empty when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
