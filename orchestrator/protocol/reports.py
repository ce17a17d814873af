"""What a run tells its driver, and what it hears back.

A report carries every metric row since the one before, so that a checkpoint and the metrics that lead to it are
delivered together; rows are keyed by (trial, images) and may be sent twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.protocol.reading import read
from orchestrator.protocol.writing import LEFT_OUT, plain_fields

Action = Literal["continue", "wait", "stop"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Metrics at one point of a run; `images` is images seen, `timestamp_ms` is Unix time in milliseconds."""

    images: int
    timestamp_ms: int
    metrics: Mapping[str, float]

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return plain_fields(self)


@dataclass(frozen=True, kw_only=True)
class BestCheckpoint:
    """Where a run's best checkpoint is, below its checkpoints, and the ranking metric after its `images`."""

    name: str
    images: int
    value: float

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return plain_fields(self)


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """One message of a run.

    `rung` is the rung reached, in images; `correct` holds, for each label, the linear probe's hits on the test images
    as packed bits in hexadecimal (big-endian bit order, padded with zeros); `best` is the best checkpoint so far.
    """

    trial_id: str
    images: int
    rows: tuple[Row, ...]
    rung: int | None = None
    final: bool = False
    checkpoint: str | None = None
    correct: Mapping[str, str] = field(default_factory=dict)
    best: BestCheckpoint | None = field(default=None, metadata=LEFT_OUT)

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return plain_fields(self)

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> TrialReport:
        """Read what `to_json` wrote.

        Raises:
            Misfit: It is no report.
        """
        return read(cls, data)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The driver's answer: go on, or checkpoint and return, for good or to wait until the driver has it go on."""

    action: Action = "continue"
    reason: str = ""
