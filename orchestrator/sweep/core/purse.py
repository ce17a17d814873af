"""What a sweep may still spend: the rules of `budget`, over its record and its clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.config.models import RunConfig
from orchestrator.sweep.core.budget import (
    Standing,
    can_pay_images,
    can_pay_next_report,
    cap_seconds,
    exhausted_reason,
    images_to_decision,
    images_to_finish_one,
    standing,
)
from orchestrator.sweep.core.record import SweepRecord, TrialRecord
from orchestrator.sweep.core.rungs import promotes, trial_rungs


class Purse:
    """Answers whether something can be paid; without a cap on what the sweep holds, everything can.

    `clock` gives Unix seconds; `evaluates_beside` says that evaluations hold devices of their own.
    """

    def __init__(
        self, config: RunConfig, record: SweepRecord, clock: Callable[[], float], *, evaluates_beside: bool
    ) -> None:
        self._config, self._record, self._clock = config, record, clock
        self._beside = config.probe.beside if evaluates_beside else None

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
        beside = self._beside
        per_slot = 0.0 if beside is None else (beside.gpus if self._has_gpus else beside.cpus)
        return standing(self._record, self._clock(), has_gpus=self._has_gpus, beside_per_slot=per_slot)

    def _rungs(self, trial: TrialRecord) -> tuple[int, ...]:
        return trial_rungs(self._config, index=trial.index, seed=trial.seed)
