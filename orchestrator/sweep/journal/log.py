"""The sweep's journal: every decision as one small immutable object, appended in order.

Each event is `journal/NNNNNNNN.json` in the sweep's folder, created only where none is, on a disk and on S3 alike: a
kill leaves a whole prefix of the history and nothing half-written, and of two writers the second fails at its next
event. An event whose write was answered with an error may be there all the same: the writer recognises it when its
place turns out to be taken, and goes on behind it. The state of a sweep (`record`) is a fold over it. What the events
are is in `orchestrator.protocol.events`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from orchestrator.errors import StorageError
from orchestrator.protocol.events import DriverStarted, Entry, Event, damaged, parse
from orchestrator.storage import Store

_FOLDER = "journal"
_TAKE_OVER_TRIES = 100


class Journal:
    """Append-only events under one sweep's folder; a single writer at a time."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.store, self._clock = store, clock
        self.writer = secrets.token_hex(4)
        self._found: list[Entry] = []
        self._next = len(self._keys())

    def append(self, event: Event) -> Entry:
        """Write one event and return it in its place; it is durable when this returns.

        Raises:
            StorageError: The event exists already: another driver writes to this sweep.
        """
        entry = self._try_append(event)
        while entry is None and self._find_own():
            entry = self._try_append(event)
        if entry is None:
            raise StorageError(
                f"{self.store.uri}/{self._key()} exists already: another driver writes to this sweep"
            )
        return entry

    def take_found(self) -> list[Entry]:
        """Own events that were written although their `append` raised, found since this was last asked; in order."""
        found, self._found = self._found, []
        return found

    def take_over(self) -> Entry:
        """Append that a driver has started, after whatever an earlier writer that is just dying still appends.

        From then on the earlier writer fails: the place of its next event is taken.
        """
        for _ in range(_TAKE_OVER_TRIES):
            entry = self._try_append(DriverStarted())
            if entry is not None:
                return entry
            self._next = len(self._keys())
        raise StorageError(f"{self.store.uri}: another driver writes to this sweep all the time")

    def __iter__(self) -> Iterator[Entry]:
        """Every event, in order."""
        for key in self._keys():
            yield _read_entry(self.store, key)

    def _try_append(self, event: Event) -> Entry | None:
        entry = Entry(sequence=self._next, time_ms=int(1000 * self._clock()), writer=self.writer, event=event)
        if not self.store.create(self._key(), json.dumps(entry.to_json()).encode()):
            return None
        self._next += 1
        return entry

    def _find_own(self) -> bool:
        """Whether the next place holds an event of this very writer, which is then taken as written."""
        data = _read_json(self.store, self._key())
        if not isinstance(data, dict) or data.get("writer") != self.writer:
            return False
        self._found.append(parse(data, where=_where(self.store, self._key())))
        self._next += 1
        return True

    def _key(self) -> str:
        return f"{_FOLDER}/{self._next:08d}.json"

    def _keys(self) -> list[str]:
        infos = self.store.list(f"{_FOLDER}/")
        return sorted(info.key for info in infos if info.key.endswith(".json"))


def read_events(store: Store, after: int = 0) -> list[Entry]:
    """The events of the sweep whose folder is `store`, from number `after` on; empty when there is none.

    Raises:
        StorageError: An event is damaged or missing, or a newer version wrote it.
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
    return [_read_entry(store, key) for key in keys[after:]]


def _first_gap(keys: Sequence[str]) -> str | None:
    """The first event that is missing before others."""
    expected = (f"{_FOLDER}/{number:08d}.json" for number in range(len(keys)))
    return next((wanted for wanted, key in zip(expected, keys, strict=True) if wanted != key), None)


def _read_entry(store: Store, key: str) -> Entry:
    return parse(_read_json(store, key), where=_where(store, key))


def _read_json(store: Store, key: str) -> object:
    """What an event's object holds.

    Raises:
        StorageError: It is no JSON.
    """
    try:
        data: object = json.loads(store.read(key))
    except ValueError as err:
        raise damaged(_where(store, key), str(err)) from err
    return data


def _where(store: Store, key: str) -> str:
    return f"{store.uri}/{key}"
