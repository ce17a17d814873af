"""What the coordinator and a slot tell each other: the trial to run, and how it ended. `Decision` is in `reports`.

A job is generic in its settings, a trial's checked configuration, which this package may not know. As JSON they would
have to be checked once more in every worker, where a setting that this version reads otherwise is found too late; a job
goes from process to process by Ray alone, and no file holds one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

ConfigT = TypeVar("ConfigT")


def trial_uri(run_uri: str, trial_id: str) -> str:
    """Where a trial of the sweep in `run_uri` keeps what it leaves behind."""
    return f"{run_uri}/trials/{trial_id}"


def checkpoints_uri(run_uri: str, trial_id: str) -> str:
    """Where its checkpoints are."""
    return f"{trial_uri(run_uri, trial_id)}/checkpoints"


@dataclass(frozen=True, kw_only=True)
class Inheritance(Generic[ConfigT]):
    """The weights that a run goes on from: another trial's, after so many optimiser steps, under its configuration."""

    trial_id: str
    step: int
    config: ConfigT


@dataclass(frozen=True, kw_only=True)
class TrialJob(Generic[ConfigT]):
    """Everything a worker needs to run one trial.

    `shards_uri` is where the prepared shards are; `run_uri` is the sweep's folder; `rungs_images` are the rungs of the
    scheduler, in images seen. `evaluates_async` says that the cluster has room for what `probe.beside` asks for.
    """

    trial_id: str
    config: ConfigT
    shards_uri: str
    run_uri: str
    rungs_images: tuple[int, ...] = ()
    shorter_images: tuple[int, ...] = ()
    """Lengths that the trial was planned with before it was extended, as `train.images` had them."""
    evaluates_async: bool = False
    inherits: Inheritance[ConfigT] | None = None
    """Whose weights a member of a population goes on from, unless it has come further since."""
    pinned_step: int | None = None
    """The step whose checkpoint others may still take over; it is kept beside the newest."""


@dataclass(frozen=True, kw_only=True)
class Assignment(Generic[ConfigT]):
    """What the coordinator answers a slot: a trial to run, nothing yet, or nothing any more."""

    kind: Literal["run", "wait", "end"] = "wait"
    job: TrialJob[ConfigT] | None = None
    attempt_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended for its slot: `error` is empty when the trial returned by itself.

    `permanent` says that trying again would fail again.
    """

    error: str = ""
    permanent: bool = False
