"""What a sweep's journal holds: one frozen class for each kind of event, and the entry that places it.

`parse` is the one reader and `Entry.to_json` the one writer. Events that this version does not know are refused: a
state that is folded without them would be wrong. Fields with a default are missing in early journals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias, get_args

from orchestrator.errors import StorageError
from orchestrator.protocol.point import Point
from orchestrator.protocol.reading import Misfit, UnknownField, read
from orchestrator.protocol.reports import Action, BestCheckpoint, Decision, Row, TrialReport
from orchestrator.protocol.writing import LEFT_OUT, plain_fields

VERSION = 1
"""The newest version of events that is read here; those of version 1 do not say theirs."""

Settings: TypeAlias = Mapping[str, object]
"""Values by dotted key."""

TrialEnd = Literal["finished", "stopped", "failed"]
SweepEnd = Literal["finished", "interrupted", "paused", "cancelled", "failed"]


@dataclass(frozen=True, kw_only=True)
class DriverStarted:
    """A driver has taken the journal over; one before it writes no more."""

    kind: ClassVar[str] = "driver_started"


@dataclass(frozen=True, kw_only=True)
class SweepStarted:
    """A sweep begins: its configuration as YAML, and the folder from which its relative paths are meant."""

    kind: ClassVar[str] = "sweep_started"
    sweep_id: str
    name: str
    config: str
    folder: str = ""
    environment: Settings
    data: Settings
    notes: tuple[str, ...]
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class SweepResumed:
    """A sweep goes on, under this configuration where it is told."""

    kind: ClassVar[str] = "sweep_resumed"
    environment: Settings = field(default_factory=dict)
    config: str | None = field(default=None, metadata=LEFT_OUT)
    folder: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class SweepExtended:
    """Trials become longer: `train.images` before and from now on."""

    kind: ClassVar[str] = "sweep_extended"
    before_images: int
    train_images: int


@dataclass(frozen=True, kw_only=True)
class BudgetExhausted:
    """No more can be paid."""

    kind: ClassVar[str] = "budget_exhausted"
    reason: str


@dataclass(frozen=True, kw_only=True)
class SweepEnded:
    """A driver has ended in good order."""

    kind: ClassVar[str] = "sweep_ended"
    state: SweepEnd


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A place of the search space and what was measured there: the metric and, for a trade-off, device hours."""

    units: Mapping[str, float]
    value: float
    hours: float = math.nan


@dataclass(frozen=True, kw_only=True)
class WarmStarted:
    """What is taken from an earlier sweep: one entry a point, its seeds averaged; `notes` say what and why not."""

    kind: ClassVar[str] = "warm_started"
    source: str
    heard: tuple[Heard, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WeightsTaken:
    """A member of a population goes on from another one's weights, `parent`, under these settings."""

    trial_id: str
    parent: str
    settings: Point


@dataclass(frozen=True, kw_only=True)
class GenerationDecided:
    """What is decided at the end of a generation, which counts from 1."""

    kind: ClassVar[str] = "generation_decided"
    generation: int
    images: int
    ranking: tuple[tuple[str, float], ...]
    takeovers: tuple[WeightsTaken, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class AskedTrial:
    """A trial that a round of seeds asks for."""

    point: Point
    seed: int


@dataclass(frozen=True, kw_only=True)
class SeedsAdded:
    """One round of further seeds.

    Geometries are named by their trial under the first seed: `contenders` are in, `dropped` went out in this round.
    """

    kind: ClassVar[str] = "seeds_added"
    trials: tuple[AskedTrial, ...]
    contenders: tuple[str, ...]
    dropped: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class SeedsSettled:
    """No more seeds, and why."""

    kind: ClassVar[str] = "seeds_settled"
    reason: str


@dataclass(frozen=True, kw_only=True)
class TrialPlanned:
    """A trial is known: a point of the search space under one seed."""

    kind: ClassVar[str] = "trial_planned"
    trial_id: str
    index: int
    point: Point
    seed: int
    name: str
    total_images: int


@dataclass(frozen=True, kw_only=True)
class TrialExtended:
    """A trial becomes longer."""

    kind: ClassVar[str] = "trial_extended"
    trial_id: str
    total_images: int


@dataclass(frozen=True, kw_only=True)
class TrialRevived:
    """A stop is undone: no rule stops the trial again."""

    kind: ClassVar[str] = "trial_revived"
    trial_id: str


@dataclass(frozen=True, kw_only=True)
class TrialEnded:
    """Nothing is left to run of a trial."""

    kind: ClassVar[str] = "trial_ended"
    trial_id: str
    state: TrialEnd
    reason: str


@dataclass(frozen=True, kw_only=True)
class AttemptStarted:
    """A slot begins with a trial, on the devices that the slot holds."""

    kind: ClassVar[str] = "attempt_started"
    trial_id: str
    attempt_id: str
    slot_id: str = ""
    num_gpus: float
    num_cpus: float


@dataclass(frozen=True, kw_only=True)
class AttemptEnded:
    """A slot is done with a trial, for good or not; `error` is empty where it returned by itself."""

    kind: ClassVar[str] = "attempt_ended"
    trial_id: str
    attempt_id: str
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A trial's report, and what it was answered; `value` is the ranking metric at its images, NaN where it has none.

    `rung` is None also where the coordinator leaves the rung open.
    """

    kind: ClassVar[str] = "report"
    attempt_id: str
    value: float
    action: Action
    reason: str
    trial_id: str
    images: int
    rows: tuple[Row, ...]
    rung: int | None
    final: bool = False
    checkpoint: str | None = None
    correct: Mapping[str, str]
    best: BestCheckpoint | None = field(default=None, metadata=LEFT_OUT)

    @classmethod
    def of(
        cls, report: TrialReport, answer: Decision, *, attempt_id: str, value: float, rung: int | None
    ) -> Reported:
        """A report with its answer."""
        return cls(
            attempt_id=attempt_id,
            value=value,
            action=answer.action,
            reason=answer.reason,
            trial_id=report.trial_id,
            images=report.images,
            rows=report.rows,
            rung=rung,
            final=report.final,
            checkpoint=report.checkpoint,
            correct=report.correct,
            best=report.best,
        )


@dataclass(frozen=True, kw_only=True)
class RungDecided:
    """A trial that waited at a rung, in images, hears whether it goes on."""

    kind: ClassVar[str] = "rung_decided"
    trial_id: str
    rung: int
    action: Action
    reason: str


@dataclass(frozen=True, kw_only=True)
class SlotStarted:
    """Resources are allocated to a slot from now on."""

    kind: ClassVar[str] = "slot_started"
    slot_id: str
    num_gpus: float
    num_cpus: float
    num_workers: int = 1


@dataclass(frozen=True, kw_only=True)
class SlotResizing:
    """A slot is to start again with another number of workers."""

    kind: ClassVar[str] = "slot_resizing"
    slot_id: str
    num_workers: int


@dataclass(frozen=True, kw_only=True)
class SlotEnded:
    """A slot's resources are returned; `error` is empty where it ended by itself."""

    kind: ClassVar[str] = "slot_ended"
    slot_id: str
    error: str = ""


SweepEvent: TypeAlias = (
    DriverStarted | SweepStarted | SweepResumed | SweepExtended | BudgetExhausted | SweepEnded
)
SearchEvent: TypeAlias = WarmStarted | GenerationDecided | SeedsAdded | SeedsSettled
TrialEvent: TypeAlias = (
    TrialPlanned
    | TrialExtended
    | TrialRevived
    | TrialEnded
    | AttemptStarted
    | AttemptEnded
    | Reported
    | RungDecided
)
SlotEvent: TypeAlias = SlotStarted | SlotResizing | SlotEnded
Event: TypeAlias = SweepEvent | SearchEvent | TrialEvent | SlotEvent

KINDS: Mapping[str, type[Event]] = {each.kind: each for each in get_args(Event)}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An event in its place in the journal; times are Unix, `writer` is the driver that wrote it."""

    sequence: int
    time_ms: int
    writer: str = ""
    event: Event

    @property
    def time_s(self) -> float:
        """When it happened, in seconds."""
        return self.time_ms / 1000

    @property
    def trial_id(self) -> str | None:
        """The trial that it is about; None where it is about none, or about several."""
        return self.event.trial_id if isinstance(self.event, TrialEvent) else None

    def to_json(self) -> dict[str, object]:
        """As the journal holds it."""
        version = {"version": VERSION} if VERSION > 1 else {}
        head = {"sequence": self.sequence, "time_ms": self.time_ms, **version}
        writer = {"writer": self.writer} if self.writer else {}
        return {**head, **writer, "kind": self.event.kind, **plain_fields(self.event)}


def parse(data: object, *, where: str) -> Entry:
    """Read an entry; `where` names the object that held it.

    Raises:
        StorageError: It is damaged, or a newer version wrote it.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str):
        raise damaged(where, "it names no kind of event")
    if type(data.get("time_ms")) is not int:
        raise damaged(where, "it has no time")
    kind, version = data["kind"], data.get("version", 1)
    if type(version) is not int or version < 1:
        raise damaged(where, f"its version is no number from 1 on: {version!r:.80}")
    if version > VERSION:
        raise _newer(where, f"its event ({kind}) is of version {version}, known are those up to {VERSION}")
    if kind not in KINDS:
        raise _newer(where, f"no kind of event is called {kind!r:.80}")
    try:
        event = read(KINDS[kind], {key: value for key, value in data.items() if key not in _HEAD})
        head = read(_Head, {key: data[key] for key in ("sequence", "time_ms", "writer") if key in data})
    except UnknownField as err:
        raise _newer(where, f"its event ({kind}) holds more than is known of: {err}") from err
    except Misfit as err:
        raise damaged(where, f"its event ({kind}) cannot be understood: {err}") from err
    return Entry(sequence=head.sequence, time_ms=head.time_ms, writer=head.writer, event=event)


def damaged(where: str, reason: str) -> StorageError:
    """What is said of an event that cannot be read."""
    return StorageError(
        f"{where}: is damaged ({reason}); without it the sweep cannot be told: put it back from a copy"
    )


def _newer(where: str, reason: str) -> StorageError:
    return StorageError(
        f"{where}: {reason}; a newer orchestrator wrote it: read and resume this sweep with that version"
    )


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What every event has, and `kind` and `version` beside it."""

    sequence: int
    time_ms: int
    writer: str = ""


_HEAD = ("sequence", "time_ms", "writer", "kind", "version")
