"""Sweeps small enough for tests: a tiny encoder on a folder of random images, and an observer that remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from image_data import image_folder

from orchestrator.config import apply_overrides, default_config
from orchestrator.config.models import RunConfig
from orchestrator.protocol.events import Entry
from orchestrator.protocol.reports import Decision, TrialReport
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.run.coordinator import Coordinator

TINY = {
    "name": "tiny",
    "data.loader_threads": 0,
    "encoder.image_size_px": 32,
    "encoder.patch_size_px": 4,
    "encoder.width": 32,
    "encoder.depth": 2,
    "encoder.num_heads": 2,
    "predictor.width": 16,
    "predictor.depth": 1,
    "predictor.num_heads": 2,
    "train.images": 640,
    "train.batch_size": 32,
    "train.report_every_images": 160,
    "train.checkpoint_every_images": 160,
    "probe.train_images": 40,
    "probe.test_images": 20,
}


def tiny_config(folder: Path, *, num_images: int = 24, **overrides: Any) -> RunConfig:
    """A configuration whose data, cache and runs are all under `folder`; `__` stands for a dot in a key.

    `num_images` is for each of three classes.
    """
    data = folder / "data"
    if not data.exists():
        image_folder(data, images=num_images)
    places = {
        "data.source": str(data),
        "data.cache_dir": str(folder / "cache"),
        "storage.uri": str(folder / "runs"),
    }
    named = {key.replace("__", "."): value for key, value in overrides.items()}
    return apply_overrides(default_config(), {**TINY, **places, **named})


class Remembering:
    """An observer that keeps every event and message, and may act on an event."""

    def __init__(self, on_event: Any = None) -> None:
        self.entries: list[Entry] = []
        self.messages: list[str] = []
        self._act = on_event

    def on_event(self, entry: Entry, record: SweepRecord) -> None:
        """Keep an event."""
        self.entries.append(entry)
        if self._act is not None:
            self._act(entry.event, record)

    def on_message(self, text: str) -> None:
        """Keep a message."""
        self.messages.append(text)


class InProcess:
    """Reports to a coordinator in this process."""

    def __init__(self, coordinator: Coordinator, attempt_id: str) -> None:
        self.coordinator, self.attempt_id = coordinator, attempt_id

    def report(self, report: TrialReport) -> Decision:
        """Hand a report to the coordinator."""
        return self.coordinator.report(report, self.attempt_id)
