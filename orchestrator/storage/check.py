"""Whether a place can keep a sweep: every operation that one needs, on one small object, before anything is spent."""

from __future__ import annotations

import os
import secrets
import statistics
import time

from orchestrator.errors import StorageError
from orchestrator.storage.base import Store

_NUM_READS = 5
_PROBE = b"probe"


def check_store(store: Store, *, num_reads: int = _NUM_READS) -> float:
    """Create, list, read, replace and delete an object; returns the middle time of a read in milliseconds.

    Raises:
        StorageError: One of them does not work here.
    """
    folder = (
        f".doctor-{os.getpid()}-{secrets.token_hex(4)}/"  # of its own, as a listing walks all of a folder
    )
    key = f"{folder}probe"
    try:
        if not store.create(key, _PROBE) or store.create(key, b"other"):
            raise StorageError(
                f"{store.uri}: a new object cannot be told from one that was there, so that two drivers would write to "
                "one sweep; use a file system with hard links, or a server with conditional writes (If-None-Match)"
            )
        times_ms = [_read_ms(store, key) for _ in range(num_reads)]
        if key not in {info.key for info in store.list(folder)}:
            raise StorageError(
                f"{store.uri}: an object that was just written is not listed; allow listing the prefix"
            )
        store.write(key, _PROBE)
    finally:
        store.delete(key)
    return statistics.median(times_ms)


def _read_ms(store: Store, key: str) -> float:
    started_s = time.monotonic()
    if store.read(key) != _PROBE:
        raise StorageError(f"{store.uri}: what was read back differs from what was written")
    return 1000 * (time.monotonic() - started_s)
