"""The ledger of a sweep: where every allocated device hour went. Pure, read off the record.

An allocation is a slot, from the moment its resources are asked for until they are returned; what is reserved is
charged, busy or not. Inside it, attempts of trials; inside an attempt, training, waiting for data, probing and
checkpointing as the workers measured them. What an attempt did after the last report of its own that another attempt
followed is lost. The rest of an attempt is its start: opening data, building the model, the baselines. Evaluations
beside training hold devices of their own and are told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from orchestrator.config.models import BudgetConfig
from orchestrator.protocol.metrics import CHECKPOINT_S, IMAGES_PER_S, PROBE_S, WAIT_FRACTION
from orchestrator.sweep.core.record import Attempt, SweepRecord, TrialRecord

PHASES = ("train", "wait", "probe", "checkpoint", "start", "lost", "idle", "beside")
_TITLES = {
    "train": "training",
    "wait": "waiting for data",
    "probe": "probing",
    "checkpoint": "checkpoints",
    "start": "starting trials",
    "lost": "lost to failures",
    "idle": "allocated and idle",
    "beside": "asynchronous probes",
}


@dataclass(frozen=True, kw_only=True)
class PhaseHours:
    """Device hours by what they were spent on."""

    train: float = 0.0
    wait: float = 0.0
    probe: float = 0.0
    checkpoint: float = 0.0
    start: float = 0.0
    lost: float = 0.0
    idle: float = 0.0
    beside: float = 0.0
    """Evaluations in tasks of their own, beside the slots."""

    @property
    def total(self) -> float:
        """All of them."""
        return sum(float(getattr(self, phase)) for phase in PHASES)

    def __add__(self, other: PhaseHours) -> PhaseHours:
        """Sum field by field."""
        return PhaseHours(
            **{item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self)}
        )

    def to_json(self) -> dict[str, float]:
        """As a JSON-able dictionary."""
        return {phase: getattr(self, phase) for phase in PHASES} | {"total": self.total}


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A sweep's ledger: hours of `device` by trial, and the idle ones that belong to none."""

    device: str
    trials: Mapping[str, PhaseHours]
    idle: float
    cap: float | None = None
    price: float | None = None
    currency: str = ""
    beside_cpu_core_hours: float = 0.0
    """CPU core hours of asynchronous probes, where the device is a GPU and they are not among its hours."""
    energy_kwh: Mapping[str, float | None] = field(default_factory=dict)
    """kWh of each trial's GPUs while it trained and probed; None where they are not known."""

    @property
    def total_energy_kwh(self) -> float | None:
        """kWh of all trials that have begun; None when that of any of them is not known."""
        known = [kwh for kwh in self.energy_kwh.values() if kwh is not None]
        return sum(known) if known and len(known) == len(self.energy_kwh) else None

    @property
    def total(self) -> PhaseHours:
        """The whole sweep's hours."""
        return sum(self.trials.values(), PhaseHours(idle=self.idle))

    @property
    def money(self) -> float | None:
        """What the hours cost; None without a price."""
        return None if self.price is None else self.price * self.total.total

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {
            "device": self.device,
            "hours": self.total.to_json(),
            "beside_cpu_core_hours": self.beside_cpu_core_hours,
            "cap_hours": self.cap,
            "money": self.money,
            "currency": self.currency if self.money is not None else None,
            "energy_kwh": self.total_energy_kwh,
            "energy_kwh_of_trial": dict(self.energy_kwh),
            "trials": {trial_id: hours.to_json() for trial_id, hours in self.trials.items()},
        }

    def text(self) -> str:
        """As lines for a person."""
        total = self.total
        head = f"{total.total:.3f} {self.device} hours"
        if self.cap is not None:
            head += f" of {self.cap:g} ({100 * total.total / self.cap:.1f} %)"
        if self.money is not None:
            head += f", {self.money:.2f} {self.currency}"
        whole = max(total.total, 1e-12)
        lines = [
            f"  {_TITLES[phase]:<20}{getattr(total, phase):>10.4f}{100 * getattr(total, phase) / whole:>7.1f} %"
            for phase in PHASES
        ]
        if self.beside_cpu_core_hours:
            lines.append(f"  and {self.beside_cpu_core_hours:.4f} CPU core hours of asynchronous probes")
        kwh = self.total_energy_kwh
        energy = "unknown" if kwh is None else f"{kwh:.4g} kWh of the trials' GPUs"
        return "\n".join([head, *lines, f"  {'energy':<20}  {energy}"])


Devices = Callable[[Attempt], float]


def ledger_of(record: SweepRecord, budget: BudgetConfig, *, now_s: float | None = None) -> Ledger:
    """The ledger of a sweep; slots that are open are charged up to `now_s`, in Unix seconds, or their last event."""
    has_gpus = any(slot.num_gpus for slot in record.slots.values())

    def devices(attempt: Attempt) -> float:
        return attempt.num_gpus if has_gpus else attempt.num_cpus

    held = sum(slot.device_seconds(has_gpus=has_gpus, until=now_s) for slot in record.slots.values())
    trials = {trial.trial_id: _trial_hours(trial, devices, has_gpus=has_gpus) for trial in record.in_order()}
    used = sum(hours.total - hours.beside for hours in trials.values())
    async_cpu_s = sum(trial.async_cpu_core_s for trial in record.trials.values()) if has_gpus else 0.0
    return Ledger(
        device="GPU" if has_gpus else "CPU core",
        trials=trials,
        idle=max(0.0, held / 3600 - used),
        cap=budget.gpu_hours if has_gpus else budget.cpu_core_hours,
        price=budget.price_per_gpu_hour if has_gpus else None,
        currency=budget.currency,
        energy_kwh={trial.trial_id: trial.energy_kwh for trial in record.in_order() if trial.attempts},
        beside_cpu_core_hours=async_cpu_s / 3600,
    )


def _trial_hours(trial: TrialRecord, devices: Devices, *, has_gpus: bool) -> PhaseHours:
    attempts = list(trial.attempts.values())
    if not attempts:
        return PhaseHours()
    held = sum(devices(attempt) * attempt.seconds for attempt in attempts)
    lost = sum(devices(attempt) * _lost_seconds(attempt) for attempt in attempts[:-1])
    measured = _measured_device_seconds(trial, devices)
    known = sum(measured.values())
    room = max(0.0, held - lost)
    if known > room > 0:  # clocks that disagree by a little never make a ledger that does not add up
        measured = {phase: value * room / known for phase, value in measured.items()}
        known = room
    start = max(0.0, held - lost - known)
    return PhaseHours(
        **{phase: value / 3600 for phase, value in measured.items()},
        start=start / 3600,
        lost=lost / 3600,
        beside=(trial.async_gpu_s if has_gpus else trial.async_cpu_core_s) / 3600,
    )


def _lost_seconds(attempt: Attempt) -> float:
    """What an attempt did after its last report."""
    kept = attempt.started if attempt.last_report is None else attempt.last_report
    return max(0.0, attempt.started + attempt.seconds - kept)


def _measured_device_seconds(trial: TrialRecord, devices: Devices) -> dict[str, float]:
    """Training, waiting, probing and checkpointing, from the rows of every report, each counted once.

    In seconds times the devices that the row's attempt held: attempts may have had other numbers of workers.
    """
    found = {"train": 0.0, "wait": 0.0, "probe": 0.0, "checkpoint": 0.0}
    before = 0
    last = list(trial.attempts.values())[-1]
    for images, metrics in sorted(trial.history.items()):
        count = devices(trial.attempts.get(trial.reported_by.get(images, ""), last))
        rate = metrics.get(IMAGES_PER_S, 0.0)
        if rate > 0:
            took = (images - before) / rate
            wait = took * metrics.get(WAIT_FRACTION, 0.0)
            found["train"] += count * (took - wait)
            found["wait"] += count * wait
        found["probe"] += count * metrics.get(PROBE_S, 0.0)
        found["checkpoint"] += count * metrics.get(CHECKPOINT_S, 0.0)
        before = images
    return found
