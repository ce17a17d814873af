"""A job of ours as its cluster tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class JobState:
    """One submitted job; times in seconds since 1970, None where it has not happened."""

    job_id: str
    sweep_id: str
    name: str
    status: str
    message: str
    started_s: float | None
    ended_s: float | None
    exit_code: int | None

    @property
    def active(self) -> bool:
        """Whether it is waiting or running."""
        return self.status in ("PENDING", "RUNNING")

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return dict(vars(self))
