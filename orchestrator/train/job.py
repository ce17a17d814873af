"""What the coordinator and a slot tell each other: the trial to run, and how it ended.

Plain values, which the coordinator reads without the libraries that train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.config.models import RunConfig
from orchestrator.storage import Store, open_store


@dataclass(frozen=True, kw_only=True)
class Inheritance:
    """The weights that a run goes on from: another trial's, after so many optimiser steps, under its configuration."""

    trial_id: str
    step: int
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """Everything a worker needs to run one trial.

    `shards_uri` is where the prepared shards are; `run_uri` is the sweep's folder; `rungs_images` are the rungs of the
    scheduler, in images seen. `evaluates_beside` says that the cluster has room for what `probe.beside` asks for.
    """

    trial_id: str
    config: RunConfig
    shards_uri: str
    run_uri: str
    rungs_images: tuple[int, ...] = ()
    shorter_images: tuple[int, ...] = ()
    """Lengths that the trial was planned with before it was extended, as `train.images` had them."""
    evaluates_beside: bool = False
    inherits: Inheritance | None = None
    """Whose weights a member of a population goes on from, unless it has come further since."""
    pinned_step: int | None = None
    """The step whose checkpoint others may still take over; it is kept beside the newest."""

    def trial_store(self) -> Store:
        """Where this trial keeps what it leaves behind."""
        return open_store(f"{self.run_uri}/trials/{self.trial_id}", self.config.storage)

    def checkpoint_store(self) -> Store:
        """Where this trial's checkpoints are."""
        return self.trial_store().child("checkpoints")


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What the coordinator answers a slot: a trial to run, nothing yet, or nothing any more."""

    kind: Literal["run", "wait", "end"] = "wait"
    job: TrialJob | None = None
    attempt_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended for its slot: `error` is empty when the trial returned by itself.

    `permanent` says that trying again would fail again.
    """

    error: str = ""
    permanent: bool = False
