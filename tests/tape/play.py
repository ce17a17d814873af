"""Recording and playing back: one message after the other, with all that comes of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .adapter import Sweeps, Watch
from .form import Flat, canonical, changes, difference, flatten

Json = dict[str, Any]
_SHOWN_LINES = 12


class Machine:
    """The code under test, with what its readers see: takes a message, gives an entry of the tape.

    An entry holds the message, the answer, and of each event what it is, which leaves of the record, `status` and
    `best` it changed, and the calls to the tracker.
    """

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        self.sweeps = Sweeps(configs)
        self._watches: dict[str, Watch] = {}
        self._seen: dict[str, Flat] = {}

    def step(self, message: Mapping[str, Any]) -> Json:
        """Carry a message out."""
        answer = self.sweeps.handle(message)
        events = [self._entry(sweep, event) for sweep, event in self.sweeps.take_events()]
        return plain({"message": message, "answer": answer, "events": events})

    def _entry(self, sweep: str, event: Json) -> Json:
        seen = self._watch(sweep).apply(event)
        named = canonical(self.sweeps.configs.named(event))
        return {"event": named, **self._changed(sweep, seen)}

    def read(self, event: Json) -> Json:
        """An entry of a journal that is only read."""
        return plain(self._changed("", self._watch("").apply(event)))

    def _watch(self, sweep: str) -> Watch:
        if sweep not in self._watches:
            self._watches[sweep] = Watch()
        return self._watches[sweep]

    def _changed(self, sweep: str, seen: Json) -> Json:
        tracker = seen.pop("tracker")
        now = flatten(seen)
        found = {"changes": changes(self._seen.get(sweep, {}), now), "tracker": tracker}
        self._seen[sweep] = now
        return found


def plain(value: Any) -> Json:
    """As it comes back from a file."""
    found: Json = json.loads(json.dumps(value))
    return found


class Session:
    """Records a scenario: sends messages to a machine and keeps what comes of them."""

    def __init__(self, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        self.now_s = 1_800_000_000.0
        self.entries: list[Json] = []
        self.header = plain({"tape": 1, "scenario": name, "configs": configs})
        self._machine = Machine(self.header["configs"])
        self.num_ids = 0

    def send(self, do: str, **fields: Any) -> Any:
        """Send a message now; returns the answer."""
        self.entries.append(self._machine.step(plain({"at_s": self.now_s, "do": do, **fields})))
        return self.entries[-1]["answer"]

    def fresh_id(self, letter: str) -> str:
        """An id that was not used before."""
        self.num_ids += 1
        return f"{letter}{self.num_ids:03d}"

    def lines(self) -> list[Json]:
        """The tape."""
        return [self.header, *self.entries]


def first_difference(lines: Iterable[Json]) -> str:
    """Play a tape back up to the first message of which something else comes; says what. Empty where nothing does."""
    tape = iter(lines)
    machine = Machine(next(tape)["configs"])
    for number, entry in enumerate(tape):
        now = machine.step(entry["message"])
        if now != entry:
            said = f"message {number} at {entry['message']['at_s']:.3f} s: {_short(entry['message'])}"
            return "\n".join([said, *_told(entry, now)])
    return ""


def _told(was: Json, now: Json) -> Iterator[str]:
    yield from _part("answer", was["answer"], now["answer"])
    for place in range(max(len(was["events"]), len(now["events"]))):
        first, second = (each["events"][place : place + 1] for each in (was, now))
        if not first or not second:
            more = (first or second)[0]["event"]
            yield f"  event {'missing' if first else 'added'}: {_short(more)}"
            continue
        kind = first[0]["event"]["kind"]
        for part, title in (
            ("event", f"event {kind}"),
            ("changes", f"seen after {kind}"),
            ("tracker", "tracker"),
        ):
            yield from _part(title, first[0][part], second[0][part])


def _part(title: str, was: Any, now: Any) -> Iterator[str]:
    found = difference(was, now)
    yield from (f"  {title}: {line}" for line in found[:_SHOWN_LINES])
    if len(found) > _SHOWN_LINES:
        yield f"  {title}: and {len(found) - _SHOWN_LINES} more"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 240 else f"{text[:240]}..."


def read_journal(name: str, events: Iterable[Json]) -> list[Json]:
    """A journal that was written before, as a tape: each event and what a reader then sees."""
    machine = Machine({})
    entries = [{"event": event, **machine.read(event)} for event in events]
    return [{"tape": 1, "journal": name}, *entries]


def first_misreading(lines: Iterable[Json]) -> str:
    """Read a journal's tape up to the first event after which a reader sees something else; says what."""
    tape = iter(lines)
    machine = Machine({})
    next(tape)
    for number, entry in enumerate(tape):
        now = machine.read(entry["event"])
        if any(now[part] != entry[part] for part in ("changes", "tracker")):
            parts = [
                *_part("seen", entry["changes"], now["changes"]),
                *_part("tracker", entry["tracker"], now["tracker"]),
            ]
            return "\n".join([f"event {number}: {_short(entry['event'])}", *parts])
    return ""
