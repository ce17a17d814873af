"""A driver whose cluster dies ends with a code and a message; a local cluster listens on loopback alone."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from open_files import no_open_files_left

from orchestrator.cluster.watchdog import Silence, Watched, answers, watch
from orchestrator.errors import ClusterError

DRIVER = """
import ray, sys, time
from orchestrator.cli.abort import abort
from orchestrator.cluster.connect import ray_cluster

@ray.remote(num_cpus=0)
class Coordinator:
    def events(self):
        return 1

with ray_cluster(num_cpus=1, on_cluster_loss=abort):
    coordinator = Coordinator.remote()
    while True:
        ray.get(coordinator.events.remote())
        print("ready", flush=True)
        time.sleep(0.2)
"""


@pytest.mark.parametrize(
    ("observations", "is_lost"),
    [
        ([(0, False), (4, False)], False),
        ([(0, False), (5, False)], True),
        ([(0, False), (4, True), (8, False), (12, False)], False),
        ([(0, True), (100, True)], False),
        ([(0, False), (4, True), (8, False), (13, False)], True),
    ],
)
def test_only_an_unbroken_silence_counts(observations: list[tuple[int, bool]], is_lost: bool) -> None:
    silence = Silence(5.0)
    last = [silence.observe(answers=answer, now_s=float(now)) for now, answer in observations][-1]
    assert last is is_lost


def test_a_closed_port_is_reported_once_as_lost() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    process = Watched(name="raylet", host="127.0.0.1", port=server.getsockname()[1], limit_s=0.0)
    assert answers(process)
    server.close()
    errors: list[ClusterError] = []
    watch((process,), threading.Event(), errors.append)
    assert [error.exit_code for error in errors] == [7]
    assert f"raylet at 127.0.0.1:{process.port}" in str(errors[0])


def test_a_process_that_can_open_nothing_does_not_take_the_others_for_dead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = Watched(name="raylet", host="127.0.0.1", port=9, limit_s=0.0)
    with no_open_files_left():
        assert answers(process)
    assert "cannot ask the raylet (Too many open files" in caplog.text
    assert not answers(process)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "ready" not in process.stdout.readline():
        assert process.poll() is None, process.communicate()
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


def ray_processes(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)


@pytest.mark.ray
@pytest.mark.parametrize("victim", ["raylet", pytest.param("gcs_server", marks=pytest.mark.slow)])
def test_a_driver_ends_with_7_when_its_raylet_or_gcs_is_killed(
    driver: subprocess.Popen[str], victim: str
) -> None:
    children = ray_processes(driver)
    pid = next(child.pid for child in children if child.name() == victim)
    os.kill(pid, signal.SIGKILL)
    _, errors = driver.communicate(timeout=600)
    assert driver.returncode == 7
    assert "the cluster is lost" in errors
    assert "--resume" in errors
    _, alive = psutil.wait_procs(children, timeout=120)
    assert alive == []


@pytest.mark.ray
def test_a_local_cluster_listens_on_loopback_alone_and_its_token_is_private(
    driver: subprocess.Popen[str], tmp_path: Path
) -> None:
    pids = {driver.pid, *(child.pid for child in ray_processes(driver))}
    sockets = [
        item for item in psutil.net_connections("inet") if item.status == "LISTEN" and item.pid in pids
    ]
    addresses = {item.laddr.ip.removeprefix("::ffff:") for item in sockets}
    assert len(sockets) > 5
    assert addresses == {"127.0.0.1"}
    token = tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
