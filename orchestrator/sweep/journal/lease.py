"""One driver a sweep: a lease in the sweep's folder that its holder renews and a second driver is refused by.

Leases are numbered objects, `driver/NNNNNNNN.json`, and the highest number is the one that counts. A driver takes over
by creating the next number, which of several exactly one can, and nobody deletes a lease that another may have taken
meanwhile; a driver that ends leaves its lease as released. A holder that was killed on this machine is recognised by
its process; one on another machine by a lease that does not change while it is watched. A driver that takes over from
one that is only slow is safe too: the journal fences the slower one off (`journal.Journal.take_over`).
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
from dataclasses import dataclass, fields
from pathlib import Path

from orchestrator.errors import NotFoundError, StorageError
from orchestrator.protocol.reading import read
from orchestrator.protocol.writing import plain_fields
from orchestrator.storage import Store

_log = logging.getLogger(__name__)
_FOLDER = "driver"
RENEW_S = 5.0
WATCH_S = 3 * RENEW_S


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """Who holds a lease, as the store has it; a negative `count` says that it was released."""

    token: str
    count: int
    host: str
    pid: int
    process_started: str


@contextmanager
def driver_lease(store: Store, *, renew_s: float = RENEW_S, watch_s: float = WATCH_S) -> Iterator[None]:
    """Hold the lease of the sweep whose folder is `store` for the length of a `with` block.

    Raises:
        StorageError: Another driver holds it and is alive.
    """
    token = secrets.token_hex(8)
    number, holder = _latest(store)
    if holder is not None and _is_alive(store, number, holder, watch_s):
        raise StorageError(
            f"{store.uri}: a driver runs this sweep already, process {holder.pid} on {holder.host}; "
            "wait for it, or end it first"
        )
    number += 1
    if not store.create(_key(number), _content(token, 0)):
        raise StorageError(f"{store.uri}: another driver has just taken this sweep over")
    done = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(store, number, token, renew_s, done), name="driver-lease", daemon=True
    )
    renewing.start()
    try:
        _delete_before(store, number)
        yield
    finally:
        done.set()
        renewing.join()
        if _latest(store)[0] == number:
            store.write(_key(number), _content(token, -1))


def driver_text(store: Store) -> str:
    """Who drives the sweep whose folder is `store`, in words; empty when nobody does, as far as can be told."""
    holder = _latest(store)[1]
    if holder is None:
        return ""
    if holder.host == socket.gethostname() and holder.process_started:
        is_alive = _process_started(holder.pid) == holder.process_started
        return f"process {holder.pid}" if is_alive else ""
    return f"process {holder.pid} on {holder.host}"


def _renew(store: Store, number: int, token: str, renew_s: float, done: threading.Event) -> None:
    count = 0
    while not done.wait(renew_s):
        count += 1
        try:
            if _latest(store)[0] > number:
                _log.error("%s: another driver has taken this sweep over", store.uri)
                return
            store.write(_key(number), _content(token, count))
        except StorageError as err:
            _log.warning("the sweep's lock cannot be renewed now, it is tried again: %s", err)


def _key(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"


def _content(token: str, count: int) -> bytes:
    """A lease; a negative `count` says that it was released."""
    pid = os.getpid()
    holder = _Holder(
        token=token,
        count=count,
        host=socket.gethostname(),
        pid=pid,
        process_started=_process_started(pid),
    )
    return json.dumps(plain_fields(holder)).encode()


def _latest(store: Store) -> tuple[int, _Holder | None]:
    """The number of the newest lease, 0 if there is none, and its holder; None when it was released."""
    keys = [info.key for info in store.list(f"{_FOLDER}/")]
    if not keys:
        return 0, None
    number = int(keys[-1].removeprefix(f"{_FOLDER}/").removesuffix(".json"))
    return number, _read(store, number)


def _read(store: Store, number: int) -> _Holder | None:
    try:
        told = json.loads(store.read(_key(number)))
        # What a newer version adds says nothing about who holds the lease.
        known = [each.name for each in fields(_Holder) if isinstance(told, dict) and each.name in told]
        holder = read(_Holder, {name: told[name] for name in known})
        return holder if holder.count >= 0 else None
    except NotFoundError:  # a newer one was taken meanwhile
        return None
    except ValueError as err:
        raise StorageError(
            f"{store.uri}/{_key(number)}: is damaged, so who drives this sweep is not known; delete it if nobody does"
        ) from err


def _delete_before(store: Store, number: int) -> None:
    for info in store.list(f"{_FOLDER}/"):
        if info.key < _key(number):
            store.delete(info.key)


def _is_alive(store: Store, number: int, holder: _Holder, watch_s: float) -> bool:
    if holder.host == socket.gethostname() and holder.process_started:
        return bool(_process_started(holder.pid) == holder.process_started)
    until_s = time.monotonic() + watch_s
    while time.monotonic() < until_s:
        time.sleep(min(1.0, watch_s / 10))
        found = _read(store, number)
        if found != holder:
            return found is not None
    return False


def _process_started(pid: int) -> str:
    """When a process of this machine started, in the kernel's ticks; empty when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
