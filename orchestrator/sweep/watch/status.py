"""How a sweep stands, for a person and for a program, from its folder alone: no driver is asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.config import parse_config
from orchestrator.config.models import RunConfig
from orchestrator.errors import NotFoundError
from orchestrator.protocol.events import Entry, GenerationDecided, Reported, SweepResumed, SweepStarted
from orchestrator.protocol.metrics import IMAGES_PER_S, LOSS, RANKING
from orchestrator.protocol.writing import plain_fields
from orchestrator.storage import Store
from orchestrator.sweep.core import (
    Ledger,
    SweepRecord,
    TrialRecord,
    apply,
    ledger_of,
    schedule_of,
    schedule_text,
)
from orchestrator.sweep.journal import Runs, driver_text, read_events
from orchestrator.text import counted

_FIRST_EVENT = "/journal/00000000.json"


@dataclass
class SweepStatus:
    """A sweep's folder, read once and then again as it grows."""

    store: Store
    record: SweepRecord = field(default_factory=SweepRecord)
    runs: Runs = field(default_factory=Runs)
    """Where the sweep was looked for."""
    num_events: int = 0
    config: RunConfig | None = None
    """The newest, as the record's."""
    driver: str = ""
    """Who drove the sweep just before its newest events were read; empty when nobody did."""

    def refresh(self) -> list[Entry]:
        """Read the events that are new and fold them in; returns them.

        Raises:
            NotFoundError: There is no sweep in the folder.
        """
        self.driver = driver_text(
            self.store
        )  # before the events: one that ends in between has journaled its end
        fresh = read_events(self.store, after=self.num_events)
        for entry in fresh:
            apply(self.record, entry)
        self.num_events += len(fresh)
        if not self.record.sweep_id:
            raise self.runs.missing(self.store.uri.rpartition("/")[2])
        if self.config is None or any(
            isinstance(entry.event, SweepStarted | SweepResumed) for entry in fresh
        ):
            self.config = parse_config(self.record.config_text, source=f"{self.store.uri}/config.yaml")
        return fresh

    @property
    def state(self) -> str:
        """The sweep's state; `crashed` when it was running and nobody drives it any more.

        `exhausted` when it ended since its budget was spent.
        """
        if self.record.state == "running" and not self.driver:
            return "crashed"
        if self.record.state == "finished" and self.record.is_exhausted:
            return "exhausted"
        return self.record.state

    @property
    def kind(self) -> str:
        """What it is: `sweep`, `run` of one configuration, `long run` of a sweep's best, or `reproduction`."""
        assert self.config is not None
        for origin, kind in (("reproduction of ", "reproduction"), ("best of ", "long run")):
            if self.record.origin.startswith(origin):
                return kind
        return "sweep" if self.config.sweep.space or self.config.sweep.points else "run"

    def _state_of(self, trial: TrialRecord) -> str:
        """A trial's state; one that was running when its driver crashed waits, as after any other end."""
        return "pending" if trial.state == "running" and self.state == "crashed" else trial.shown_state

    def ledger(self) -> Ledger:
        """Where the hours went up to now."""
        assert self.config is not None
        now_s = time.time() if self.state == "running" else None
        return ledger_of(self.record, self.config.budget, now_s=now_s)

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        assert self.config is not None
        return {
            "sweep_id": self.record.sweep_id,
            "kind": self.kind,
            "origin": self.record.origin,
            "state": self.state,
            "driver": self.driver,
            "ledger": self.ledger().to_json(),
            "notes": list(self.record.notes),
            "generations": [_generation_json(event) for event in self.record.generations],
            "trials": [self._trial_json(trial) for trial in self.record.in_order()],
        }

    def text(self) -> str:
        """As lines for a person."""
        assert self.config is not None
        done = sum(trial.done for trial in self.record.trials.values())
        head = f"{self.record.sweep_id}: {self.state}" + (f" ({self.driver})" if self.driver else "")
        lines = [f"{head}, {done} of {counted(len(self.record.trials), 'trial')} done"]
        for trial in self.record.in_order():
            lines.append(_trial_line(trial, self._state_of(trial), self.config.sweep.metric))
            if trial.takeovers:
                schedule = schedule_of(self.record, trial.trial_id)
                lines.append(f"       weights of {schedule_text(self.config, schedule)}")
        lines += [f"note: {note}" for note in self.record.notes]
        return "\n".join([*lines, "", self.ledger().text()])

    def _trial_json(self, trial: TrialRecord) -> dict[str, object]:
        assert self.config is not None
        found = _trial_json(trial, self._state_of(trial), self.config.sweep.metric)
        if self.config.sweep.pbt is not None:
            found["schedule"] = [each.to_json() for each in schedule_of(self.record, trial.trial_id)]
        return found


def list_sweeps(store: Store) -> list[SweepStatus]:
    """Every sweep below a folder of runs, newest first."""
    found = []
    for info in store.list():
        name, first, rest = info.key.partition(_FIRST_EVENT)
        if first and not rest and "/" not in name:
            status = SweepStatus(store.child(name))
            try:
                status.refresh()
            except NotFoundError:
                continue  # a driver that ended before it wrote anything but its own start
            found.append(status)
    return sorted(found, key=lambda status: status.record.started_ms, reverse=True)


def event_line(entry: Entry) -> str:
    """An event of the journal as one line: when, what, and its figures; rows of metrics as their number."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time_s))
    known = (
        "sequence",
        "time_ms",
        "writer",
        "kind",
        "config",
        "folder",
        "correct",
        "environment",
        "rows",
        "ranking",
        "takeovers",
    )
    parts = [
        f"{key}={_words(value)}"
        for key, value in entry.to_json().items()
        if key not in known and value not in (None, "")
    ]
    for row in entry.event.rows if isinstance(entry.event, Reported) else ():
        shown = {LOSS: ".4f", RANKING: ".1f", IMAGES_PER_S: ".0f"}
        parts += [f"{key}={row.metrics[key]:{form}}" for key, form in shown.items() if key in row.metrics]
    return f"{when}  {entry.event.kind:<16}  {' '.join(parts)}".rstrip()


def _words(value: object) -> str:
    """A value for a reader: what is in a dictionary as `key value`, what is in a list with `-` or commas between."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_words(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, (Mapping, list, tuple)) for item in value):
            return " | ".join(map(_words, value))
        return ("-" if _is_range(value) else ", ").join(map(_words, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_range(value: Sequence[object]) -> bool:
    numbers = [item for item in value if isinstance(item, (int, float)) and not isinstance(item, bool)]
    return len(value) == len(numbers) == 2 and numbers[0] <= numbers[1]


def _trial_line(trial: TrialRecord, state: str, metric: str) -> str:
    value = trial.metrics.get(metric)
    shown = "" if value is None else f"{value:.1f}"
    line = (
        f"  {trial.index:03d}  {trial.trial_id}  {state:<9}"
        f"{trial.images:>12,} of {trial.total_images:,} images  {shown:>6}  {trial.name}"
    )
    return line + (f"  ({trial.reason})" if trial.reason else "")


def _generation_json(event: GenerationDecided) -> dict[str, object]:
    return {key: value for key, value in plain_fields(event).items() if key != "reason"}


def _trial_json(trial: TrialRecord, state: str, metric: str) -> dict[str, object]:
    return {
        "trial_id": trial.trial_id,
        "index": trial.index,
        "point": trial.point.to_json(),
        "seed": trial.seed,
        "state": state,
        "reason": trial.reason,
        "images": trial.images,
        "total_images": trial.total_images,
        metric: trial.metrics.get(metric),
        "attempts": len(trial.attempts),
    }
