"""What runs in a Ray Train worker: find out who it is, then hand over to the loop.

Called by Ray Train alone, through `launch`. The driver is reached through a board: an actor with `report`, `heartbeat`
and `attempt_started` methods (see `orchestrator.sweep.board`).
"""

from __future__ import annotations

import math
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from jepa_core.step import Precision
from orchestrator.config.models import RunConfig
from orchestrator.train.distributed import Rank
from orchestrator.train.loop import Run, TrialJob
from orchestrator.train.reporting import Decision, TrialReport


class BoardReporter:
    """Reports through the sweep's board, a Ray actor."""

    def __init__(self, board: Any, attempt_id: str) -> None:
        self.board, self.attempt_id = board, attempt_id

    def report(self, report: TrialReport) -> Decision:
        """Deliver a report and wait for the decision."""
        decision: Decision = ray.get(self.board.report.remote(report, self.attempt_id))
        return decision


def train_worker(arguments: dict[str, Any]) -> None:
    """Run one rank of one trial: the `train_loop_per_worker` of Ray Train.

    `arguments` holds `job` (TrialJob), `board` (actor handle) and `attempt_id`.
    """
    job: TrialJob = arguments["job"]
    context = ray.train.get_context()
    torch.set_num_threads(threads_per_worker(job.config))
    rank = Rank(
        index=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        precision=resolve_precision(job.config, ray.train.torch.get_device()),
    )
    board = arguments["board"]
    if rank.index == 0:
        group = ray.util.get_current_placement_group()
        group_id = group.id.hex() if group is not None else None
        ray.get(board.worker_started.remote(job.trial_id, arguments["attempt_id"], group_id))
    Run(job, BoardReporter(board, arguments["attempt_id"]), rank).train()


def threads_per_worker(config: RunConfig) -> int:
    """torch's intra-op threads of one worker: Ray does not enforce CPU shares, so we do."""
    threads = config.train.threads_per_worker
    return max(1, math.floor(config.train.cpus_per_worker)) if threads == "auto" else threads


def resolve_precision(config: RunConfig, device: torch.device) -> Precision:
    """`float32` or `bfloat16`; `auto` is bfloat16 on a GPU that has it and float32 elsewhere."""
    if config.train.precision != "auto":
        return config.train.precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
