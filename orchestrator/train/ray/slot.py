"""A slot: one Ray Train worker group that runs trial after trial, so that only the first pays for its start.

The slot's rank 0 asks the sweep's coordinator for a trial, every rank runs it on the process group that is already
there, and the coordinator hears how it ended. Opened shards and decoded probe images are kept from one trial to the
next.

Called by Ray Train alone, through `launch`. The coordinator is an actor (`orchestrator.sweep.run.coordinator`).
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from orchestrator.config.models import RunConfig
from orchestrator.errors import CheckpointError, ConfigError, DataError, OrchestratorError
from orchestrator.protocol.jobs import Assignment, Outcome, TrialJob
from orchestrator.protocol.reports import Decision, TrialReport
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate import DataCache, RayEvaluator
from orchestrator.train.loop import PreemptionNotice, Run, notice_of_this_group
from orchestrator.train.ray.client import SlotCalls
from orchestrator.train.ray.failure import error_text
from orchestrator.train.worker import resolve_precision, threads_per_worker

_POLL_S = 0.05
_KEEP_ALIVE_S = 5.0
_FOR_GOOD = (DataError, CheckpointError, ConfigError)
_PROCESS_IS_SOUND = (OrchestratorError, ValueError, FileNotFoundError, torch.OutOfMemoryError)


@dataclass
class CoordinatorReporter:
    """Reports of one attempt through the coordinator."""

    coordinator: SlotCalls
    attempt_id: str

    def report(self, report: TrialReport) -> Decision:
        """Deliver a report and wait for the decision."""
        return self.coordinator.report(report, self.attempt_id)


@dataclass
class Slot:
    """One rank of a slot; `run` returns when the coordinator has no more trials for it."""

    slot_id: str
    coordinator: SlotCalls
    rank: Rank
    cache: DataCache = field(default_factory=DataCache)
    notice: PreemptionNotice | None = None

    def run(self) -> None:
        """Run trials until there are none."""
        while True:
            assignment = self._next()
            if assignment.kind == "end":
                return
            if assignment.job is not None:
                self._run_trial(assignment.job, assignment.attempt_id)

    def _next(self) -> Assignment[RunConfig]:
        """The coordinator's answer, the same on every rank.

        Rank 0 waits for the others' sake no longer than a few seconds at a time: a collective that is waited in for
        long would run into the process group's timeout.
        """
        assignment: Assignment[RunConfig] = Assignment()
        if self.rank.index == 0:
            until_s = time.monotonic() + _KEEP_ALIVE_S
            while assignment.kind == "wait" and time.monotonic() < until_s:
                assignment = self.coordinator.next_trial(self.slot_id)
                if assignment.kind == "wait":
                    time.sleep(_POLL_S)
        return self.rank.broadcast(assignment)

    def _run_trial(self, job: TrialJob[RunConfig], attempt_id: str) -> None:
        outcome = Outcome()
        try:
            torch.set_num_threads(threads_per_worker(job.config))
            rank = replace(self.rank, precision=resolve_precision(job.config, self.rank.device))
            reporter = CoordinatorReporter(self.coordinator, attempt_id)
            Run(job, reporter, rank, self.cache, self.notice, evaluator=_evaluator(job, rank)).train()
        except Exception as err:
            outcome = Outcome(error=error_text(err), permanent=isinstance(err, _FOR_GOOD))
            if self.rank.world_size > 1 or not isinstance(err, _PROCESS_IS_SOUND):
                # Other ranks may hang in a collective, or the device be lost: the whole group starts anew.
                self._ended(job, attempt_id, outcome)
                raise
        self._ended(job, attempt_id, outcome)
        self._clear()

    def _ended(self, job: TrialJob[RunConfig], attempt_id: str, outcome: Outcome) -> None:
        if self.rank.index == 0 or outcome.error:
            self.coordinator.attempt_ended(job.trial_id, attempt_id, outcome)

    def _clear(self) -> None:
        """Let go of the trial's tensors before the next one allocates its own."""
        gc.collect()
        if self.rank.device.type == "cuda":
            torch.cuda.empty_cache()


def _evaluator(job: TrialJob[RunConfig], rank: Rank) -> RayEvaluator | None:
    """What evaluates beside training, on rank 0 where the coordinator says that there is room."""
    beside = job.config.probe.beside
    if beside is None or not job.evaluates_async or rank.index != 0:
        return None
    return RayEvaluator(num_cpus=beside.cpus, num_gpus=beside.gpus)


def slot_worker(arguments: dict[str, Any]) -> None:
    """Run one rank of a slot: the `train_loop_per_worker` of Ray Train.

    `arguments` holds `slot_id` and `coordinator` (`SlotCalls`).
    """
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    rank = Rank(index=context.get_world_rank(), world_size=context.get_world_size(), device=device)
    coordinator: SlotCalls = arguments["coordinator"]
    notice = None
    if rank.index == 0:
        group = ray.util.get_current_placement_group()
        group_id = group.id.hex() if group is not None else None
        coordinator.slot_started(arguments["slot_id"], group_id)
        notice = notice_of_this_group(coordinator.is_stopping)
    if notice is not None:
        notice.start()
    try:
        Slot(slot_id=arguments["slot_id"], coordinator=coordinator, rank=rank, notice=notice).run()
    finally:
        if notice is not None:
            notice.end()
