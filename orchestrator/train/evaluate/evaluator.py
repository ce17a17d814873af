"""The evaluator of a slot: each snapshot is one Ray task with resources of its own, outside the slot's.

A task's process keeps the opened shards and the decoded probe images for the next one that it gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, TaskCancelledError

from orchestrator.text import counted
from orchestrator.train.evaluate.asynchronous import NoRoomForEvaluationError, Snapshot, evaluate_snapshot
from orchestrator.train.evaluate.data_cache import DataCache
from orchestrator.train.evaluate.evaluation import Evaluation

_PATIENCE_S = 600.0
"""An evaluation that has given nothing for so long is taken to have found no room."""
_cache = DataCache()


def run_snapshot(snapshot: Snapshot, num_threads: int) -> Evaluation:
    """What a task does: evaluate a snapshot on the GPU that Ray gave it, or on the CPU."""
    torch.set_num_threads(num_threads)
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    return evaluate_snapshot(snapshot, device=device, cache=_cache)


@dataclass
class RayEvaluator:
    """Evaluates snapshots in Ray tasks, one at a time; `function` is what a task runs."""

    num_cpus: float
    num_gpus: float
    patience_s: float = _PATIENCE_S
    function: Callable[[Snapshot, int], Evaluation] = run_snapshot
    _task: Any = field(default=None, repr=False)
    _is_cancelled: bool = False

    def evaluate(self, snapshot: Snapshot) -> Evaluation:
        """Run one task and wait for it.

        Raises:
            NoRoomForEvaluationError: It gave nothing within `patience_s`.
            Exception: What the task raised, or that its process died.
        """
        if self._is_cancelled:
            raise TaskCancelledError
        task = ray.remote(self.function).options(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            max_retries=0,  # `Evaluations` counts and charges every attempt
            scheduling_strategy="DEFAULT",  # not inside the slot's own placement group
        )
        self._task = task.remote(snapshot, max(1, math.floor(self.num_cpus)))
        try:
            found: Evaluation = ray.get(self._task, timeout=self.patience_s)
        except GetTimeoutError as err:
            ray.cancel(self._task, force=True)
            raise NoRoomForEvaluationError(
                f"no {counted(self.num_cpus, 'CPU')} and {counted(self.num_gpus, 'GPU')} gave a "
                f"result within {self.patience_s:g} s"
            ) from err
        return found

    def cancel(self) -> None:
        """End the task that runs, and start no other."""
        self._is_cancelled = True
        if self._task is not None:
            ray.cancel(self._task, force=True)
