"""What a trial costs that runs to its end: the second value of a search for a trade-off."""

from __future__ import annotations

import math

from orchestrator.config.models import BudgetConfig
from orchestrator.sweep.core.ledger import ledger_of
from orchestrator.sweep.core.record import SweepRecord, TrialRecord


def full_length_hours(record: SweepRecord, trial: TrialRecord) -> float:
    """Device hours of training, data, probes and checkpoints over the trial's whole length; NaN before any report.

    Starting workers, shared baselines and retries fall to whichever trial comes first and are left out. A trial that
    ended early is extended at its own pace. GPU hours, or CPU core hours where no GPU is held.
    """
    if not trial.images:
        return math.nan
    hours = ledger_of(record, BudgetConfig()).trials[trial.trial_id]
    spent = hours.train + hours.wait + hours.probe + hours.checkpoint
    return spent * trial.total_images / trial.images
