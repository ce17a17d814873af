"""Where a trial keeps what it leaves behind, opened."""

from __future__ import annotations

from orchestrator.config.models import RunConfig
from orchestrator.protocol.jobs import TrialJob, checkpoints_uri, trial_uri
from orchestrator.storage import Store, open_store


def trial_store(job: TrialJob[RunConfig]) -> Store:
    """The trial's folder."""
    return open_store(trial_uri(job.run_uri, job.trial_id), job.config.storage)


def checkpoint_store(job: TrialJob[RunConfig]) -> Store:
    """Its checkpoints."""
    return open_store(checkpoints_uri(job.run_uri, job.trial_id), job.config.storage)
