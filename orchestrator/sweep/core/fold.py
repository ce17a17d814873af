"""From the journal's events to the record: what each of them changes.

Pure. Every kind of event is taken here, also those that change nothing; the type checker holds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from orchestrator.errors import StorageError
from orchestrator.protocol.events import (
    AttemptEnded,
    AttemptStarted,
    BudgetExhausted,
    DriverStarted,
    Entry,
    Event,
    GenerationDecided,
    Reported,
    RungDecided,
    SearchEvent,
    SeedsAdded,
    SeedsSettled,
    SlotEnded,
    SlotEvent,
    SlotResizing,
    SlotStarted,
    SweepEnded,
    SweepEvent,
    SweepExtended,
    SweepResumed,
    SweepStarted,
    TrialEnded,
    TrialEvent,
    TrialExtended,
    TrialPlanned,
    TrialRevived,
    WarmStarted,
)
from orchestrator.protocol.metrics import MISSING, PROBE
from orchestrator.protocol.reports import Row
from orchestrator.sweep.core.record import Attempt, Slot, SweepRecord, Takeover, TrialRecord


def fold_events(entries: Iterable[Entry]) -> SweepRecord:
    """The record after a history of events."""
    record = SweepRecord()
    for entry in entries:
        apply(record, entry)
    return record


def apply(record: SweepRecord, entry: Entry) -> None:
    """Fold the next event in.

    Raises:
        StorageError: It is about a trial that no event before it planned.
    """
    begins = isinstance(entry.event, DriverStarted)
    for slot in record.slots.values():
        if slot.is_open and not begins:
            slot.periods[-1][1] = max(slot.periods[-1][1], entry.time_s)
    if begins and record.started_ms:
        record.idle_ms += max(0, entry.time_ms - record.last_ms)
    record.last_ms = entry.time_ms
    try:
        _apply_event(record, entry.event, entry.time_ms)
    except KeyError as err:
        raise StorageError(
            f"{record.sweep_id}: event {entry.sequence} of its journal ({entry.event.kind}) cannot be understood: no "
            f"trial {err} was planned before it; an earlier event is damaged: put it back from a copy"
        ) from err


def _apply_event(record: SweepRecord, event: Event, time_ms: int) -> None:
    if isinstance(event, TrialEvent):
        _apply_trial_event(record, event, time_ms)
    elif isinstance(event, SlotEvent):
        _apply_slot_event(record, event, time_ms / 1000)
    elif isinstance(event, SearchEvent):
        _apply_search_event(record, event)
    else:
        _apply_sweep_event(record, event, time_ms)


def _apply_sweep_event(record: SweepRecord, event: SweepEvent, time_ms: int) -> None:
    match event:
        case DriverStarted():
            _leave_driver(record)
        case SweepStarted():
            _start(record, event, time_ms)
        case SweepResumed():
            _resume(record, event)
        case SweepExtended():
            record.lengths = record.lengths or [event.before_images]
            record.lengths.append(event.train_images)
        case BudgetExhausted():
            record.is_exhausted = True
            record.notes.append(f"{event.reason}; a larger one goes on from there")
        case SweepEnded():
            record.state, record.ended_ms = event.state, time_ms
        case _:
            assert_never(event)


def _apply_search_event(record: SweepRecord, event: SearchEvent) -> None:
    match event:
        case WarmStarted():
            record.warm_start = event
            record.notes += event.notes
        case GenerationDecided():
            _end_generation(record, event)
        case SeedsAdded():
            record.seed_rounds.append(event)
            record.notes.append(event.reason)
        case SeedsSettled():
            record.notes.append(event.reason)
        case _:
            assert_never(event)


def _apply_trial_event(record: SweepRecord, event: TrialEvent, time_ms: int) -> None:
    if isinstance(event, TrialPlanned):
        record.trials.setdefault(event.trial_id, _planned(event))
        return
    trial = record.trials[event.trial_id]
    match event:
        case TrialExtended():
            _extend(trial, event)
        case TrialRevived():
            _revive(trial)
        case TrialEnded():
            trial.state, trial.reason = event.state, event.reason
        case AttemptStarted():
            _start_attempt(trial, event, time_ms / 1000)
        case AttemptEnded():
            _end_attempt(trial, event, time_ms / 1000)
        case Reported():
            _take_report(trial, event, time_ms / 1000)
        case RungDecided():
            trial.decisions[event.rung] = event.action, event.reason
        case _:
            assert_never(event)


def _apply_slot_event(record: SweepRecord, event: SlotEvent, now_s: float) -> None:
    match event:
        case SlotStarted():
            slot = Slot(slot_id=event.slot_id, num_gpus=event.num_gpus, num_cpus=event.num_cpus)
            slot = record.slots.setdefault(slot.slot_id, slot)
            slot.num_gpus, slot.num_cpus = event.num_gpus, event.num_cpus
            slot.periods.append([now_s, now_s])
            slot.sizes.append((slot.num_gpus, slot.num_cpus))
            slot.is_open = True
        case SlotEnded():
            known = record.slots.get(event.slot_id)
            if known is None or not known.is_open:
                return  # its start could not be journaled
            known.periods[-1][1] = now_s
            known.is_open = False
        case SlotResizing():
            pass  # what comes of it is in the slot's next start
        case _:
            assert_never(event)


def _leave_driver(record: SweepRecord) -> None:
    """What an earlier driver held went with it, at its last event as far as is known."""
    for slot in record.slots.values():
        slot.is_open = False
    for trial in record.trials.values():
        if trial.state == "running":
            trial.state = "pending"


def _start(record: SweepRecord, event: SweepStarted, time_ms: int) -> None:
    record.sweep_id, record.name = event.sweep_id, event.name
    record.config_text, record.folder = event.config, event.folder
    record.environment, record.data = event.environment, event.data
    record.notes = list(event.notes)
    record.origin = event.origin
    record.started_ms = time_ms


def _resume(record: SweepRecord, event: SweepResumed) -> None:
    record.state, record.ended_ms, record.is_exhausted = "running", None, False
    if event.config is not None and event.config != record.config_text:
        record.earlier_config_texts.append(record.config_text)
        record.config_text = event.config
    if event.folder is not None:
        record.folder = event.folder


def _end_generation(record: SweepRecord, event: GenerationDecided) -> None:
    record.generations.append(event)
    for each in event.takeovers:
        trial = record.trials[each.trial_id]
        trial.takeovers.append(Takeover(images=event.images, parent=each.parent, settings=each.settings))
        trial.best = None  # it was of the weights that are given up


def _planned(event: TrialPlanned) -> TrialRecord:
    return TrialRecord(
        trial_id=event.trial_id,
        index=event.index,
        point=event.point,
        seed=event.seed,
        name=event.name,
        total_images=event.total_images,
    )


def _extend(trial: TrialRecord, event: TrialExtended) -> None:
    trial.total_images = event.total_images
    trial.was_extended = trial.was_extended or trial.images > 0
    if trial.state == "finished":
        trial.state, trial.reason = "pending", ""


def _revive(trial: TrialRecord) -> None:
    trial.state, trial.reason, trial.revived = "pending", "", True
    trial.decisions = {
        rung: decision for rung, decision in trial.decisions.items() if decision[0] == "continue"
    }


def _start_attempt(trial: TrialRecord, event: AttemptStarted, now_s: float) -> None:
    trial.attempts.setdefault(
        event.attempt_id,
        Attempt(
            attempt_id=event.attempt_id,
            num_gpus=event.num_gpus,
            num_cpus=event.num_cpus,
            started=now_s,
            last_seen=now_s,
            slot_id=event.slot_id,
        ),
    )
    trial.state, trial.reason = "running", ""


def _end_attempt(trial: TrialRecord, event: AttemptEnded, now_s: float) -> None:
    attempt = trial.attempts.get(event.attempt_id)
    if attempt is None:
        return  # its start could not be journaled
    attempt.ended = attempt.last_seen = now_s
    attempt.error = event.error
    if not trial.done:
        trial.state = "pending"


def _take_report(trial: TrialRecord, event: Reported, now_s: float) -> None:
    attempt = trial.attempts.get(event.attempt_id)
    if attempt is not None:
        if attempt.last_report is None and event.images <= trial.images:
            attempt.start_s = max(0.0, now_s - attempt.started)
        attempt.last_report = now_s
        trial.longest_gap_s = max(trial.longest_gap_s, now_s - attempt.last_seen)
        attempt.last_seen = max(attempt.last_seen, now_s)
    for row in event.rows:
        trial.count_energy(row)
        _merge_row(trial, row, attempt_id=event.attempt_id)
    if event.final and trial.history.get(event.images, {}).get(MISSING):
        # What an earlier probe found is not the value of a trial whose last evaluation is missing.
        trial.metrics = {name: value for name, value in trial.metrics.items() if not name.startswith(PROBE)}
    trial.images = max(trial.images, event.images)
    if event.correct:
        trial.correct = dict(event.correct)
    if event.best is not None:
        trial.best = event.best
    if event.rung is not None:
        trial.rungs.setdefault(event.rung, event.value)
        trial.decisions.setdefault(event.rung, (event.action, event.reason))


def _merge_row(trial: TrialRecord, row: Row, *, attempt_id: str) -> None:
    """Take a row's metrics over, the first value of each (images, name), in whatever order rows come.

    A trial's own metrics are the newest by images: those of an asynchronous evaluation come after later ones.
    """
    known = trial.history.setdefault(row.images, {})
    trial.timestamps_ms.setdefault(row.images, row.timestamp_ms)
    trial.reported_by.setdefault(row.images, attempt_id)
    fresh = {name: value for name, value in row.metrics.items() if name not in known}
    if MISSING in fresh and any(name.startswith(PROBE) for name in known):
        del fresh[MISSING]  # it was measured and then thought lost
    known.update(fresh)
    later = [metrics for at, metrics in trial.history.items() if at > row.images]
    trial.metrics.update(
        {name: value for name, value in fresh.items() if not any(name in metrics for metrics in later)}
    )
