"""Two processes over gloo: every rank goes on from the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from orchestrator.storage import open_store
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.checkpoint import save_checkpoint
from orchestrator.train.loop.lineage import find_checkpoint


def _find(index: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=index, world_size=2)
    rank = Rank(index=index, world_size=2)
    found = {
        "shared": find_checkpoint(open_store(f"{folder}/shared"), rank),
        "own": find_checkpoint(open_store(f"{folder}/own-{index}"), rank),
        "none": find_checkpoint(open_store(f"{folder}/nothing"), rank),
    }
    values = {name: None if each is None else float(each.tensors["w"][0]) for name, each in found.items()}
    torch.save(values, f"{folder}/seen-{index}.pt")
    dist.destroy_process_group()


def test_every_rank_reads_the_same_checkpoint_or_takes_that_of_rank_0(tmp_path: Path) -> None:
    for place, step in (("shared", 3), ("own-0", 4)):
        tensors = {"w": torch.full((2,), float(step))}
        save_checkpoint(open_store(str(tmp_path / place)), step=step, tensors=tensors, meta={}, keep=1)
    (tmp_path / "own-1").mkdir()
    (tmp_path / "nothing").mkdir()
    mp.spawn(_find, (str(tmp_path),), nprocs=2)
    for index in range(2):
        seen = torch.load(tmp_path / f"seen-{index}.pt", weights_only=True)
        assert seen == {"shared": 3.0, "own": 4.0, "none": None}
