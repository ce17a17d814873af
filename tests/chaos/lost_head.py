"""The head of a cluster is lost under a sweep: with Redis behind its GCS and without.

    python tests/chaos/lost_head.py [--json FILE]        (the first part needs `redis-server` in the PATH)

With Redis the GCS alone is killed and started again a while later: training goes on meanwhile, in the same attempt.
Then every process of the head is killed, as when its machine is lost: the driver that lived there must end with exit
code 7 and the sweep go on under a new head. Prints what was seen and exits with 1 when a claim does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from ray_head import RayHead, run_ray_head  # noqa: E402
from s3_server import free_ports  # noqa: E402
from tiny_sweeps import tiny_config  # noqa: E402
from two_nodes import wait_for  # noqa: E402

from orchestrator.config import dump  # noqa: E402
from orchestrator.storage import open_store  # noqa: E402
from orchestrator.sweep.journal.log import read_events  # noqa: E402
from orchestrator.sweep.journal.requests import leave_request  # noqa: E402

LIMIT_S = 400.0
AWAY_S = 10.0


def main() -> None:
    """Run both parts and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    figures: dict[str, Any] = {"claims": {}}
    with tempfile.TemporaryDirectory(prefix="lost-head-") as folder, contextlib.ExitStack() as stack:
        sweep = Sweep(Path(folder))
        stack.callback(sweep.stop)
        if shutil.which("redis-server"):
            with redis(Path(folder)) as address, head_of(address) as head:
                sweep.start(head)
                lose_gcs(sweep, head, figures)
                lose_head(sweep, head, figures, name="with Redis")
        with head_of(None) as head:
            sweep.start(head)
            lose_head(sweep, head, figures, name="without Redis")
        with head_of(None) as head:
            sweep.start(head)
            go_on(sweep, figures)
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    sys.exit(0 if all(figures["claims"].values()) else 1)


class Sweep:
    """A sweep of one endless trial, and the driver that runs it now."""

    def __init__(self, folder: Path) -> None:
        config = tiny_config(
            folder,
            train__images=10_000_000,
            train__report_every_images=320,
            train__checkpoint_every_images=320,
            sweep__space={"masks.num_target_blocks": {"choices": [2]}},
        )
        self.store = open_store(f"{config.storage.uri}/endless")
        self.file, self.log = folder / "sweep.yaml", folder / "driver.log"
        self.file.write_text(dump(config))
        self.driver: subprocess.Popen[bytes] | None = None

    def start(self, head: RayHead) -> None:
        """Start a driver on a head, or go on with the sweep there."""
        command = [
            *(sys.executable, "-m", "orchestrator", "jobs", "drive", str(self.file)),
            *("--sweep-id", "endless", "--ray-address", head.gcs_address),
        ]
        before = len(self.reports())
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(command, stdout=log, stderr=log, env=head.environment)
        wait_for("reports", lambda: len(self.reports()) > before + 2 or self.has_ended(), LIMIT_S)
        if self.has_ended():
            raise SystemExit(self.log.read_text()[-4000:])

    def has_ended(self) -> bool:
        """Whether the driver has."""
        return self.driver is None or self.driver.poll() is not None

    def events(self, kind: str) -> list[Mapping[str, Any]]:
        """The journal's events of a kind."""
        events = [entry.to_json() for entry in read_events(self.store)]
        return [event for event in events if event["kind"] == kind]

    def reports(self) -> list[Mapping[str, Any]]:
        """The trial's reports so far."""
        return self.events("report")

    def stop(self) -> None:
        """Kill the driver."""
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait()


def lose_gcs(sweep: Sweep, head: RayHead, figures: dict[str, Any]) -> None:
    """Kill the GCS, leave it away for a while, and start it again as it was."""
    (pid,) = [pid for pid, command in head.processes().items() if "gcs_server" in command.split()[0]]
    argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    variables = dict(
        line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in line
    )
    attempts = len(sweep.events("attempt_started"))
    os.kill(pid, signal.SIGKILL)
    at_kill = len(sweep.reports())
    time.sleep(AWAY_S)
    away = len(sweep.reports()) - at_kill
    with (head.folder / "gcs.log").open("ab") as log:
        subprocess.Popen(argv, env=variables, stdout=log, stderr=log, start_new_session=True)
    started_s = time.monotonic()
    before = len(sweep.reports())
    wait_for("reports after the GCS is back", lambda: len(sweep.reports()) > before + 5, LIMIT_S)
    figures["GCS with Redis"] = {
        "away_s": AWAY_S,
        "reports_while_it_was_away": away,
        "s_from_its_return_to_five_more_reports": round(time.monotonic() - started_s, 1),
    }
    figures["claims"]["with Redis training goes on without the GCS, and after it"] = (
        not sweep.has_ended() and len(sweep.events("attempt_started")) == attempts and away > 0
    )


def lose_head(sweep: Sweep, head: RayHead, figures: dict[str, Any], *, name: str) -> None:
    """Kill every process of the head but the driver, which is a process of its own."""
    assert sweep.driver is not None
    started_s = time.monotonic()
    for pid in head.processes():
        if pid != sweep.driver.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    wait_for("the driver to end", sweep.has_ended, LIMIT_S)
    figures[f"head {name}"] = {
        "driver_exit_code": sweep.driver.returncode,
        "s_to_its_end": round(time.monotonic() - started_s, 1),
        "driver_said": sweep.log.read_text(errors="replace").strip().splitlines()[-1][-300:],
    }
    figures["claims"][f"the driver of a lost head ends with 7, {name}"] = sweep.driver.returncode == 7


def go_on(sweep: Sweep, figures: dict[str, Any]) -> None:
    """Under the last head: nothing was lost or done twice, and the sweep ends when asked to."""
    assert sweep.driver is not None
    leave_request(sweep.store, "cancel")
    wait_for("the driver to end", sweep.has_ended, LIMIT_S)
    seen: dict[str, list[int]] = {}
    for report in sweep.reports():
        seen.setdefault(report["attempt_id"], []).append(report["images"])
    attempts = list(seen.values())
    gaps = [after[0] - before[-1] for before, after in itertools.pairwise(attempts)]
    figures["attempts"] = len(attempts)
    figures["images_done_again"] = [-gap for gap in gaps]
    figures["claims"]["each attempt goes on from the checkpoint of the one before"] = all(
        -320 <= gap <= 0 for gap in gaps
    )
    figures["claims"]["the sweep ends when it is asked to"] = sweep.driver.returncode == 0


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis on loopback, for the length of a `with` block; its address."""
    (port,) = free_ports(1)
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def head_of(redis_address: str | None) -> Iterator[RayHead]:
    """A head with one CPU, whose GCS keeps its state in Redis if there is one."""
    variables = {"RAY_REDIS_ADDRESS": redis_address} if redis_address else {}
    with run_ray_head(num_cpus=1, environment=variables, block=False) as head:
        yield head


if __name__ == "__main__":
    main()
