"""A notice that a node will be taken away makes rank 0 write a checkpoint between two stops."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_sweeps import tiny_config

from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import TrialJob
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.checkpoint import list_checkpoints, load_latest
from orchestrator.train.loop.preemption import PreemptionNotice
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter
from orchestrator.train.stores import checkpoint_store


class TakenAway(Exception):
    """The node is gone."""


@dataclass
class NoticeAfter:
    """Comes after so many steps; the node is gone two steps later."""

    steps: int
    asked: int = 0

    def take(self) -> bool:
        self.asked += 1
        if self.asked == self.steps + 2:
            raise TakenAway
        return self.asked == self.steps


def _job(folder: Path, trial_id: str) -> TrialJob:
    config = tiny_config(folder)
    return TrialJob(
        trial_id=trial_id, config=config, shards_uri=prepare_data(config).uri, run_uri=str(folder / "runs/s")
    )


def test_a_run_that_is_taken_away_goes_on_from_the_step_of_its_notice_and_ends_bit_identical(
    tmp_path: Path,
) -> None:
    whole, taken = _job(tmp_path, "whole"), _job(tmp_path, "taken")
    Run(whole, ListReporter(), Rank()).train()
    with pytest.raises(TakenAway):
        Run(taken, ListReporter(), Rank(), notice=NoticeAfter(8)).train()  # type: ignore[arg-type]
    assert list_checkpoints(checkpoint_store(taken))[0] == "step-0000000008"
    rest = ListReporter()
    Run(taken, rest, Rank()).train()
    assert [(report.images, len(report.rows)) for report in rest.reports][:2] == [(256, 0), (320, 1)]
    ours, theirs = load_latest(checkpoint_store(taken)), load_latest(checkpoint_store(whole))
    assert ours is not None
    assert theirs is not None
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items())


def test_a_notice_is_taken_once_for_a_node_and_again_for_another() -> None:
    draining: set[str] = set()
    notice = PreemptionNotice(frozenset({"a", "b"}), lambda: draining)
    heard = []
    for found in (set(), {"a"}, {"a"}, {"a", "elsewhere"}, {"a", "b"}):
        draining.clear()
        draining |= found
        notice.look()
        heard.append(notice.take())
    assert heard == [False, True, False, False, True]


def test_a_sweep_that_is_asked_to_stop_gives_notice_once() -> None:
    asked: list[bool] = []
    notice = PreemptionNotice(frozenset({"a"}), lambda: (), lambda: bool(asked))
    heard = []
    for _ in range(3):
        notice.look()
        heard.append(notice.take())
        asked.append(True)
    assert heard == [False, True, False]
