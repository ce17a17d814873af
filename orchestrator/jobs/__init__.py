"""Submitting sweeps to a Ray cluster and looking after them there. See docs/cluster.md."""

from orchestrator.jobs.connection import connect, warnings_of
from orchestrator.jobs.package import build_package
from orchestrator.jobs.state import JobState
from orchestrator.jobs.submission import (
    JobRequest,
    Submitted,
    check_shared_storage,
    parse_environment,
    shared_storage_warnings,
    submit,
)

__all__ = [
    "JobRequest",
    "JobState",
    "Submitted",
    "build_package",
    "check_shared_storage",
    "connect",
    "parse_environment",
    "shared_storage_warnings",
    "submit",
    "warnings_of",
]
