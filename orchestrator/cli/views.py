"""How a person watches a sweep: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.messages import log_through
from orchestrator.cli.streams import is_live
from orchestrator.config.models import RunConfig
from orchestrator.protocol.events import (
    AttemptStarted,
    BudgetExhausted,
    Entry,
    Event,
    GenerationDecided,
    Reported,
    SeedsAdded,
    SeedsSettled,
    SweepExtended,
    SweepResumed,
    SweepStarted,
    TrialEnded,
    TrialRevived,
    WarmStarted,
)
from orchestrator.protocol.hours import WholeHours
from orchestrator.protocol.metrics import IMAGES_PER_S, LOSS, baseline_metric
from orchestrator.sweep.core import SweepRecord, TrialRecord
from orchestrator.sweep.watch import Observer
from orchestrator.text import counted

_MAX_ROWS = 30
_STATE_STYLE = {
    "pending": "dim",
    "running": "cyan",
    "waiting": "blue",
    "finished": "green",
    "stopped": "yellow",
    "failed": "red",
}


@contextmanager
def watching(config: RunConfig, stream: TextIO | None = None) -> Iterator[Observer]:
    """The observer that fits where the command runs; closed with the block."""
    stream = stream or sys.stderr
    if is_live(stream):
        with _LiveView(config, Console(file=stream)) as live, log_through(live.on_note):
            yield live
    else:
        view = PlainView(config, stream)
        with log_through(view.on_message):
            yield view


class PlainView:
    """One line an event, for logs and pipes."""

    def __init__(self, config: RunConfig, stream: TextIO) -> None:
        self.metric, self.stream = config.sweep.metric, stream
        self.started_s, self.started_ms = time.monotonic(), 1000 * time.time()
        self.waits = False

    def on_waiting(self, text: str) -> None:
        """Print that calls are taken again; that they wait was in the log."""
        if self.waits and not text:
            self.on_message("MLflow takes calls again")
        self.waits = bool(text)

    def on_message(self, text: str) -> None:
        """Print a note with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self.started_s), 60)
        self.stream.write(f"[{minutes:02d}:{seconds:02d}] {text}\n")
        self.stream.flush()

    def on_event(self, entry: Entry, record: SweepRecord) -> None:
        """Print what a reader of a log wants to know; what happened before a sweep went on is in its own log."""
        if entry.time_ms < self.started_ms:
            return
        for line in news(entry.event, record):
            self.on_message(line)
        trial = record.trials.get(entry.trial_id or "")
        told = "" if trial is None else _trial_news(entry.event, trial, self.metric)
        if trial is not None and told:
            self.on_message(f"trial {trial.index:03d} ({trial.name}) {told}")


class _LiveView:
    """A table that redraws itself, with rates, the best so far and the time left."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self.config, self.metric, self.console = config, config.sweep.metric, console
        self.record = SweepRecord()
        self.message = self.waiting = ""
        self.started_s, self.started_ms = time.monotonic(), 1000 * time.time()
        self.live = Live(self, console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> _LiveView:
        self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.message = self.waiting = ""
        self.live.stop()

    def on_message(self, text: str) -> None:
        """Show what is going on below the table."""
        self.message = text

    def on_waiting(self, text: str) -> None:
        """Show below the table, as long as it lasts, that calls wait for MLflow."""
        self.waiting = text

    def on_note(self, text: str) -> None:
        """Keep a line above the table."""
        self.live.console.print(Text(text, style="yellow"))

    def on_event(self, entry: Entry, record: SweepRecord) -> None:
        """Redraw from the record; notes and failures are kept above the table."""
        self.record = record
        if entry.time_ms >= self.started_ms:
            for line in news(entry.event, record):
                self.live.console.print(Text(line, style="yellow" if line.startswith("note:") else ""))
        if isinstance(entry.event, AttemptStarted):
            self.message = ""

    def __rich__(self) -> Group:
        notes = [Text(self.waiting, style="yellow")] if self.waiting else []
        if not self.record.trials:
            return Group(*notes, Text(self.message or "preparing", style="dim"))
        return Group(self._table(), self._footer(), *notes, Text(self.message, style="bold yellow"))

    def _table(self) -> Table:
        table = Table(title=f"sweep {self.record.sweep_id}", title_justify="left", expand=False)
        for header, justify in (
            ("#", "right"),
            ("geometry", "left"),
            ("state", "left"),
            ("images", "left"),
            (self.metric, "right"),
            ("gain", "right"),
            ("images/s", "right"),
            ("loss", "right"),
        ):
            table.add_column(header, justify=justify)  # type: ignore[arg-type]
        trials = self.record.in_order()
        for trial in trials[:_MAX_ROWS]:
            table.add_row(*self._row(trial))
        if len(trials) > _MAX_ROWS:
            table.caption = f"and {len(trials) - _MAX_ROWS} more"
        return table

    def _row(self, trial: TrialRecord) -> tuple[Any, ...]:
        value, gain = trial.metrics.get(self.metric), gain_over_untrained(trial, self.metric)
        return (
            f"{trial.index:03d}",
            trial.name,
            Text(trial.shown_state, style=_STATE_STYLE[trial.shown_state]),
            ProgressBar(total=max(1, trial.total_images), completed=trial.images, width=16),
            "" if value is None else f"{value:.1f}",
            "" if gain is None else f"{gain:+.1f}",
            _number(trial.metrics.get(IMAGES_PER_S), ",.0f"),
            _number(trial.metrics.get(LOSS), ".4f"),
        )

    def _footer(self) -> Text:
        trials = self.record.in_order()
        done = sum(trial.done for trial in trials)
        text = f"{done} of {counted(len(trials), 'trial')} done · {clock(time.monotonic() - self.started_s)} so far"
        left_s = seconds_left(self.record, time.time())
        if left_s is not None:
            text += f" · about {clock(left_s)} left"
        text += f" · {hours_text(self.record.hours)}"
        best = best_so_far(self.record, self.metric)
        if best is not None:
            text += f"\nbest so far: {best.metrics[self.metric]:.1f}  {best.name}"
        return Text(text)


def news(event: Event, record: SweepRecord) -> list[str]:
    """What an event says of the sweep as a whole, in lines; `record` already holds it."""
    match event:
        case SweepStarted():
            begun = f"sweep {record.sweep_id}, data {record.data['uri']}"
            return [begun, *(f"note: {note}" for note in event.notes)]
        case SweepResumed():
            done = sum(trial.done for trial in record.trials.values())
            return [f"sweep {record.sweep_id} goes on: {done} of {counted(len(record.trials), 'trial')} done"]
        case SweepExtended():
            longer = counted(event.train_images, "image")
            return [f"trials become longer: {longer}, {event.before_images:,} before"]
        case TrialRevived():
            trial = record.trials[event.trial_id]
            return [f"trial {trial.index:03d} ({trial.name}) is revived: no rule stops it again"]
        case WarmStarted():
            return [f"note: {note}" for note in event.notes]
        case GenerationDecided() | SeedsAdded() | SeedsSettled() | BudgetExhausted():
            return [event.reason]
    return []


def _trial_news(event: Event, trial: TrialRecord, metric: str) -> str:
    """What an event says of its trial; empty where that is nothing for a log."""
    match event:
        case AttemptStarted():
            return "starts" if len(trial.attempts) == 1 else "starts again"
        case Reported() if event.rows:
            return _progress_text(event, trial, metric)
        case TrialEnded():
            return trial.state + (f": {trial.reason}" if trial.reason else "")
    return ""


def best_so_far(record: SweepRecord, metric: str) -> TrialRecord | None:
    """The trained trial with the highest newest value of a metric."""
    trials = [trial for trial in record.in_order() if metric in trial.metrics and trial.images > 0]
    return max(trials, key=lambda trial: trial.metrics[metric], default=None)


def gain_over_untrained(trial: TrialRecord, metric: str) -> float | None:
    """A trial's newest probe value less its own untrained encoder's, in points."""
    baseline = trial.metrics.get(baseline_metric(metric))
    value = trial.metrics.get(metric)
    return None if baseline is None or value is None else value - baseline


def seconds_left(record: SweepRecord, now_s: float) -> float | None:
    """Time left at the pace so far, from images still to see; None before there is a pace."""
    seen = sum(trial.images for trial in record.trials.values())
    left = sum(max(0, t.total_images - t.images) for t in record.trials.values() if not t.done)
    starts = [attempt.started for trial in record.trials.values() for attempt in trial.attempts.values()]
    if not seen or not starts:
        return None
    return left * (now_s - min(starts) - record.idle_ms / 1000) / seen


def hours_text(hours: WholeHours) -> str:
    """GPU hours, or CPU core hours where there is no GPU."""
    return f"{hours.gpu:.2f} GPU hours" if hours.has_gpus else f"{hours.cpu_core:.3f} CPU core hours"


def clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _progress_text(event: Reported, trial: TrialRecord, metric: str) -> str:
    metrics = event.rows[-1].metrics
    parts = [f"{event.images:,} of {counted(trial.total_images, 'image')}"]
    if LOSS in metrics:
        parts.append(f"loss {metrics[LOSS]:.4f}")
    if IMAGES_PER_S in metrics:
        parts.append(f"{metrics[IMAGES_PER_S]:,.0f} images/s")
    if metric in metrics:
        gain = gain_over_untrained(trial, metric)
        parts.append(f"{metric} {metrics[metric]:.1f}" + ("" if gain is None else f" (gain {gain:+.1f})"))
    return ", ".join(parts)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
