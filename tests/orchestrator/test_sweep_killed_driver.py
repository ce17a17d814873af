"""The driver is killed with SIGKILL and the sweep gone on with: the same trials and decisions, nothing twice."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from sweep_records import record_of
from tiny_sweeps import InProcess, tiny_config

from orchestrator.config import dump
from orchestrator.config.models import RunConfig
from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import Outcome
from orchestrator.storage import open_store
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.journal.log import read_events
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("migrated_runs")]

COMMAND = [sys.executable, "-c", "from orchestrator.cli import main; main()", "sweep"]
RATES = [0.001, 0.003, 0.9, 0.01, 1.0, 0.002, 1.1, 0.03, 0.0005, 1.2, 0.005, 0.8]


def _config(folder: Path, num_trials: int) -> RunConfig:
    return tiny_config(
        folder,
        num_images=60,
        probe__test_images=36,
        sweep__space={"optimizer.learning_rate": {"choices": RATES[:num_trials]}},
        sweep__asha={"first_rung_images": 192, "reduction_factor": 2},
        sweep__max_concurrent_trials=1,
    )


class Driver:
    """One sweep that is started, killed and gone on with from the command line."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.runs = Path(config.storage.uri)
        self.file = folder / f"{self.runs.name}.yaml"
        self.file.write_text(dump(config))
        self.log = folder / f"{self.runs.name}.log"

    @property
    def folder(self) -> Path | None:
        found = [path.parent for path in self.runs.glob("*/journal")]
        return found[0] if found else None

    def start(self) -> subprocess.Popen[bytes]:
        more = [] if self.folder is None else ["--resume", self.folder.name]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*COMMAND, str(self.file), "--num-cpus", "2", *more], stdout=log, stderr=log
            )

    def run_to_its_end(self) -> None:
        process = self.start()
        assert process.wait() == 0, self.log.read_text()  # the test has a time limit of its own

    def kill_after(self, num_events: int) -> bool:
        """Kill the driver when the journal has this many events and one of its own; whether it came to that."""
        num_events = max(num_events, self.num_events() + 1)
        process = self.start()
        while process.poll() is None:
            if self.num_events() >= num_events:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.01)
        assert process.returncode == 0, self.log.read_text()
        return False

    def num_events(self) -> int:
        return 0 if self.folder is None else len(os.listdir(self.folder / "journal"))

    def events(self) -> list[Mapping[str, Any]]:
        assert self.folder is not None
        return [entry.to_json() for entry in read_events(open_store(str(self.folder)))]


def _decisions(record: SweepRecord) -> dict[str, Any]:
    return {
        trial.trial_id: (
            trial.state,
            trial.reason,
            trial.rungs,
            trial.decisions,
            trial.index,
            trial.takeovers,
        )
        for trial in record.in_order()
    }


def _assert_lost_at_most(events: list[Mapping[str, Any]], interval_images: int) -> None:
    seen: dict[str, int] = {}
    attempts: dict[str, str] = {}
    for event in events:
        if event["kind"] != "report":
            continue
        trial, images = event["trial_id"], event["images"]
        if attempts.get(trial) != event["attempt_id"]:
            assert images >= seen.get(trial, 0) - interval_images
        attempts[trial], seen[trial] = event["attempt_id"], max(images, seen.get(trial, 0))


def _assert_tracked_once(driver: Driver, record: SweepRecord) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{driver.runs}/mlflow.db")
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = [
        run for run in client.search_runs(experiments) if run.data.tags.get("mlflow.parentRunId") is not None
    ]
    assert len(runs) == len(record.trials)
    for run in runs:
        for name in run.data.metrics:
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
            assert len(steps) == len(set(steps)), (run.info.run_name, name)
        losses = client.get_metric_history(run.info.run_id, "train/loss")
        trial = record.trials[run.data.tags["orchestrator.trial_id"]]
        assert {loss.step for loss in losses} == {
            images for images, metrics in trial.history.items() if "train/loss" in metrics
        }


def _undisturbed(config: RunConfig, folder: Path) -> SweepRecord:
    """The same sweep in this process, one trial after the other, without Ray."""
    torch.set_num_threads(1)
    coordinator = Coordinator(str(folder / "undisturbed"), config, prepare_data(config).uri)
    coordinator.slot_opened("slot-0", 0.0, 1.0)
    for trial in plan_sweep(config).trials:
        coordinator.submit(trial.trial_id, trial.index, trial.point, trial.seed, trial.name)
    while (assignment := coordinator.next_trial("slot-0")).job is not None:
        Run(assignment.job, InProcess(coordinator, assignment.attempt_id), Rank()).train()
        coordinator.attempt_ended(assignment.job.trial_id, assignment.attempt_id, Outcome())
    return coordinator.record()


def _check(config: RunConfig, folder: Path, *, num_kills: int, rng: random.Random) -> SweepRecord:
    expected = _undisturbed(config, folder)
    driver = Driver(config, folder)
    total = len(os.listdir(folder / "undisturbed/journal"))
    moments = sorted(rng.sample(range(2, total - 2), num_kills))
    killed = [driver.kill_after(moment + 2 * number) for number, moment in enumerate(moments)]
    driver.run_to_its_end()
    record = record_of(driver.events())
    assert all(killed[: num_kills // 2 + 1])
    assert record.state == "finished"
    assert _decisions(record) == _decisions(expected)
    _assert_lost_at_most(driver.events(), interval_images=160)
    _assert_tracked_once(driver, record)
    return record


def test_a_killed_driver_loses_nothing(tmp_path: Path) -> None:
    _check(_config(tmp_path, 4), tmp_path, num_kills=1, rng=random.Random(4))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_change_no_decision(tmp_path: Path) -> None:
    _check(_config(tmp_path, 12), tmp_path, num_kills=10, rng=random.Random(0))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_of_a_populations_driver_change_no_takeover(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        num_images=60,
        probe__test_images=36,
        train__images=480,
        optimizer__warmup_fraction=0.0,
        sweep__metric="probe/knn/mean",
        sweep__space={"optimizer.learning_rate": {"choices": [0.0001, 0.001, 0.01, 0.03]}},
        sweep__pbt={"every_images": 160},
        sweep__max_concurrent_trials=1,
    )
    record = _check(config, tmp_path, num_kills=3, rng=random.Random(1))
    assert [event.images for event in record.generations] == [160, 320]
    assert any(trial.takeovers for trial in record.trials.values())
