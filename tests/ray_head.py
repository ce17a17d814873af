"""A real Ray head with a job server for tests, and further nodes: own token, ports and folder, stopped at the end."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s3_server import free_ports

START_LIMIT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class RayHead:
    """A running head. `environment` is what a process of this cluster, or a client of it, needs."""

    url: str
    gcs_address: str
    token: str
    token_file: Path
    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def processes(self) -> dict[int, str]:
        """Every process of the cluster: pid and command line, found by the token path in its environment."""
        return processes_with(f"RAY_AUTH_TOKEN_PATH={self.token_file}")


class WorkerNode:
    """A further node of a head's cluster on this machine, with an address of its own."""

    def __init__(self, head: RayHead, number: int = 2) -> None:
        self.head, self.number = head, number
        self.address = f"127.0.0.{number}"
        self._marker = f"WORKER_NODE_{number}={head.folder.name}"

    def start(self) -> None:
        """Start its raylet and wait until the cluster has the node."""
        agent_grpc, agent, metrics, runtime_env = free_ports(4)
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"),
            *(f"--address={self.head.gcs_address}", f"--node-ip-address={self.address}", "--num-cpus=1"),
            *(f"--dashboard-agent-grpc-port={agent_grpc}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime_env}"),
            "--object-store-memory=100000000",
        ]
        name, _, value = self._marker.partition("=")
        variables = {**self.head.environment, name: value}
        with (self.head.folder / f"node-{self.number}.log").open("ab") as log:
            subprocess.Popen(command, stdout=log, stderr=log, env=variables, start_new_session=True)
        deadline = time.monotonic() + START_LIMIT_S
        while self.node_id() is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.address} does not join: {log.name}")
            time.sleep(0.5)

    def node_id(self) -> str | None:
        """Ray's id of the node; None while it is not there."""
        request = urllib.request.Request(
            f"{self.head.url}/api/v0/nodes", headers={"Authorization": f"Bearer {self.head.token}"}
        )
        with contextlib.suppress(OSError):
            found = json.load(urllib.request.urlopen(request, timeout=30))["data"]["result"]["result"]
            alive = [node for node in found if node["state"] == "ALIVE"]
            return next((node["node_id"] for node in alive if node["node_ip"] == self.address), None)
        return None

    def kill(self) -> None:
        """SIGKILL to all of its processes at once, as when a machine loses its power."""
        for pid in processes_with(self._marker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def run_ray_head(
    *, num_cpus: float = 2, environment: dict[str, str] | None = None, block: bool = True
) -> Iterator[RayHead]:
    """Start a head on loopback whose job server asks for a token, and stop it when the block ends.

    Without `block` nothing ends the head's other processes when one of them dies.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-head-"))  # short: Ray's socket paths are limited to 107 bytes
    token = secrets.token_hex(32)
    token_file = folder / "token"
    token_file.write_text(token)
    token_file.chmod(0o600)
    gcs, dashboard, client, agent_grpc, agent = free_ports(5)
    variables = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        **(environment or {}),
    }
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("start", "--head", *(["--block"] if block else []), "--disable-usage-stats"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        *(f"--dashboard-agent-grpc-port={agent_grpc}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--num-cpus={num_cpus}", "--object-store-memory=100000000", f"--temp-dir={folder}/ray"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        '--resources={"orchestrator_driver": 1}',
    ]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables, start_new_session=True)
    head = RayHead(
        url=f"http://127.0.0.1:{dashboard}",
        gcs_address=f"127.0.0.1:{gcs}",
        token=token,
        token_file=token_file,
        folder=folder,
        environment=variables,
        process=process,
    )
    try:
        _wait_until_ready(head, block=block)
        yield head
    finally:
        _stop(head)
        shutil.rmtree(folder, ignore_errors=True)


def processes_with(variable: str) -> dict[int, str]:
    """Processes that were started with exactly this environment entry."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
    return found


def _wait_until_ready(head: RayHead, *, block: bool) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    request = urllib.request.Request(
        f"{head.url}/api/jobs/", headers={"Authorization": f"Bearer {head.token}"}
    )
    while time.monotonic() < deadline:
        if head.process.poll() is not None and (block or head.process.returncode):
            break
        with contextlib.suppress(OSError, urllib.error.URLError):
            urllib.request.urlopen(request, timeout=5).read()
            return
        time.sleep(0.2)
    raise RuntimeError(f"the Ray head does not start: {(head.folder / 'head.log').read_text()[-2000:]}")


def _stop(head: RayHead) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(head.process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.process.wait(timeout=4)
    for pid in head.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.process.wait(timeout=5)
