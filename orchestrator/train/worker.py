"""How a worker uses its share of a node: threads and precision."""

from __future__ import annotations

import math

import torch

from jepa_core.step import Precision
from orchestrator.config.models import RunConfig


def threads_per_worker(config: RunConfig) -> int:
    """torch's intra-op threads of one worker: Ray does not enforce CPU shares, so we do."""
    threads = config.train.threads_per_worker
    return max(1, math.floor(config.train.cpus_per_worker)) if threads == "auto" else threads


def resolve_precision(config: RunConfig, device: torch.device) -> Precision:
    """`float32` or `bfloat16`; `auto` is bfloat16 on a GPU that has it and float32 elsewhere."""
    if config.train.precision != "auto":
        return config.train.precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
