"""One rank's view of its process group: index, world size, device, and the collectives a run needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from jepa_core.step import Precision

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Where this process stands; the default is a process alone on a CPU."""

    index: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "float32"

    def shares_of(self, num_workers: int) -> int:
        """How many workers' shares of each batch this process does, in a run that was laid out for `num_workers`.

        1 where they cannot be dealt out evenly: the process then takes its part of the batch as a whole.
        """
        return num_workers // self.world_size if num_workers % self.world_size == 0 else 1

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank; must be picklable between processes of one program."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def mean(self, values_N: Tensor) -> Tensor:
        """The mean over the ranks of a vector of float32 on `device`."""
        if self.world_size == 1:
            return values_N
        dist.all_reduce(values_N)
        return values_N / self.world_size

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank; must be picklable between processes of one program."""
        if self.world_size == 1:
            return [value]
        box: list[T] = [value] * self.world_size
        dist.all_gather_object(box, value)
        return box

    def gather_rows(self, rows_BD: Tensor, rows_per_rank: int) -> Tensor:
        """The ranks' rows in rank order; each gives `rows_per_rank` of them, only the last ranks fewer."""
        if self.world_size == 1:
            return rows_BD
        padded = rows_BD.new_zeros(rows_per_rank, rows_BD.shape[1])
        padded[: len(rows_BD)] = rows_BD
        parts = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(parts, padded)
        return torch.cat(parts)
