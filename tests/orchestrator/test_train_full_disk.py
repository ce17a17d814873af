"""A disk that fills up under a run: a clear error, nothing half-written, and the run goes on when there is room."""

from pathlib import Path

import pytest
import torch
from full_disk import SmallDisk
from tiny_sweeps import tiny_config

from orchestrator.config import apply_overrides
from orchestrator.data import prepare_data
from orchestrator.errors import StorageError
from orchestrator.protocol.jobs import TrialJob
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.checkpoint import list_checkpoints, load_latest
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter
from orchestrator.train.stores import checkpoint_store


def _job(folder: Path, runs: Path) -> TrialJob:
    config = apply_overrides(tiny_config(folder), {"storage.uri": str(runs)})
    return TrialJob(trial_id="t", config=config, shards_uri=prepare_data(config).uri, run_uri=str(runs / "s"))


def test_a_run_on_a_full_disk_says_so_and_ends_bit_identical_when_there_is_room(
    tmp_path: Path, full_disk: SmallDisk
) -> None:
    whole, squeezed = _job(tmp_path, tmp_path / "runs"), _job(tmp_path, full_disk.folder / "runs")
    Run(whole, ListReporter(), Rank()).train()
    Run(squeezed, ListReporter(stop_at_images=160), Rank()).train()
    full_disk.fill()
    with pytest.raises(StorageError, match=r"No space left on device\); check permissions and free space"):
        Run(squeezed, ListReporter(), Rank()).train()
    assert list_checkpoints(checkpoint_store(squeezed)) == ["step-0000000005"]
    assert not list(full_disk.folder.rglob("*tmp*"))
    full_disk.free()
    Run(squeezed, ListReporter(), Rank()).train()
    ours, theirs = load_latest(checkpoint_store(squeezed)), load_latest(checkpoint_store(whole))
    assert ours is not None
    assert theirs is not None
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items())
