"""The sweep's journal: every decision as one small immutable object, appended in order.

Each event is `journal/NNNNNNNN.json` in the sweep's folder, created only where none is, on a disk and on S3 alike: a
kill leaves a whole prefix of the history and nothing half-written, and of two writers the second fails at its next
event. An event whose write was answered with an error may be there all the same: the writer recognises it when its
place turns out to be taken, and goes on behind it. The state of a sweep (`record`) is a fold over it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.errors import StorageError
from orchestrator.storage import Store

_FOLDER = "journal"
_TAKE_OVER_TRIES = 100


class Journal:
    """Append-only events under one sweep's folder; a single writer at a time."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.store, self._clock = store, clock
        self.writer = secrets.token_hex(4)
        self._found: list[dict[str, Any]] = []
        self._next = len(self._keys())

    def append(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Write one event and return it; it is durable when this returns.

        Raises:
            StorageError: The event exists already: another driver writes to this sweep.
        """
        event = self._try_append(kind, fields)
        while event is None and self._find_own():
            event = self._try_append(kind, fields)
        if event is None:
            raise StorageError(
                f"{self.store.uri}/{self._key()} exists already: another driver writes to this sweep"
            )
        return event

    def take_found(self) -> list[dict[str, Any]]:
        """Own events that were written although their `append` raised, found since this was last asked; in order."""
        found, self._found = self._found, []
        return found

    def take_over(self, **fields: Any) -> dict[str, Any]:
        """Append `driver_started`, after whatever an earlier writer that is just dying still appends.

        From then on the earlier writer fails: the place of its next event is taken.
        """
        for _ in range(_TAKE_OVER_TRIES):
            event = self._try_append("driver_started", fields)
            if event is not None:
                return event
            self._next = len(self._keys())
        raise StorageError(f"{self.store.uri}: another driver writes to this sweep all the time")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every event, in order."""
        for key in self._keys():
            yield _read_event(self.store, key)

    def _try_append(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        event = {
            "sequence": self._next,
            "time_ms": int(1000 * self._clock()),
            "writer": self.writer,
            "kind": kind,
            **fields,
        }
        if not self.store.create(self._key(), json.dumps(event).encode()):
            return None
        self._next += 1
        return event

    def _find_own(self) -> bool:
        """Whether the next place holds an event of this very writer, which is then taken as written."""
        event = _read_event(self.store, self._key())
        if event.get("writer") != self.writer:
            return False
        self._found.append(event)
        self._next += 1
        return True

    def _key(self) -> str:
        return f"{_FOLDER}/{self._next:08d}.json"

    def _keys(self) -> list[str]:
        infos = self.store.list(f"{_FOLDER}/")
        return sorted(info.key for info in infos if info.key.endswith(".json"))


def read_events(store: Store, after: int = 0) -> list[Mapping[str, Any]]:
    """The events of the sweep whose folder is `store`, from number `after` on; empty when there is none.

    Raises:
        StorageError: An event is damaged or missing.
    """
    keys = Journal(store)._keys()
    if _first_gap(keys) is not None:
        keys = Journal(
            store
        )._keys()  # one that was written while the folder was listed may be left out of the list
    if (gap := _first_gap(keys)) is not None:
        raise StorageError(
            f"{store.uri}/{gap}: is missing though later events are there; without it the sweep cannot be told: put "
            "it back from a copy"
        )
    return [_read_event(store, key) for key in keys[after:]]


def _first_gap(keys: Sequence[str]) -> str | None:
    """The first event that is missing before others."""
    expected = (f"{_FOLDER}/{number:08d}.json" for number in range(len(keys)))
    return next((wanted for wanted, key in zip(expected, keys, strict=True) if wanted != key), None)


def _read_event(store: Store, key: str) -> dict[str, Any]:
    """One event.

    Raises:
        StorageError: It is damaged.
    """
    try:
        event = json.loads(store.read(key))
    except ValueError as err:
        raise _damaged(store, key, str(err)) from err
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        raise _damaged(store, key, "it names no kind of event")
    if not isinstance(event.get("time_ms"), int):
        raise _damaged(store, key, "it has no time")
    return event


def _damaged(store: Store, key: str, reason: str) -> StorageError:
    return StorageError(
        f"{store.uri}/{key}: is damaged ({reason}); without it the sweep cannot be told: put it back from a copy"
    )
