"""Sweeps on a real local Ray: slots, early stopping, killed workers. One Ray serves all tests of this file."""

import contextlib
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from command_line import run_command
from tiny_sweeps import Remembering, tiny_config

from orchestrator.cluster.processes import descendants
from orchestrator.config import apply_overrides
from orchestrator.data import prepare_data
from orchestrator.protocol.events import Reported
from orchestrator.protocol.jobs import TrialJob
from orchestrator.storage import open_store
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.journal.requests import leave_request
from orchestrator.sweep.run.driver import SweepRequest, run_sweep
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.checkpoint import load_latest
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter
from orchestrator.train.stores import checkpoint_store

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("migrated_runs")]


def _run(config: Any, observer: Remembering | None = None, sweep_id: str = "s") -> SweepRecord:
    return run_sweep(SweepRequest(config=config, observer=observer or Remembering(), sweep_id=sweep_id))


def _live_placement_groups() -> list[str]:
    table = ray.util.placement_group_table()
    return [group for group, facts in table.items() if facts["state"] != "REMOVED"]


@pytest.mark.usefixtures("cluster")
def test_two_trials_of_two_workers_share_two_cpus_and_a_stopped_one_makes_room(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        num_images=100,
        train__num_workers=2,
        train__cpus_per_worker=0.5,
        probe__test_images=60,
        sweep__space={"optimizer.learning_rate": {"choices": [0.001, 0.002, 1.0, 1.1]}},
        sweep__asha={"variant": "stopping", "first_rung_images": 192, "reduction_factor": 4},
    )
    record = _run(config)
    assert [trial.state for trial in record.in_order()] == ["finished", "finished", "stopped", "stopped"]
    slots = {next(iter(trial.attempts.values())).slot_id for trial in record.in_order()}
    assert slots == {"slot-0", "slot-1"}
    assert _live_placement_groups() == []


@pytest.mark.usefixtures("cluster")
def test_trials_wait_at_their_rung_for_each_other_and_the_best_goes_on_from_its_checkpoint(
    tmp_path: Path,
) -> None:
    config = tiny_config(
        tmp_path,
        sweep__space={"optimizer.learning_rate": {"choices": [0.002, 0.001, 0.003]}},
        sweep__asha={"first_rung_images": 192, "reduction_factor": 3},
        sweep__max_concurrent_trials=1,
    )
    record = _run(config)
    best = max(record.in_order(), key=lambda trial: (trial.rungs[192], -trial.index))
    assert best.state == "finished"
    others = [trial for trial in record.in_order() if trial is not best]
    assert [(trial.state, trial.images, len(trial.attempts)) for trial in others] == [("stopped", 192, 1)] * 2
    rows = [
        images
        for attempt in best.attempts
        for images in best.reported_by
        if best.reported_by[images] == attempt
    ]
    assert sorted(rows) == sorted(best.history)
    assert len({slot.slot_id for slot in record.slots.values()}) == 1
    assert _live_placement_groups() == []


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_goes_on_from_its_checkpoint_and_ends_bit_identical(tmp_path: Path) -> None:
    def kill_once(event: Any, record: SweepRecord) -> None:
        if isinstance(event, Reported) and event.images == 320 and not killed:
            killed.append(_kill_the_workers())

    killed: list[int] = []
    # So many images are left after the kill that the trial cannot end before the driver has heard of them.
    config = tiny_config(
        tmp_path,
        train__images=8_000,
        sweep__space={"masks.num_target_blocks": {"choices": [3]}},
        sweep__max_concurrent_trials=1,
    )
    (trial,) = _run(config, Remembering(kill_once)).in_order()
    assert killed[0] >= 1
    assert (trial.state, len(trial.attempts)) == ("finished", 2)
    assert _live_placement_groups() == []
    uri = str(tmp_path / "runs/s")
    job = TrialJob(
        trial_id=trial.trial_id, config=config, shards_uri=prepare_data(config).uri, run_uri=f"{uri}-quiet"
    )
    Run(replace(job, config=apply_overrides(config, trial.point)), ListReporter(), Rank()).train()
    killed_end, quiet_end = (
        load_latest(checkpoint_store(replace(job, run_uri=uri))),
        load_latest(checkpoint_store(job)),
    )
    assert killed_end is not None
    assert quiet_end is not None
    assert all(torch.equal(value, quiet_end.tensors[name]) for name, value in killed_end.tensors.items())


@pytest.mark.usefixtures("cluster")
def test_a_trial_that_cannot_be_kept_fails_alone_and_its_slot_goes_on(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        sweep__space={"masks.num_target_blocks": {"choices": [1, 2]}},
        train__max_failures=1,
        sweep__max_concurrent_trials=1,
    )
    first = plan_sweep(config).trials[0].trial_id
    blocked = tmp_path / "runs/s/trials" / first
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder must be")
    broken, sound = _run(config).in_order()
    assert (broken.state, sound.state) == ("failed", "finished")
    assert first in broken.reason
    assert len(broken.attempts) == 2


@pytest.mark.usefixtures("cluster")
def test_a_proposing_search_runs_what_it_proposes_and_repeats_it_under_the_other_seeds(
    tmp_path: Path,
) -> None:
    config = tiny_config(
        tmp_path,
        train__images=64,
        sweep__search="optuna",
        sweep__num_trials=3,
        sweep__seeds=(0, 1),
        sweep__space={"optimizer.learning_rate": {"log_uniform": [1e-4, 1e-2]}},
    )
    record = _run(config)
    points = {seed: [t.point for t in record.in_order() if t.seed == seed] for seed in (0, 1)}
    assert len(points[0]) == 3
    assert points[1] == points[0]
    assert {trial.state for trial in record.trials.values()} == {"finished"}


@pytest.mark.usefixtures("cluster")
def test_contenders_run_under_further_seeds_in_rounds_that_a_resumed_sweep_keeps(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        train__images=64,
        sweep__seeds="auto",
        sweep__max_seeds=2,
        # Rates that move nothing: both end where they began, and no seed can tell them apart.
        sweep__space={"optimizer.learning_rate": {"choices": [1e-12, 2e-12]}},
        optimizer__start_learning_rate=1e-12,
        optimizer__final_learning_rate=1e-12,
    )
    record = _run(config)
    assert [trial.seed for trial in record.in_order()] == [0, 0, 1, 1]
    assert len(record.seed_rounds) == 1
    again = run_sweep(SweepRequest(config=config, observer=Remembering(), sweep_id="s", resume=True))
    assert (again.seed_rounds, list(again.trials)) == (record.seed_rounds, list(record.trials))
    assert {len(trial.attempts) for trial in again.trials.values()} == {1}


@pytest.mark.usefixtures("cluster")
def test_a_paused_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    def pause_once(event: Any, record: SweepRecord) -> None:
        if isinstance(event, Reported) and event.images >= 160 and not asked:
            leave_request(store, "pause")
            asked.append(event.images)

    asked: list[int] = []
    store = open_store(str(tmp_path / "runs/s"))
    config = tiny_config(
        tmp_path,
        train__images=16_000,
        sweep__space={"masks.num_target_blocks": {"choices": [1]}},
        sweep__max_concurrent_trials=1,
    )
    paused = _run(config, Remembering(pause_once))
    (before,) = paused.in_order()
    assert (paused.state, before.state) == ("paused", "pending")
    assert before.images < 16_000
    record = run_sweep(SweepRequest(config=config, observer=Remembering(), sweep_id="s", resume=True))
    (after,) = record.in_order()
    assert (record.state, after.state, len(after.attempts)) == ("finished", "finished", 2)
    assert sorted(after.history) == list(range(0, 16_001, 160))


@pytest.mark.usefixtures("cluster")
def test_a_trial_comes_out_the_same_again_and_the_recommended_one_is_trained_longer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tiny_config(tmp_path, sweep__space={"masks.num_target_blocks": {"choices": [1, 2]}})
    _run(config)
    runs = ("--runs", str(tmp_path / "runs"))
    again = run_command(monkeypatch, capsys, "reproduce", "s/0", *runs)
    assert again.code == 0, again.err
    assert "Reproduced: every figure is identical." in again.out
    longer = ("--set", "train.images=960", "--set", "encoder.depth=3")
    trained = run_command(monkeypatch, capsys, "train", "--from-best", "s", *runs, *longer)
    assert trained.code == 0, trained.err
    assert "It sees 960 images, 1.5 times the trial's 640." in trained.err
    assert "The ranking was found with a smaller encoder" in trained.err
    assert "960 of 960 images" in trained.err


def _kill_the_workers() -> int:
    """Kill every training worker of the Ray that this process started; returns how many there were.

    All of them, since one of an earlier test may be ending still.
    """
    num_killed = 0
    for pid in descendants([os.getpid()]):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"TrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                num_killed += 1
    return num_killed
