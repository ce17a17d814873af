"""What a run tells its driver, and what it hears back.

A report carries every metric row since the one before, so that a checkpoint and the metrics that lead to it are
delivered together; rows are keyed by (trial, images) and may be sent twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

MISSING = "evaluation/missing"
"""1 in a row whose evaluation failed for good, which has no `probe/...` figures then."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Metrics at one point of a run; `images` is images seen, `timestamp_ms` is Unix time in milliseconds."""

    images: int
    timestamp_ms: int
    metrics: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return {"images": self.images, "timestamp_ms": self.timestamp_ms, "metrics": dict(self.metrics)}


@dataclass(frozen=True, kw_only=True)
class BestCheckpoint:
    """Where a run's best checkpoint is, below its checkpoints, and the ranking metric after its `images`."""

    name: str
    images: int
    value: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return asdict(self)


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
    best: BestCheckpoint | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        best = {} if self.best is None else {"best": self.best.to_json()}
        return {
            "trial_id": self.trial_id,
            "images": self.images,
            "rows": [row.to_json() for row in self.rows],
            "rung": self.rung,
            "final": self.final,
            "checkpoint": self.checkpoint,
            "correct": dict(self.correct),
            **best,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialReport:
        """Read what `to_json` wrote."""
        best = data.get("best")
        return cls(
            **{
                **data,
                "rows": tuple(Row(**row) for row in data["rows"]),
                "best": None if best is None else BestCheckpoint(**best),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The driver's answer: go on, or checkpoint and return, for good or to wait until the driver has it go on."""

    action: Literal["continue", "wait", "stop"] = "continue"
    reason: str = ""


class Reporter(Protocol):
    """The door from a run to its driver; called by rank 0 alone."""

    def report(self, report: TrialReport) -> Decision:
        """Deliver a report and wait for the decision."""
        ...


class ListReporter:
    """Keeps reports in memory and lets every run continue, or stop at chosen images: for tests and notebooks."""

    def __init__(self, stop_at_images: int | None = None) -> None:
        self.reports: list[TrialReport] = []
        self.stop_at_images = stop_at_images

    def report(self, report: TrialReport) -> Decision:
        """Keep the report."""
        self.reports.append(report)
        if self.stop_at_images is not None and report.images >= self.stop_at_images:
            return Decision(action="stop", reason=f"asked to stop at {self.stop_at_images} images")
        return Decision()
