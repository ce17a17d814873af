"""What is known of a sweep and its trials: what the journal's events come to (`fold`).

The coordinator, the live view, `--resume` and the report all read this one record, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.protocol.events import GenerationDecided, SeedsAdded, SweepEnd, WarmStarted
from orchestrator.protocol.hours import WholeHours
from orchestrator.protocol.metrics import ASYNC_CPU_CORE_S, ASYNC_GPU_S, GPU_ENERGY_J
from orchestrator.protocol.point import Point
from orchestrator.protocol.reports import Action, BestCheckpoint, Row

TrialState = Literal["pending", "running", "finished", "stopped", "failed"]
STOPPED: tuple[TrialState, ...] = ("stopped", "failed")
"""How a trial ends before its length; it can be revived."""


JOULES_PER_KWH = 3.6e6


@dataclass
class Attempt:
    """One allocation of a trial's workers; times are Unix seconds, `ended` None while it runs."""

    attempt_id: str
    num_gpus: float
    num_cpus: float
    started: float
    last_seen: float
    ended: float | None = None
    slot_id: str = ""
    error: str = ""
    last_report: float | None = None
    start_s: float = 0.0
    """Time until its first report, where that brought no new images: opening data, building the model, baselines."""

    @property
    def seconds(self) -> float:
        """Time the workers have been allocated."""
        return self.seconds_until(math.inf)

    def seconds_until(self, time_s: float) -> float:
        """The part of it before a moment, in Unix seconds."""
        ended = self.ended if self.ended is not None else self.last_seen
        return max(0.0, min(ended, time_s) - self.started)


@dataclass
class Slot:
    """One slot: a worker group's resources and the times it held them, in Unix seconds."""

    slot_id: str
    num_gpus: float
    num_cpus: float
    periods: list[list[float]] = field(default_factory=list)
    sizes: list[tuple[float, float]] = field(default_factory=list)
    """GPUs and CPU cores held in each period: a slot may go on with fewer workers."""
    is_open: bool = False

    @property
    def seconds(self) -> float:
        """Time the resources were held, with and without a trial."""
        return sum(max(0.0, end - start) for start, end in self.periods)

    def device_seconds(self, *, has_gpus: bool, until: float | None = None) -> float:
        """Devices times the seconds they were held; of an open slot up to `until`, in Unix seconds."""
        held = [size[0 if has_gpus else 1] for size in self.sizes]
        total = sum(
            count * max(0.0, end - start) for count, (start, end) in zip(held, self.periods, strict=True)
        )
        return total + (held[-1] * max(0.0, until - self.periods[-1][1]) if until and self.is_open else 0.0)


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """A member of a population went on from another one's weights at `images`, under `settings` by dotted key."""

    images: int
    parent: str
    settings: Point


@dataclass
class TrialRecord:
    """One trial: a point of the search space under one seed."""

    trial_id: str
    index: int
    point: Point
    seed: int
    name: str = ""
    state: TrialState = "pending"
    reason: str = ""
    images: int = 0
    total_images: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    history: dict[int, dict[str, float]] = field(default_factory=dict)
    timestamps_ms: dict[int, int] = field(default_factory=dict)
    reported_by: dict[int, str] = field(default_factory=dict)
    """The attempt that each row of `history` came from."""
    rungs: dict[int, float] = field(default_factory=dict)
    decisions: dict[int, tuple[Action, str]] = field(default_factory=dict)
    correct: dict[str, str] = field(default_factory=dict)
    best: BestCheckpoint | None = None
    """Where the weights of its highest probe after warm-up are; None in journals of earlier versions."""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    revived: bool = False
    """Whether a stop was undone: no rule stops the trial again."""
    was_extended: bool = False
    """Whether it became longer after it had begun: its schedule is not that of a trial planned for its length."""
    takeovers: list[Takeover] = field(default_factory=list)
    """Of a member of a population: whose weights it went on from, in order."""
    longest_gap_s: float = 0.0
    """Longest time between two messages of one attempt."""
    energy_j: float | None = None
    """Joules that its GPUs used up to its last report, work that was done again included; None when not known."""
    energy_rows: set[tuple[int, int]] = field(default_factory=set)
    """The rows, by images and time, whose energy is in the sum: a report may come twice."""

    @property
    def settings(self) -> Point:
        """The point's keys with the values under which the trial goes on."""
        return self.settings_before(None)

    def settings_before(self, images: int | None) -> Point:
        """The settings under which the trial came to `images`, before it took anything over there; None is now."""
        earlier = [each for each in self.takeovers if images is None or each.images < images]
        return earlier[-1].settings if earlier else self.point

    @property
    def energy_kwh(self) -> float | None:
        """Energy of its GPUs in kWh; None when it is not known."""
        return None if self.energy_j is None else self.energy_j / JOULES_PER_KWH

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return self.state in ("finished", "stopped", "failed")

    @property
    def shown_state(self) -> str:
        """The state for a reader: `waiting` for one that has come to a rung and given its slot up to others."""
        return "waiting" if self.state == "pending" and self.waits_at else self.state

    @property
    def waits_at(self) -> int:
        """The rung, in images, from which the trial has not heard yet whether it goes on; 0 where there is none."""
        rung = max(self.rungs, default=0)
        return rung if self.decisions.get(rung, ("continue",))[0] == "wait" and self.images <= rung else 0

    @property
    def async_gpu_s(self) -> float:
        """GPU seconds of asynchronous evaluations, which are no part of any attempt."""
        return sum(metrics.get(ASYNC_GPU_S, 0.0) for metrics in self.history.values())

    @property
    def async_cpu_core_s(self) -> float:
        """CPU core seconds of asynchronous evaluations, which are no part of any attempt."""
        return sum(metrics.get(ASYNC_CPU_CORE_S, 0.0) for metrics in self.history.values())

    @property
    def hours(self) -> WholeHours:
        """What all its attempts held."""
        return self.hours_until(math.inf)

    def hours_until(self, time_s: float) -> WholeHours:
        """What they had held at a moment, in Unix seconds."""
        attempts = self.attempts.values()
        return WholeHours(
            gpu=sum(attempt.num_gpus * attempt.seconds_until(time_s) for attempt in attempts) / 3600,
            cpu_core=sum(attempt.num_cpus * attempt.seconds_until(time_s) for attempt in attempts) / 3600,
        )

    def count_energy(self, row: Row) -> None:
        """Add a row's joules, once however often the row is reported."""
        joules, key = row.metrics.get(GPU_ENERGY_J), (row.images, row.timestamp_ms)
        if joules is not None and key not in self.energy_rows:
            self.energy_rows.add(key)
            self.energy_j = (self.energy_j or 0.0) + joules


@dataclass
class SweepRecord:
    """A sweep: its configuration, its trials by id, and how it ended."""

    sweep_id: str = ""
    name: str = ""
    config_text: str = ""
    """The configuration as YAML: the newest, where the sweep was extended or went on under a changed one."""
    earlier_config_texts: list[str] = field(default_factory=list)
    """The ones before it, in order."""
    folder: str = ""
    """The folder in which the newest configuration was read: its relative paths are meant from there."""
    environment: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """The values of `train.images` under which trials ran, in order; empty unless the sweep was extended."""
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    seed_rounds: list[SeedsAdded] = field(default_factory=list)
    """What `sweep.seeds: auto` decided, round by round."""
    generations: list[GenerationDecided] = field(default_factory=list)
    """What was decided at the end of each generation of a population, in order."""
    warm_start: WarmStarted | None = None
    """What was taken from an earlier sweep, when this one started."""
    state: Literal["running"] | SweepEnd = "running"
    is_exhausted: bool = False
    """Whether its budget was spent since its driver began."""
    origin: str = ""
    """What it was begun for, where that is no search: `reproduction of SWEEP/TRIAL`, `best of SWEEP`."""
    idle_ms: int = 0
    """Time from the end of one driver to the start of the next, in which nothing ran."""
    last_ms: int = 0
    """When the newest event happened."""
    started_ms: int = 0
    ended_ms: int | None = None

    @property
    def hours(self) -> WholeHours:
        """What all its trials held."""
        return WholeHours.total(trial.hours for trial in self.trials.values())

    @property
    def held(self) -> WholeHours:
        """What its slots held, with and without a trial; 0 where they were not kept between trials."""
        slots = self.slots.values()
        return WholeHours(
            gpu=sum(slot.device_seconds(has_gpus=True) for slot in slots) / 3600,
            cpu_core=sum(slot.device_seconds(has_gpus=False) for slot in slots) / 3600,
        )

    def rung_values(self, rung: int) -> dict[str, float]:
        """The ranking metric of every trial that reached a rung, by trial."""
        return {trial.trial_id: trial.rungs[rung] for trial in self.trials.values() if rung in trial.rungs}

    def trial_named(self, name: str) -> TrialRecord | None:
        """The trial with this id or number; None where there is none."""
        if name in self.trials or not name.isdecimal():
            return self.trials.get(name)
        return next((trial for trial in self.in_order() if trial.index == int(name)), None)

    def in_order(self) -> list[TrialRecord]:
        """Trials in the order they were planned."""
        return sorted(self.trials.values(), key=lambda trial: trial.index)
