"""Asynchronous evaluations: a snapshot of the weights is evaluated elsewhere while the run trains on.

A thread on rank 0 hands one snapshot after another to an evaluator and keeps what came back until the run's next report
takes it, so that results come in the order of their images. An evaluation that fails is tried again and then noted as
missing; it never stops a run. What an evaluator holds is counted here, for the ledger.

Knows nothing of Ray: `evaluator` is the one that runs Ray tasks, and a test may give any other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from jepa_core.execution import ExecutionSettings
from jepa_core.sharding import has_shards, load_whole, whole
from jepa_core.step import TrainState
from orchestrator.config.models import RunConfig
from orchestrator.protocol.metrics import ASYNC_CPU_CORE_S, ASYNC_GPU_S, MISSING, PROBE_S
from orchestrator.protocol.reports import Row
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.data_cache import DataCache
from orchestrator.train.evaluate.evaluation import Evaluation, evaluate
from orchestrator.train.initial import new_state
from orchestrator.train.worker import resolve_precision

_log = logging.getLogger(__name__)
MAX_PENDING = 2
"""Snapshots that wait or are evaluated at a time; training waits before it takes one more."""
Weights = Mapping[str, np.ndarray[Any, Any]]
"""An objective's state on the CPU."""


class NoRoomForEvaluationError(Exception):
    """The resources of an evaluation did not come free in time."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What an evaluation needs of a run: its weights after `images`, as the objective's state on the CPU."""

    config: RunConfig
    shards_uri: str
    images: int
    timestamp_ms: int
    weights: Weights


class Evaluator(Protocol):
    """Evaluates snapshots somewhere else; it holds `num_cpus` cores and `num_gpus` GPUs meanwhile."""

    num_cpus: float
    num_gpus: float

    def evaluate(self, snapshot: Snapshot) -> Evaluation:
        """Evaluate one and wait for it; an error: it failed; `NoRoomForEvaluationError`: it never began."""
        ...

    def cancel(self) -> None:
        """End what is being evaluated; called from another thread."""
        ...


@dataclass(frozen=True, kw_only=True)
class LateResult:
    """An evaluation's metrics under the images of its snapshot, the linear probe's hits, and the weights it read."""

    row: Row
    correct: Mapping[str, str]
    weights: Weights


class Evaluations:
    """The evaluations of one run; used on rank 0 alone, and closed at the run's end."""

    def __init__(self, evaluator: Evaluator, *, max_failures: int) -> None:
        self._evaluator, self._max_failures = evaluator, max_failures
        self._todo: deque[Snapshot] = deque()
        self._done: list[LateResult] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self.has_room = True
        """Whether evaluations still find resources; a run whose evaluations do not goes on by itself."""
        self._thread = threading.Thread(target=self._work, name="evaluations", daemon=True)
        self._thread.start()

    def start(self, snapshot: Snapshot) -> None:
        """Have a snapshot evaluated; waits while `MAX_PENDING` are under way."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._todo) < MAX_PENDING)
            self._todo.append(snapshot)
            self._changed.notify_all()

    def take(self, *, wait: bool = False) -> list[LateResult]:
        """The results that have come since the last call, in the order of their images; `wait` for all of them."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: not self._todo)
            done, self._done = self._done, []
            return done

    def standing(self) -> tuple[list[LateResult], list[int]]:
        """The results that nobody took yet, and the images of the snapshots without a result."""
        with self._changed:
            return list(self._done), [snapshot.images for snapshot in self._todo]

    def close(self) -> None:
        """End what is under way, and the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._evaluator.cancel()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._todo) or self._is_closed)
                if self._is_closed:
                    return
                snapshot = self._todo[0]
            result = self._evaluate(snapshot)
            with self._changed:
                self._done.append(result)
                self._todo.popleft()
                self._changed.notify_all()

    def _evaluate(self, snapshot: Snapshot) -> LateResult:
        """One result; failures are charged from when they were asked for to when they were known."""
        lost_s = 0.0
        for attempt in range(1 + self._max_failures):
            started_s = time.monotonic()
            try:
                found = self._evaluator.evaluate(snapshot)
            except NoRoomForEvaluationError as err:
                self.has_room = False
                _log.warning(
                    "evaluation at %d images: %s; training evaluates by itself", snapshot.images, err
                )
                break
            except Exception as err:  # whatever happens to an evaluation, training goes on
                if self._is_closed:
                    break
                lost_s += time.monotonic() - started_s
                _log.warning("evaluation at %d images, attempt %d: %s", snapshot.images, attempt + 1, err)
                continue
            return self._result(snapshot, found, lost_s)
        return self._result(snapshot, Evaluation(metrics={MISSING: 1.0}), lost_s)

    def _result(self, snapshot: Snapshot, found: Evaluation, lost_s: float) -> LateResult:
        metrics = dict(found.metrics)
        seconds = lost_s + metrics.pop(PROBE_S, 0.0)
        metrics[ASYNC_CPU_CORE_S] = seconds * self._evaluator.num_cpus
        metrics[ASYNC_GPU_S] = seconds * self._evaluator.num_gpus
        row = Row(images=snapshot.images, timestamp_ms=snapshot.timestamp_ms, metrics=metrics)
        return LateResult(row=row, correct=found.correct, weights=snapshot.weights)


def weights_of(state: TrainState, rank: Rank) -> dict[str, np.ndarray[Any, Any]]:
    """A copy of the objective's weights on the CPU: on rank 0, empty elsewhere. Every rank must call it."""
    if rank.index != 0 and not has_shards(state.objective):
        return {}
    found = {name: whole(value.detach()) for name, value in state.objective.state_dict().items()}
    return {} if rank.index != 0 else {name: _copied(value) for name, value in found.items()}


def _copied(value: torch.Tensor) -> np.ndarray[Any, Any]:
    copied: np.ndarray[Any, Any] = value.to("cpu", copy=True).numpy()
    return copied


def evaluate_snapshot(snapshot: Snapshot, *, device: torch.device, cache: DataCache) -> Evaluation:
    """The evaluation that the run itself would have made; `time/probe_s` is of all that it takes here.

    The same figures, bit for bit, where device and precision are the run's own.
    """
    started_s = time.monotonic()
    config = snapshot.config.model_copy(update={"execution": ExecutionSettings()})
    shards = cache.shards(snapshot.shards_uri, config)
    probes = cache.probes(config, shards)
    if probes is None:
        return Evaluation()
    rank = Rank(device=device, precision=resolve_precision(config, device))
    state = new_state(config, 1, rank)
    load_whole(state.objective, {name: torch.tensor(value) for name, value in snapshot.weights.items()})
    found = evaluate(state, probes, config=config, rank=rank)
    return replace(found, metrics={**found.metrics, PROBE_S: time.monotonic() - started_s})
