"""What is known of a sweep and its trials: a fold over the journal's events.

The coordinator, the live view, `--resume` and the report all read this one record, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.errors import StorageError
from orchestrator.train.loop.energy import ENERGY
from orchestrator.train.reporting import BestCheckpoint

_MISSING = "evaluation/missing"
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
        return max(0.0, (self.ended if self.ended is not None else self.last_seen) - self.started)


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
    settings: dict[str, Any]


@dataclass
class TrialRecord:
    """One trial: a point of the search space under one seed."""

    trial_id: str
    index: int
    point: dict[str, Any]
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
    decisions: dict[int, tuple[str, str]] = field(default_factory=dict)
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
    def settings(self) -> dict[str, Any]:
        """The point's keys with the values under which the trial goes on."""
        return self.settings_before(None)

    def settings_before(self, images: int | None) -> dict[str, Any]:
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
        return rung if self.decisions.get(rung, ("",))[0] == "wait" and self.images <= rung else 0

    @property
    def beside_gpu_s(self) -> float:
        """GPU seconds of evaluations beside training, which are no part of any attempt."""
        return sum(metrics.get("evaluation/gpu_s", 0.0) for metrics in self.history.values())

    @property
    def beside_cpu_core_s(self) -> float:
        """CPU core seconds of evaluations beside training, which are no part of any attempt."""
        return sum(metrics.get("evaluation/cpu_core_s", 0.0) for metrics in self.history.values())

    @property
    def gpu_hours(self) -> float:
        """Allocated GPUs times hours, over all attempts."""
        return sum(attempt.num_gpus * attempt.seconds for attempt in self.attempts.values()) / 3600

    @property
    def cpu_core_hours(self) -> float:
        """Allocated CPU cores times hours, over all attempts."""
        return sum(attempt.num_cpus * attempt.seconds for attempt in self.attempts.values()) / 3600

    def count_energy(self, row: Mapping[str, Any]) -> None:
        """Add a row's joules, once however often the row is reported."""
        joules, key = row["metrics"].get(ENERGY), (int(row["images"]), int(row["timestamp_ms"]))
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
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """The values of `train.images` under which trials ran, in order; empty unless the sweep was extended."""
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    seed_rounds: list[Mapping[str, Any]] = field(default_factory=list)
    """What `sweep.seeds: auto` decided, round by round."""
    generations: list[Mapping[str, Any]] = field(default_factory=list)
    """What was decided at the end of each generation of a population, in order."""
    warm_start: Mapping[str, Any] | None = None
    """What was taken from an earlier sweep, when this one started."""
    state: Literal["running", "finished", "interrupted", "paused", "cancelled", "failed"] = "running"
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

    def apply(self, event: Mapping[str, Any]) -> None:
        """Fold the next event in; unknown kinds are passed over.

        Raises:
            StorageError: The event lacks what its kind holds.
        """
        for slot in self.slots.values():
            if slot.is_open and event["kind"] != "driver_started":
                slot.periods[-1][1] = max(slot.periods[-1][1], event["time_ms"] / 1000)
        if event["kind"] == "driver_started" and self.started_ms:
            self.idle_ms += max(0, event["time_ms"] - self.last_ms)
        self.last_ms = event["time_ms"]
        handler = getattr(self, f"_on_{event['kind']}", None)
        if handler is None:
            return
        try:
            handler(event)
        except (KeyError, TypeError, AttributeError, ValueError) as err:
            raise StorageError(
                f"{self.sweep_id}: event {event.get('sequence', '?')} of its journal ({event['kind']}) cannot be "
                f"understood ({err!r}): it is damaged, or of another version; put it back from a copy"
            ) from err

    def rung_values(self, rung: int) -> dict[str, float]:
        """The ranking metric of every trial that reached a rung, by trial."""
        return {trial.trial_id: trial.rungs[rung] for trial in self.trials.values() if rung in trial.rungs}

    def in_order(self) -> list[TrialRecord]:
        """Trials in the order they were planned."""
        return sorted(self.trials.values(), key=lambda trial: trial.index)

    def _on_driver_started(self, event: Mapping[str, Any]) -> None:
        """What an earlier driver held went with it, at its last event as far as is known."""
        for slot in self.slots.values():
            slot.is_open = False
        for trial in self.trials.values():
            if trial.state == "running":
                trial.state = "pending"

    def _on_sweep_started(self, event: Mapping[str, Any]) -> None:
        self.sweep_id, self.name = event["sweep_id"], event["name"]
        self.config_text, self.folder = event["config"], event.get("folder", "")
        self.environment, self.data = event["environment"], event["data"]
        self.notes = list(event["notes"])
        self.origin = event.get("origin", "")  # journals of earlier versions lack it
        self.started_ms = event["time_ms"]

    def _on_sweep_resumed(self, event: Mapping[str, Any]) -> None:
        self.state, self.ended_ms, self.is_exhausted = "running", None, False
        text = event.get("config", self.config_text)  # journals of earlier versions lack it
        if text != self.config_text:
            self.earlier_config_texts.append(self.config_text)
            self.config_text = text
        self.folder = event.get("folder", self.folder)

    def _on_sweep_extended(self, event: Mapping[str, Any]) -> None:
        self.lengths = self.lengths or [event["before_images"]]
        self.lengths.append(event["train_images"])

    def _on_trial_extended(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial_id"]]
        trial.total_images = event["total_images"]
        trial.was_extended = trial.was_extended or trial.images > 0
        if trial.state == "finished":
            trial.state, trial.reason = "pending", ""

    def _on_budget_exhausted(self, event: Mapping[str, Any]) -> None:
        self.is_exhausted = True
        self.notes.append(f"{event['reason']}; a larger one goes on from there")

    def _on_sweep_ended(self, event: Mapping[str, Any]) -> None:
        self.state, self.ended_ms = event["state"], event["time_ms"]

    def _on_warm_started(self, event: Mapping[str, Any]) -> None:
        self.warm_start = event
        self.notes += event["notes"]

    def _on_generation_decided(self, event: Mapping[str, Any]) -> None:
        self.generations.append(event)
        for each in event["takeovers"]:
            takeover = Takeover(images=event["images"], parent=each["parent"], settings=each["settings"])
            self.trials[each["trial_id"]].takeovers.append(takeover)
            self.trials[each["trial_id"]].best = None  # it was of the weights that are given up

    def _on_seeds_added(self, event: Mapping[str, Any]) -> None:
        self.seed_rounds.append(event)
        self.notes.append(event["reason"])

    def _on_seeds_settled(self, event: Mapping[str, Any]) -> None:
        self.notes.append(event["reason"])

    def _on_trial_planned(self, event: Mapping[str, Any]) -> None:
        self.trials.setdefault(
            event["trial_id"],
            TrialRecord(
                trial_id=event["trial_id"],
                index=event["index"],
                point=event["point"],
                seed=event["seed"],
                name=event["name"],
                total_images=event["total_images"],
            ),
        )

    def _on_slot_started(self, event: Mapping[str, Any]) -> None:
        now = event["time_ms"] / 1000
        slot = Slot(slot_id=event["slot_id"], num_gpus=event["num_gpus"], num_cpus=event["num_cpus"])
        slot = self.slots.setdefault(slot.slot_id, slot)
        slot.num_gpus, slot.num_cpus = event["num_gpus"], event["num_cpus"]
        slot.periods.append([now, now])
        slot.sizes.append((slot.num_gpus, slot.num_cpus))
        slot.is_open = True

    def _on_slot_ended(self, event: Mapping[str, Any]) -> None:
        slot = self.slots.get(event["slot_id"])
        if slot is None or not slot.is_open:
            return  # its start could not be journaled
        slot.periods[-1][1] = event["time_ms"] / 1000
        slot.is_open = False

    def _on_attempt_started(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial_id"]]
        now = event["time_ms"] / 1000
        trial.attempts.setdefault(
            event["attempt_id"],
            Attempt(
                attempt_id=event["attempt_id"],
                num_gpus=event["num_gpus"],
                num_cpus=event["num_cpus"],
                started=now,
                last_seen=now,
                slot_id=event.get("slot_id", ""),
            ),
        )
        trial.state, trial.reason = "running", ""

    def _on_attempt_ended(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial_id"]]
        attempt = trial.attempts.get(event["attempt_id"])
        if attempt is None:
            return  # its start could not be journaled
        attempt.ended = attempt.last_seen = event["time_ms"] / 1000
        attempt.error = event.get("error", "")
        if not trial.done:
            trial.state = "pending"

    def _on_report(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial_id"]]
        attempt = trial.attempts.get(event["attempt_id"])
        if attempt is not None:
            if attempt.last_report is None and event["images"] <= trial.images:
                attempt.start_s = max(0.0, event["time_ms"] / 1000 - attempt.started)
            attempt.last_report = event["time_ms"] / 1000
            gap = event["time_ms"] / 1000 - attempt.last_seen
            trial.longest_gap_s = max(trial.longest_gap_s, gap)
            attempt.last_seen = max(attempt.last_seen, event["time_ms"] / 1000)
        for row in event["rows"]:
            trial.count_energy(row)
            _merge_row(trial, row, attempt_id=event["attempt_id"])
        if event.get("final") and trial.history.get(event["images"], {}).get(_MISSING):
            # What an earlier probe found is not the value of a trial whose last evaluation is missing.
            trial.metrics = {
                name: value for name, value in trial.metrics.items() if not name.startswith("probe/")
            }
        trial.images = max(trial.images, event["images"])
        if event["correct"]:
            trial.correct = dict(event["correct"])
        if event.get("best") is not None:
            trial.best = BestCheckpoint(**event["best"])
        if event["rung"] is not None:
            trial.rungs.setdefault(event["rung"], event["value"])
            trial.decisions.setdefault(event["rung"], (event["action"], event["reason"]))

    def _on_rung_decided(self, event: Mapping[str, Any]) -> None:
        decision = event["action"], event["reason"]
        self.trials[event["trial_id"]].decisions[event["rung"]] = decision

    def _on_trial_revived(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial_id"]]
        trial.state, trial.reason, trial.revived = "pending", "", True
        trial.decisions = {
            rung: decision for rung, decision in trial.decisions.items() if decision[0] == "continue"
        }

    def _on_trial_ended(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial_id"]]
        trial.state, trial.reason = event["state"], event["reason"]


def _merge_row(trial: TrialRecord, row: Mapping[str, Any], *, attempt_id: str) -> None:
    """Take a row's metrics over, the first value of each (images, name), in whatever order rows come.

    A trial's own metrics are the newest by images: those of an evaluation beside training come after later ones.
    """
    images = int(row["images"])
    known = trial.history.setdefault(images, {})
    trial.timestamps_ms.setdefault(images, row["timestamp_ms"])
    trial.reported_by.setdefault(images, attempt_id)
    fresh = {name: value for name, value in row["metrics"].items() if name not in known}
    if _MISSING in fresh and any(name.startswith("probe/") for name in known):
        del fresh[_MISSING]  # it was measured and then thought lost
    known.update(fresh)
    later = [metrics for at, metrics in trial.history.items() if at > images]
    trial.metrics.update(
        {name: value for name, value in fresh.items() if not any(name in metrics for metrics in later)}
    )


def fold(events: Iterable[Mapping[str, Any]]) -> SweepRecord:
    """The record after a history of events."""
    record = SweepRecord()
    for event in events:
        record.apply(event)
    return record
