"""The sweep's journal: every decision as one small immutable object, appended in order.

Each event is `journal/NNNNNNNN.json` in the sweep's folder, written atomically, on a disk and on S3 alike: a kill
leaves a whole prefix of the history and nothing half-written. The state of a sweep (`record`) is a fold over it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.errors import StorageError
from orchestrator.storage import Store

_FOLDER = "journal"


class Journal:
    """Append-only events under one sweep's folder; a single writer."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._next = len(self._keys())

    def append(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Write one event and return it; it is durable when this returns.

        Raises:
            StorageError: The event exists already: another driver writes to this sweep.
        """
        key = f"{_FOLDER}/{self._next:08d}.json"
        event = {"sequence": self._next, "time_ms": time.time_ns() // 1_000_000, "kind": kind, **fields}
        if self.store.exists(key):
            raise StorageError(f"{self.store.uri}/{key} exists already: another driver writes to this sweep")
        self.store.write(key, json.dumps(event, sort_keys=True).encode())
        self._next += 1
        return event

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every event, in order."""
        for key in self._keys():
            yield json.loads(self.store.read(key))

    def _keys(self) -> list[str]:
        infos = self.store.list(f"{_FOLDER}/")
        return sorted(info.key for info in infos if info.key.endswith(".json"))


def read_events(store: Store) -> list[Mapping[str, Any]]:
    """Every event of the sweep whose folder is `store`; empty when there is none."""
    return list(Journal(store))
