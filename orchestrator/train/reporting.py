"""The door through which a run reports, and one that keeps what it is told."""

from __future__ import annotations

from typing import Protocol

from orchestrator.protocol.reports import Decision, TrialReport


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
