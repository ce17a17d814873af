"""The ledger: GPU hours and CPU core hours of a sweep, retries and waste included. Pure.

An attempt is one allocation of a trial's workers, from the moment they are given until they are returned;
what Ray had reserved is charged, busy or not. An attempt whose process died is charged up to its last
heartbeat. Times are Unix seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class AttemptCost:
    """What one attempt held and for how long.

    `kept_until_s` is the time of its last committed checkpoint or report: work after it is lost when the
    attempt ends without finishing. `phase_seconds` splits the time (train, probe, checkpoint, start).
    """

    attempt_id: str
    trial_id: str
    num_gpus: float
    num_cpus: float
    started_s: float
    last_seen_s: float
    ended_s: float | None = None
    completed: bool = False
    kept_until_s: float | None = None
    phase_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Time held; never negative, whatever the clocks say."""
        return max(0.0, (self.last_seen_s if self.ended_s is None else self.ended_s) - self.started_s)

    @property
    def wasted_seconds(self) -> float:
        """Time whose work was lost: none for an attempt that completed."""
        if self.completed:
            return 0.0
        kept = self.started_s if self.kept_until_s is None else self.kept_until_s
        return self.seconds - min(max(0.0, kept - self.started_s), self.seconds)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Hours of allocated devices; the wasted ones are part of the whole."""

    gpu_hours: float = 0.0
    cpu_core_hours: float = 0.0
    wasted_gpu_hours: float = 0.0
    wasted_cpu_core_hours: float = 0.0
    num_attempts: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Sum field by field."""
        return Cost(
            gpu_hours=self.gpu_hours + other.gpu_hours,
            cpu_core_hours=self.cpu_core_hours + other.cpu_core_hours,
            wasted_gpu_hours=self.wasted_gpu_hours + other.wasted_gpu_hours,
            wasted_cpu_core_hours=self.wasted_cpu_core_hours + other.wasted_cpu_core_hours,
            num_attempts=self.num_attempts + other.num_attempts,
        )

    def metrics(self) -> dict[str, float]:
        """As metrics under `cost/`."""
        return {
            "cost/gpu_hours": self.gpu_hours,
            "cost/cpu_core_hours": self.cpu_core_hours,
            "cost/wasted_gpu_hours": self.wasted_gpu_hours,
            "cost/wasted_cpu_core_hours": self.wasted_cpu_core_hours,
        }


def attempt_cost(attempt: AttemptCost) -> Cost:
    """The cost of one attempt."""
    hours, wasted = attempt.seconds / 3600, attempt.wasted_seconds / 3600
    return Cost(
        gpu_hours=attempt.num_gpus * hours,
        cpu_core_hours=attempt.num_cpus * hours,
        wasted_gpu_hours=attempt.num_gpus * wasted,
        wasted_cpu_core_hours=attempt.num_cpus * wasted,
        num_attempts=1,
    )


def total_cost(attempts: Iterable[AttemptCost]) -> Cost:
    """The cost of several attempts; one that is listed twice (same id) counts once, as last seen."""
    newest: dict[str, AttemptCost] = {}
    for attempt in attempts:
        known = newest.get(attempt.attempt_id)
        if known is None or attempt.seconds >= known.seconds:
            newest[attempt.attempt_id] = attempt
    return sum((attempt_cost(attempt) for attempt in newest.values()), Cost())


def cost_by_trial(attempts: Iterable[AttemptCost]) -> dict[str, Cost]:
    """The cost of every trial."""
    groups: dict[str, list[AttemptCost]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.trial_id, []).append(attempt)
    return {trial_id: total_cost(group) for trial_id, group in groups.items()}


def phase_seconds(attempts: Iterable[AttemptCost]) -> dict[str, float]:
    """Seconds a phase, summed over attempts."""
    totals: dict[str, float] = {}
    for attempt in attempts:
        for phase, seconds in attempt.phase_seconds.items():
            totals[phase] = totals.get(phase, 0.0) + seconds
    return totals
