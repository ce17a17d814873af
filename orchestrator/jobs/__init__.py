"""Submitting sweeps to a Ray cluster and looking after them there. See docs/cluster.md."""

from orchestrator.jobs.client import JobsClient, JobState, connect, warnings_of
from orchestrator.jobs.package import build_package
from orchestrator.jobs.submission import (
    JobRequest,
    Submitted,
    check_places,
    parse_environment,
    place_warnings,
    submit,
)

__all__ = [
    "JobRequest",
    "JobState",
    "JobsClient",
    "Submitted",
    "build_package",
    "check_places",
    "connect",
    "parse_environment",
    "place_warnings",
    "submit",
    "warnings_of",
]
