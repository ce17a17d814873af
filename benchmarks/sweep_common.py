"""What the benchmarks of whole sweeps and runs share: a model for one CPU core, and an observer that shows nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.protocol.events import Entry
from orchestrator.sweep.core.record import SweepRecord

SMALL_MODEL: Mapping[str, Any] = {
    "encoder.image_size_px": 48,
    "encoder.patch_size_px": 6,
    "encoder.width": 64,
    "encoder.depth": 4,
    "encoder.num_heads": 4,
    "predictor.width": 32,
    "predictor.depth": 2,
    "predictor.num_heads": 2,
}
"""A very small encoder and predictor for scenes of 8 x 8 patches, by dotted key."""


class Silent:
    """An observer that shows nothing."""

    def on_event(self, entry: Entry, record: SweepRecord) -> None:
        """Pass over an event."""

    def on_message(self, text: str) -> None:
        """Pass over a message."""
