"""Sweeps on several real raylets, of which one is killed or drained while a trial trains on it."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ray_head import RayHead, WorkerNode, run_ray_head
from sweep_records import record_of
from tiny_sweeps import tiny_config

from orchestrator.config import dump
from orchestrator.storage import open_store
from orchestrator.sweep.journal.log import read_events
from orchestrator.sweep.journal.requests import leave_request
from orchestrator.train.loop.checkpoint import list_checkpoints

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

LIMIT_S = 500.0
BATCH = 32
QUICK_HEALTH = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}


class Sweep:
    """A sweep of one endless trial whose driver is a process of its own."""

    def __init__(self, folder: Path, head: RayHead, **train: Any) -> None:
        config = tiny_config(
            folder,
            train__images=10_000_000,
            train__max_failures=20,
            sweep__space={"masks.num_target_blocks": {"choices": [2]}},
            **train,
        )
        self.store = open_store(f"{config.storage.uri}/endless")
        self.log = folder / "driver.log"
        file = folder / "sweep.yaml"
        file.write_text(dump(config))
        command = [
            *(sys.executable, "-m", "orchestrator", "jobs", "drive", str(file)),
            *("--sweep-id", "endless", "--ray-address", head.gcs_address),
        ]
        with self.log.open("wb") as log:
            self.driver = subprocess.Popen(command, stdout=log, stderr=log, env=head.environment)

    def events(self) -> list[Mapping[str, Any]]:
        return [entry.to_json() for entry in read_events(self.store)]

    def reports(self, *, num_workers: int = 1, after: int = 0) -> list[Mapping[str, Any]]:
        """Reports of attempts of this many workers among the events from number `after` on."""
        events = self.events()
        sizes = {e["attempt_id"]: round(e["num_cpus"]) for e in events if e["kind"] == "attempt_started"}
        return [e for e in events[after:] if e["kind"] == "report" and sizes[e["attempt_id"]] == num_workers]

    def checkpoints(self) -> list[str]:
        """The trial's checkpoints, the newest first."""
        (trial,) = record_of(self.events()).in_order()
        return list_checkpoints(self.store.child(f"trials/{trial.trial_id}/checkpoints"))

    def wait_for(self, condition: Callable[[], Any]) -> int:
        """Poll until it holds; returns how many events there are by then."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert self.driver.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, (self.log.read_text()[-4000:], self.events()[-20:])
            time.sleep(0.2)
        return len(self.events())

    def cancel(self) -> None:
        """Have the driver end the sweep."""
        leave_request(self.store, "cancel")
        assert self.driver.wait(timeout=LIMIT_S) == 0, self.log.read_text()

    def kill(self) -> None:
        self.driver.kill()
        self.driver.wait()


@pytest.fixture
def head(request: pytest.FixtureRequest) -> Iterator[RayHead]:
    with run_ray_head(num_cpus=request.param, environment=QUICK_HEALTH) as found:
        yield found


@pytest.mark.parametrize("head", [1], indirect=True)
def test_a_trial_goes_on_with_fewer_workers_and_grows_again(tmp_path: Path, head: RayHead) -> None:
    node = WorkerNode(head)
    node.start()
    cadence = {"train__report_every_images": 320, "train__checkpoint_every_images": 320}
    sweep = Sweep(tmp_path, head, train__num_workers=2, train__min_workers=1, **cadence)
    try:
        seen = sweep.wait_for(lambda: len(sweep.reports(num_workers=2)) > 1)
        node.kill()
        seen = sweep.wait_for(lambda: len(sweep.reports(num_workers=1, after=seen)) > 1)
        node.start()
        sweep.wait_for(lambda: len(sweep.reports(num_workers=2, after=seen)) > 1)
        sweep.cancel()
    finally:
        sweep.kill()
    events = sweep.events()
    sizes = [event["num_workers"] for event in events if event["kind"] == "slot_started"]
    assert [size for size, _ in itertools.groupby(sizes)][-3:] == [2, 1, 2]
    (trial,) = record_of(events).in_order()
    assert sorted(trial.history) == list(range(0, trial.images + 1, 320))


@pytest.mark.parametrize("head", [0], indirect=True)
def test_a_drained_nodes_trial_goes_on_elsewhere_from_the_step_of_its_notice(
    tmp_path: Path, head: RayHead
) -> None:
    leaving, coming = WorkerNode(head, 2), WorkerNode(head, 3)
    leaving.start()
    cadence = {"train__report_every_images": 1600, "train__checkpoint_every_images": 5_000_000}
    sweep = Sweep(tmp_path, head, **cadence)
    try:
        sweep.wait_for(lambda: len(sweep.reports()) > 1)
        drain(head, leaving)
        started_s = time.monotonic()
        seen = sweep.wait_for(sweep.checkpoints)
        print(f"{time.monotonic() - started_s:.1f} s from the drain to the checkpoint")
        (kept,) = sweep.checkpoints()
        leaving.kill()
        coming.start()
        sweep.wait_for(lambda: sweep.reports(after=seen) and resumed_at(sweep) is not None)
        sweep.cancel()
    finally:
        sweep.kill()
    assert resumed_at(sweep) == BATCH * int(kept.removeprefix("step-"))


def resumed_at(sweep: Sweep) -> int | None:
    """Where the second attempt began, in images; None while there is none."""
    attempts = [event["attempt_id"] for event in sweep.events() if event["kind"] == "attempt_started"]
    reports = [e for e in sweep.events() if e["kind"] == "report" and e["attempt_id"] in attempts[1:]]
    return reports[0]["images"] if reports else None


def drain(head: RayHead, node: WorkerNode) -> None:
    """What a cloud's notice comes to: `ray drain-node`, with a minute to go."""
    ray = str(Path(sys.executable).with_name("ray"))
    node_id = node.node_id()
    assert node_id is not None
    subprocess.run(
        [
            *(ray, "drain-node", "--address", head.gcs_address, "--node-id", node_id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"),
            *("--deadline-remaining-seconds", "60"),
        ],
        env={**os.environ, **head.environment},
        capture_output=True,
        check=True,
    )
