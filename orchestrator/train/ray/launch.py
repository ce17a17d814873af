"""Ray Train's side of a slot: a TorchTrainer over `train.num_workers` workers, or fewer where they may be fewer.

Checkpoints, metrics and decisions pass through our own doors (`checkpoint`, the coordinator), so Ray Train keeps no
state of its own that a resume would need: after any failure the workers find the newest verified checkpoint themselves.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.train import (
    ControllerError,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)
from ray.train.torch import TorchTrainer

from orchestrator.errors import TrainingError
from orchestrator.text import counted
from orchestrator.train.ray.client import SlotCalls
from orchestrator.train.ray.failure import error_text

HEALTH_CHECK_INTERVAL_S = "0.1"
"""`RAY_TRAIN_HEALTH_CHECK_INTERVAL_S`: Ray's default of 2 s adds seconds to the end of every trial."""

ACCELERATOR_PREFIX = "accelerator_type:"
"""How Ray names the resource that a node with a kind of GPU has."""


@dataclass(frozen=True, kw_only=True)
class TrialResources:
    """What each worker of a slot, and so of a trial, holds; GPUs may be a fraction of one."""

    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    gpu_type: str | None = None
    min_workers: int | None = None
    """The fewest that a trial goes on with; None: always `num_workers`."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of workers that a slot may have, the most first: every worker does as many shares of a batch."""
        least = self.num_workers if self.min_workers is None else self.min_workers
        return tuple(size for size in range(self.num_workers, least - 1, -1) if self.num_workers % size == 0)

    def with_workers(self, num_workers: int) -> TrialResources:
        """The same with another number of workers."""
        return replace(self, num_workers=num_workers)

    @property
    def num_gpus(self) -> float:
        """GPUs of all workers together."""
        return self.num_workers * self.gpus_per_worker

    @property
    def num_cpus(self) -> float:
        """CPU cores of all workers together."""
        return self.num_workers * self.cpus_per_worker

    def per_worker(self) -> dict[str, float]:
        """In Ray's terms."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})


class NoRoomError(TrainingError):
    """The cluster has no room for a slot's workers at present, e.g. since their node is gone."""


class _TellCoordinator(UserCallback):  # type: ignore[misc]
    """Frees a slot's trial as soon as its workers die; their successors may have to wait for a node."""

    def __init__(self, slot_id: str, coordinator: SlotCalls) -> None:
        self.slot_id, self.coordinator = slot_id, coordinator

    def after_exception(self, run_context: Any, worker_exceptions: Any) -> None:
        """Called by Ray Train's controller."""
        self.coordinator.slot_failed(self.slot_id)


def fit_slot(
    slot_id: str, *, coordinator: SlotCalls, resources: TrialResources, scratch_dir: str, max_failures: int
) -> None:
    """Run a slot's workers until the coordinator has no more trials, restarting them after failures.

    `scratch_dir` is where Ray Train writes its own book-keeping, which nothing reads again.

    Raises:
        NoRoomError: The workers could not be placed.
        TrainingError: The workers failed more than `max_failures` times.
    """
    trainer = TorchTrainer(
        _slot_worker,
        train_loop_config={"slot_id": slot_id, "coordinator": coordinator},
        scaling_config=ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=resources.per_worker(),
            accelerator_type=resources.gpu_type if resources.gpus_per_worker > 0 else None,
        ),
        run_config=RunConfig(
            name=f"{slot_id}-{uuid.uuid4().hex[:8]}",
            storage_path=scratch_dir,
            failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=0),
            callbacks=[_TellCoordinator(slot_id, coordinator)],
        ),
    )
    try:
        trainer.fit()
    except (TrainingFailedError, RayActorError, RayTaskError) as err:
        if isinstance(err, ControllerError) and "StartupTimeout" in type(err.controller_failure).__name__:
            raise NoRoomError(
                f"the cluster has no room for {counted(resources.num_workers, 'worker')}"
            ) from None
        raise TrainingError(_root_cause(err)) from None


def _slot_worker(arguments: dict[str, Any]) -> None:
    """`slot.slot_worker`, loaded by the workers alone: neither the driver nor Ray Train's controller trains."""
    from orchestrator.train.ray.slot import slot_worker

    slot_worker(arguments)


def _root_cause(error: BaseException) -> str:
    """The innermost message of a failure that crossed several processes."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    while True:
        inner = getattr(error, "cause", None) or error.__cause__
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    return error_text(error)
