"""Two real Ray nodes with addresses of their own on one machine, in network namespaces that this script makes.

    python tests/chaos/two_nodes.py [--json FILE]        (as root; Linux with iproute2)

A head node and a worker node live in namespaces on a bridge; a sweep is submitted from outside both. In mid-training
every process of the worker node is killed; its trial goes on from its checkpoint on the head's node; then the node
comes back and takes trials again. There are more trials than can end meanwhile, and the sweep is stopped from outside
when all of this was seen. Prints what was seen and exits with 1 when a claim does not hold.
"""

from __future__ import annotations

import argparse
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
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from image_data import image_folder  # noqa: E402
from tiny_sweeps import TINY  # noqa: E402

NAME = f"orch{os.getpid() % 10000}"
SUBNET = "10.213.77"
NUM_TRIALS = 200
LIMIT_S = 900.0


def main() -> None:
    """Run the scenario and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    with (
        tempfile.TemporaryDirectory(prefix="two-nodes-") as folder,
        network(),
        contextlib.ExitStack() as stack,
    ):
        figures = Scenario(Path(folder), stack).run()
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    sys.exit(0 if all(figures["claims"].values()) else 1)


class Scenario:
    """One run: the nodes, the sweep, the kill and the return."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.started_s = folder, time.monotonic()
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "5",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
        }
        self.stack = stack
        self.sweep_id = ""

    def run(self) -> dict[str, Any]:
        """The whole story; returns figures and claims."""
        self._node(
            "a",
            "--head",
            f"--node-ip-address={SUBNET}.1",
            "--port=6379",
            f"--dashboard-host={SUBNET}.1",
            "--dashboard-port=8265",
            "--num-cpus=1",
            '--resources={"orchestrator_driver": 1}',
        )
        wait_for("the head", lambda: self._jobs("ls") is not None, LIMIT_S)
        self._node("b", f"--address={SUBNET}.1:6379", f"--node-ip-address={SUBNET}.2", "--num-cpus=1")
        wait_for("both nodes", lambda: self._num_nodes() == 2, LIMIT_S)
        self._submit()
        both = wait_for("a trial on each node", lambda: self._checkpointed_on_two_slots(), LIMIT_S)
        killed_s = time.monotonic()
        lost = self._kill("b")
        moved = wait_for("the lost trial to go on", lambda: self._moved(both), LIMIT_S)
        moved_s = time.monotonic() - killed_s
        self._node("b", f"--address={SUBNET}.1:6379", f"--node-ip-address={SUBNET}.2", "--num-cpus=1")
        back = len(self._events())
        returned_s = time.monotonic()
        returned = wait_for("the node to be used again", lambda: self._used_again(back), LIMIT_S)
        returned_s = time.monotonic() - returned_s
        wait_for("the lost trial to finish", lambda: moved["trial_id"] in self._ended(), LIMIT_S)
        self._cli("jobs", "stop", self.sweep_id)
        end = wait_for(
            "the end", lambda: next((e for e in self._events() if e["kind"] == "sweep_ended"), None), LIMIT_S
        )
        return {
            "claims": {
                "a trial ran on each of two nodes": bool(both),
                "the lost trial went on from its checkpoint": moved["images"] > 0,
                "the node was used again after its return": bool(returned),
                "every trial that ended finished, once": all(
                    states == ["finished"] for states in self._ended().values()
                ),
                "the sweep ends when it is stopped": end["state"] == "interrupted",
            },
            "processes_killed": lost,
            "images_at_the_kill": moved["images"],
            "s_from_kill_to_next_report_of_its_trial": round(moved_s, 1),
            "s_from_return_to_use": round(returned_s, 1),
            "trials_finished": len(self._ended()),
            "attempts": sum(1 for e in self._events() if e["kind"] == "attempt_started"),
            "total_s": round(time.monotonic() - self.started_s, 1),
        }

    def _node(self, name: str, *options: str) -> None:
        command = [
            "ip",
            "netns",
            "exec",
            f"{NAME}{name}",
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--block",
            "--disable-usage-stats",
            "--object-store-memory=100000000",
            *options,
        ]
        if "--head" in options:
            command.append(f"--temp-dir={self.folder}/r")
        log = (self.folder / f"node-{name}.log").open("ab")
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=self.environment, start_new_session=True
        )
        self.stack.callback(self._kill, name)
        self.stack.callback(log.close)
        assert process.pid

    def _submit(self) -> None:
        image_folder(self.folder / "data", images=60)
        values = {
            **TINY,
            "data.source": str(self.folder / "data"),
            "data.cache_dir": str(self.folder / "cache"),
            "storage.uri": str(self.folder / "runs"),
            "train.images": 16_000,
            "train.report_every_images": 320,
            "train.checkpoint_every_images": 320,
            "train.max_failures": 10,
        }
        text = nested(values)
        text["sweep"] = {
            "space": {
                "optimizer.learning_rate": {
                    "choices": [round(0.001 * (1 + n / 100), 5) for n in range(NUM_TRIALS)]
                }
            }
        }
        file = self.folder / "sweep.json"  # JSON is YAML
        file.write_text(json.dumps(text))
        done = self._cli("submit", str(file), "--shared-filesystem", "--python", sys.executable, "--json")
        self.sweep_id = json.loads(done.stdout)["sweep_id"]

    def _cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestrator", *words, "--address", f"http://{SUBNET}.1:8265"]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=LIMIT_S, check=True
        )

    def _jobs(self, *words: str) -> str | None:
        with contextlib.suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return self._cli("jobs", *words).stdout
        return None

    def _num_nodes(self) -> int:
        request = urllib.request.Request(
            f"http://{SUBNET}.1:8265/api/v0/nodes",
            headers={"Authorization": f"Bearer {(self.folder / 'token').read_text()}"},
        )
        with contextlib.suppress(OSError):
            found = json.load(urllib.request.urlopen(request, timeout=60))["data"]["result"]["result"]
            return sum(node["state"] == "ALIVE" for node in found)
        return 0

    def _kill(self, name: str) -> int:
        """SIGKILL to every process in a namespace, as when a machine loses its power."""
        pids = subprocess.run(
            ["ip", "netns", "pids", f"{NAME}{name}"], capture_output=True, text=True
        ).stdout.split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return len(pids)

    def _events(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "runs" / self.sweep_id / "journal").glob("*.json"))
        return [json.loads(file.read_text()) for file in files]

    def _ended(self) -> dict[str, list[str]]:
        """The trials that ended, and how, each time."""
        found: dict[str, list[str]] = {}
        for event in self._events():
            if event["kind"] == "trial_ended":
                found.setdefault(event["trial_id"], []).append(event["state"])
        return found

    def _checkpointed_on_two_slots(self) -> dict[str, Any] | None:
        held = {e["slot_id"]: e for e in self._events() if e["kind"] == "attempt_started"}
        running = {slot: e for slot, e in held.items() if self._images(e["trial_id"]) >= 640}
        return running if len(running) == 2 else None

    def _images(self, trial_id: str) -> int:
        reports = [e["images"] for e in self._events() if e["kind"] == "report" and e["trial_id"] == trial_id]
        return max(reports, default=0)

    def _moved(self, both: dict[str, Any]) -> dict[str, Any] | None:
        """The first report of a later attempt at a trial that was running when the node died."""
        attempts = {e["attempt_id"]: e["trial_id"] for e in both.values()}
        for event in self._events():
            is_later = event["kind"] == "report" and event["attempt_id"] not in attempts
            if is_later and event["trial_id"] in attempts.values():
                return event
        return None

    def _used_again(self, back: int) -> bool:
        slots = {
            e["attempt_id"]: e["slot_id"] for e in self._events()[back:] if e["kind"] == "attempt_started"
        }
        reported = {e["attempt_id"] for e in self._events()[back:] if e["kind"] == "report"}
        return len({slot for attempt_id, slot in slots.items() if attempt_id in reported}) == 2


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as a nested mapping."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (found.setdefault(section, {}) if section else found)[name] = value
    return found


def wait_for(what: str, condition: Callable[[], Any], limit_s: float) -> Any:
    """Poll until the condition gives something."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if value := condition():
            print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
            return value
        time.sleep(0.5)
    raise SystemExit(f"waited {limit_s:.0f} s for {what}")


@contextlib.contextmanager
def network() -> Iterator[None]:
    """A bridge with two namespaces on it, removed at the end."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        raise SystemExit("needs root and iproute2")
    try:
        ip("link", "add", NAME, "type", "bridge")
        ip("addr", "add", f"{SUBNET}.254/24", "dev", NAME)
        ip("link", "set", NAME, "up")
        for number, letter in enumerate("ab", start=1):
            space, outer, inner = f"{NAME}{letter}", f"{NAME}{letter}o", f"{NAME}{letter}i"
            ip("netns", "add", space)
            ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            ip("link", "set", outer, "master", NAME, "up")
            ip("link", "set", inner, "netns", space)
            ip("-n", space, "addr", "add", f"{SUBNET}.{number}/24", "dev", inner)
            ip("-n", space, "link", "set", inner, "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield
    finally:
        for words in (("netns", "del", f"{NAME}a"), ("netns", "del", f"{NAME}b"), ("link", "del", NAME)):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(*words)


def ip(*words: str) -> None:
    """One iproute2 command."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


if __name__ == "__main__":
    main()
