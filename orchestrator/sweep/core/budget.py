"""A hard cap on what a sweep may cost: rules over device seconds, and `SweepBudget`, which asks them of a record.

A device is a GPU, or a CPU core where a sweep holds no GPU. What is held is charged, busy or not. Three rules keep a
sweep under its cap: a trial starts, or goes on from a rung, only when what it needs up to its next decision fits beside
what the running ones still need, and a slot for which nothing fits is returned; every report asks whether another one
can still be paid; and when it cannot, all stop with a checkpoint, from which a larger budget goes on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.config.models import BudgetConfig, RunConfig
from orchestrator.sweep.core.record import SweepRecord, TrialRecord
from orchestrator.sweep.core.rungs import promotes, trial_rungs

BUDGET_REASON = "budget:"
"""How the reason of every stop for want of budget begins."""

_SAFETY = 1.1
"""The longest gap between two reports so far, times this, is what the next may take."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a sweep stands: `spent_s` and `rate` in device seconds and devices held now.

    `gap_s` is the longest time between two messages of a trial so far; 0 when there was none. `per_image_s` is the
    device seconds an image has cost, starts of trials left out; None before anything is known. `start_s` is what a
    start has cost in the middle: the first trial's, which measures the baselines for all, says little of the next.
    """

    spent_s: float
    rate: float
    gap_s: float
    per_image_s: float | None
    start_s: float = 0.0


def cap_seconds(budget: BudgetConfig, *, has_gpus: bool) -> float | None:
    """The cap in device seconds; None where none is set for the kind of device that is held."""
    hours = budget.gpu_hours if has_gpus else budget.cpu_core_hours
    return None if hours is None else 3600 * hours


def uncapped(budget: BudgetConfig, *, has_gpus: bool) -> str | None:
    """What to say when a cap is set for the device that is not held alone; None when nothing is to be said."""
    caps = {"budget.gpu_hours": budget.gpu_hours, "budget.cpu_core_hours": budget.cpu_core_hours}
    own, other = list(caps) if has_gpus else list(caps)[::-1]
    if caps[own] is not None or caps[other] is None:
        return None
    held = "GPUs are" if has_gpus else "no GPU is"
    return f"{other} caps nothing in this sweep: {held} held, and {own} is not set"


def standing(record: SweepRecord, now_s: float, *, has_gpus: bool, async_per_slot: float = 0.0) -> Standing:
    """Read a sweep's standing off its record at a time in Unix seconds.

    `async_per_slot` is how many devices an asynchronous evaluation of a slot may hold: what it has cost is known
    when its result comes, and is reserved as if it always ran until then.
    """
    spent = rate = 0.0
    for slot in record.slots.values():
        devices = slot.num_gpus if has_gpus else slot.num_cpus
        spent += slot.device_seconds(has_gpus=has_gpus, until=now_s)
        rate += devices + async_per_slot if slot.is_open else 0.0
    used = images = 0.0
    starts = []
    for trial in record.trials.values():
        async_s = trial.async_gpu_s if has_gpus else trial.async_cpu_core_s
        spent += async_s
        if trial.images:
            used += async_s
            images += trial.images
        for attempt in trial.attempts.values() if trial.images else ():
            devices = attempt.num_gpus if has_gpus else attempt.num_cpus
            used += devices * (attempt.seconds - attempt.start_s)
            starts += [devices * attempt.start_s] if attempt.start_s else []
    return Standing(
        spent_s=spent,
        rate=rate,
        gap_s=max((trial.longest_gap_s for trial in record.trials.values()), default=0.0),
        per_image_s=used / images if images else None,
        start_s=statistics.median(starts) if starts else 0.0,
    )


def can_pay_next_report(cap_s: float, now: Standing) -> bool:
    """Whether every slot may hold its devices until the next report without passing the cap."""
    return now.spent_s + now.rate * _SAFETY * now.gap_s <= cap_s


def can_pay_images(
    cap_s: float,
    now: Standing,
    *,
    num_images: int,
    running: Sequence[tuple[TrialRecord, tuple[int, ...]]],
    reserve_images: int = 0,
    num_starts: int = 0,
) -> bool:
    """Whether `num_images` more fit beside what the running trials need up to their own next decision, and a reserve.

    `running` holds trials with their rungs; `num_starts` is 1 for a trial that is not running yet. The first trials of
    a sweep always may: nothing is known of their cost.
    """
    if now.spent_s >= cap_s:
        return False
    if now.per_image_s is None:
        return True
    owed = sum(images_to_decision(trial.images, trial.total_images, rungs) for trial, rungs in running)
    num_starts += sum(not trial.images for trial, _ in running)
    needed_s = num_starts * now.start_s + now.per_image_s * (owed + num_images + reserve_images)
    return now.spent_s + needed_s <= cap_s


def images_to_finish_one(record: SweepRecord, started: Sequence[tuple[TrialRecord, tuple[int, ...]]]) -> int:
    """The reserve: images that bring the trial that needs fewest to its end, so that a sweep ends with a trained model.

    `started` holds, with their rungs, the trials whose way to their next decision is paid for; they need what comes
    after it. 0 once a trial has finished.
    """
    trials = record.trials.values()
    if any(trial.state == "finished" for trial in trials):
        return 0
    paid = {
        trial.trial_id: images_to_decision(trial.images, trial.total_images, rungs)
        for trial, rungs in started
    }
    return min(
        (
            trial.total_images - trial.images - paid.get(trial.trial_id, 0)
            for trial in trials
            if not trial.done
        ),
        default=0,
    )


def images_to_decision(images: int, total_images: int, rungs: tuple[int, ...]) -> int:
    """Images from here to the next rung, or to the end."""
    ahead = [rung for rung in rungs if images < rung < total_images]
    return (min(ahead) if ahead else total_images) - images


def exhausted_reason(budget: BudgetConfig, *, has_gpus: bool) -> str:
    """The reason of a stop, in the unit that was set."""
    if has_gpus:
        return f"{BUDGET_REASON} {budget.gpu_hours:g} GPU hours are spent"
    return f"{BUDGET_REASON} {budget.cpu_core_hours:g} CPU core hours are spent"


class SweepBudget:
    """Answers whether something can be paid; without a cap on what the sweep holds, everything can.

    `clock` gives Unix seconds; `evaluates_async` says that evaluations hold devices of their own.
    """

    def __init__(
        self, config: RunConfig, record: SweepRecord, clock: Callable[[], float], *, evaluates_async: bool
    ) -> None:
        self._config, self._record, self._clock = config, record, clock
        self._async = config.probe.beside if evaluates_async else None

    @property
    def exhausted_reason(self) -> str:
        """Why the sweep stops once nothing more can be paid."""
        return exhausted_reason(self._config.budget, has_gpus=self._has_gpus)

    def can_pay_next_report(self) -> bool:
        """Whether every slot may hold its devices until the next report."""
        return self._cap_s is None or can_pay_next_report(self._cap_s, self._standing())

    def can_pay(
        self,
        trial: TrialRecord,
        running: Sequence[TrialRecord],
        *,
        num_starts: int = 0,
        keeps_reserve: bool = True,
    ) -> bool:
        """Whether a trial's way to its next decision fits, beside that of the running ones and a reserve to finish one.

        Where trials do not wait at rungs, the reserve is for whichever has begun, so none is kept from that.
        """
        if self._cap_s is None:
            return True
        others = [(other, self._rungs(other)) for other in running if other is not trial]
        keeps_reserve &= not trial.images or promotes(self._config.sweep)
        started = [*others, (trial, self._rungs(trial))]
        return can_pay_images(
            self._cap_s,
            self._standing(),
            num_images=images_to_decision(trial.images, trial.total_images, self._rungs(trial)),
            running=others,
            reserve_images=images_to_finish_one(self._record, started) if keeps_reserve else 0,
            num_starts=num_starts,
        )

    @property
    def _has_gpus(self) -> bool:
        return any(slot.num_gpus for slot in self._record.slots.values())

    @property
    def _cap_s(self) -> float | None:
        return cap_seconds(self._config.budget, has_gpus=self._has_gpus)

    def _standing(self) -> Standing:
        held = self._async
        per_slot = 0.0 if held is None else (held.gpus if self._has_gpus else held.cpus)
        return standing(self._record, self._clock(), has_gpus=self._has_gpus, async_per_slot=per_slot)

    def _rungs(self, trial: TrialRecord) -> tuple[int, ...]:
        return trial_rungs(self._config, index=trial.index, seed=trial.seed)
