"""Bounded chaos: random SIGKILLs over one sweep, then a check of everything it left behind.

    python tests/chaos/kills.py [--kills 30] [--seed 0] [--json FILE]
    python tests/chaos/kills.py --folder DIR --seconds 240     (in instalments: call it again with the same DIR)

A sweep runs on a local Ray, with its checkpoints in a real S3 server and its metrics in a real MLflow server. At random
moments one of these is killed: a training worker, any other Ray actor, the driver, the raylet, the GCS, the MLflow
server, the S3 server. The servers are started again; so is the driver, as a keeper or an operator would. Each kill
waits until trials have reported one to three times since the last one, so that it hits training and not a start, and
then for a random part of a report. When the kills are spent the sweep is left to end, and is then compared with the
same trials run undisturbed in one process. Trials that do not report for ten minutes end it with an error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psutil  # noqa: E402
import s3_server  # noqa: E402
from image_data import image_folder  # noqa: E402
from tiny_sweeps import TINY  # noqa: E402

SWEEP = "chaos"
KINDS = ("worker", "worker", "actor", "driver", "raylet", "gcs", "mlflow", "s3")
GAP_REPORTS = (1, 3)
JITTER_S = 0.5
START_LIMIT_S = 90.0
SILENCE_LIMIT_S = 600.0


def main() -> None:
    """Run, or go on with, the chaos; check the sweep when it has ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        chaos = Chaos(folder, arguments)
        stack.callback(chaos.stop_all)
        if not chaos.run():
            print(f"not over: {len(chaos.state['kills'])} kills so far; call again", file=sys.stderr)
            return
        figures = chaos.check()
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    sys.exit(0 if all(figures["claims"].values()) else 1)


class Chaos:
    """The servers, the driver, and what was done to them; `state` survives between calls."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments
        self.file = folder / "state.json"
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        ports = s3_server.free_ports(6)
        self.state: dict[str, Any] = {"kills": [], "exits": [], "seconds": 0.0, "ports": ports, **known}
        self.random = random.Random(f"{arguments.seed}-{len(self.state['kills'])}")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kinds: dict[str, str] = {}
        self.due_reports, self.heard_s = 1, time.monotonic()
        (folder / "s3").mkdir(exist_ok=True)
        self.s3 = s3_server.S3Server(
            endpoint_url=f"http://127.0.0.1:{self.state['ports'][0]}", log=folder / "s3.log"
        )
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))},
            **self.s3.environment,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "CHAOS_FOLDER": str(folder),
            "RAY_TMPDIR": "/tmp",
        }
        self.config_file = folder / "sweep.json"  # JSON is YAML
        if not self.config_file.exists():
            self._prepare()

    def run(self) -> bool:
        """Kill until the kills or the seconds are spent, then wait for the end; whether the sweep has ended."""
        started_s = time.monotonic()
        until_s = started_s + self.arguments.seconds
        self._start("s3")
        self._start("mlflow")
        self._start("driver")
        ended = False
        while time.monotonic() < until_s and not ended:
            time.sleep(0.1)
            ended = self._tend()
            if not ended and len(self.state["kills"]) < self.arguments.kills and self._is_due():
                time.sleep(self.random.uniform(0, JITTER_S))
                self._kill(self.random.choice(KINDS))
                self.due_reports = self._count_reports() + self.random.randint(*GAP_REPORTS)
        self.state["seconds"] += time.monotonic() - started_s
        self._remember()
        return ended

    def check(self) -> dict[str, Any]:
        """Everything the sweep left, against the same trials undisturbed."""
        import checks

        figures = checks.compare(self.config_file, SWEEP, self.folder, self.s3.environment)
        self.stop_all()
        deadline = time.monotonic() + 60
        while (orphans := self._ours()) and time.monotonic() < deadline:
            time.sleep(1)
        figures["claims"]["no process is left"] = not orphans
        figures["claims"]["every kill was carried out"] = len(self.state["kills"]) >= self.arguments.kills
        figures["kills"] = dict(Counter(kill["kind"] for kill in self.state["kills"]))
        figures["kills_total"] = len(self.state["kills"])
        figures["driver_exit_codes"] = dict(Counter(str(code) for code in self.state["exits"]))
        figures["seconds"] = round(self.state["seconds"], 1)
        figures["seed"] = self.arguments.seed
        return figures

    def stop_all(self) -> None:
        """SIGKILL to every process group that was started here."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for process in self._ours():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _prepare(self) -> None:
        image_folder(self.folder / "data", images=60)
        values: dict[str, Any] = {
            **TINY,
            "data.source": str(self.folder / "data"),
            "data.cache_dir": str(self.folder / "cache"),
            "storage.uri": "s3://chaos/runs",
            "storage.endpoint_url": self.s3.endpoint_url,
            "tracking.uri": f"http://127.0.0.1:{self.state['ports'][5]}",
            "train.images": self.arguments.images,
            "train.report_every_images": 640,
            "train.checkpoint_every_images": 640,
            "train.max_failures": 100,
        }
        from two_nodes import nested

        text = nested(values)
        rates = [round(0.001 * (1 + number / 10), 4) for number in range(self.arguments.trials)]
        text["sweep"] = {"space": {"optimizer.learning_rate": {"choices": rates}}}
        self.config_file.write_text(json.dumps(text))
        self._remember()

    def _remember(self) -> None:
        self.file.write_text(json.dumps(self.state))

    def _start(self, name: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            self._command(name),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            cwd=self.folder,
            start_new_session=True,
        )
        log.close()
        if name == "s3":
            self._wait_for_s3()

    def _command(self, name: str) -> list[str]:
        ports = self.state["ports"]
        if name == "s3":
            config = self.folder / "s3.json"
            credentials = [{"accessKey": self.s3.access_key, "secretKey": self.s3.secret_key}]
            actions = ["Admin", "Read", "Write", "List", "Tagging"]
            config.write_text(
                json.dumps({"identities": [{"name": "lab", "credentials": credentials, "actions": actions}]})
            )
            return [
                *(s3_server.weed_binary(), "mini", f"-dir={self.folder}/s3", "-ip=127.0.0.1"),
                *("-ip.bind=127.0.0.1", "-master.telemetry=false", "-webdav=false", "-admin.ui=false"),
                *(f"-s3.port={ports[0]}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={config}"),
                *(f"-master.port={ports[1]}", f"-volume.port={ports[2]}", f"-filer.port={ports[3]}"),
                *(f"-admin.port={ports[4]}", "-volume.preStopSeconds=0"),
            ]
        if name == "mlflow":
            self.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
            self.environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
            return [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"),
                *("--port", str(ports[5]), "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"),
                *("--artifacts-destination", str(self.folder / "artifacts")),
            ]
        return [
            *(sys.executable, "-m", "orchestrator", "jobs", "drive", str(self.config_file)),
            *("--sweep-id", SWEEP, "--ray-address", "local"),
        ]

    def _wait_for_s3(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                client = self.s3.client()
                if "chaos" not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket="chaos")
                client.put_object(Bucket="chaos", Key="ready", Body=b"1")
                return
            time.sleep(0.2)
        raise SystemExit("the S3 server does not start")

    def _tend(self) -> bool:
        """Start again what was killed; returns whether the driver has brought the sweep to its end."""
        for name in ("s3", "mlflow"):
            if self.processes[name].poll() is not None:
                self._start(name)
        code = self.processes["driver"].poll()
        if code is None:
            return False
        self.state["exits"].append(code)
        self._remember()
        if code == 0:
            return True
        time.sleep(1.0)
        self._start("driver")
        return False

    def _is_due(self) -> bool:
        """Whether the trials have reported often enough since the last kill."""
        before = len(self.kinds)
        is_due = self._count_reports() >= self.due_reports
        if len(self.kinds) > before:
            self.heard_s = time.monotonic()
        elif time.monotonic() - self.heard_s > SILENCE_LIMIT_S:
            log = (self.folder / "driver.log").read_text(errors="replace")[-3000:]
            raise SystemExit(
                f"nothing was journaled for {SILENCE_LIMIT_S:.0f} s; the driver's log ends:\n{log}"
            )
        return is_due

    def _count_reports(self) -> int:
        """Reports in the journal, as far as the S3 server answers now."""
        with contextlib.suppress(Exception):
            client = self.s3.client()
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket="chaos", Prefix=f"runs/{SWEEP}/journal/"
            )
            for item in (item for page in pages for item in page.get("Contents", [])):
                if item["Key"] not in self.kinds:
                    body = client.get_object(Bucket="chaos", Key=item["Key"])["Body"].read()
                    self.kinds[item["Key"]] = json.loads(body)["kind"]
        return sum(kind == "report" for kind in self.kinds.values())

    def _kill(self, kind: str) -> None:
        if kind in ("driver", "mlflow", "s3"):
            victim = self.processes[kind].pid
            if kind == "driver":
                os.kill(victim, signal.SIGKILL)
            else:
                os.killpg(victim, signal.SIGKILL)
                self.processes[kind].wait()
        else:
            candidates = [process for process in self._children() if is_kind(process, kind)]
            if not candidates:
                return
            victim = self.random.choice(candidates).pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        reports = sum(known == "report" for known in self.kinds.values())
        self.state["kills"].append({"kind": kind, "at": time.time(), "reports": reports})
        self._remember()
        text = f"{time.strftime('%H:%M:%S')} {len(self.state['kills']):3d} {kind} after {reports} reports"
        print(text, file=sys.stderr, flush=True)

    def _children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.processes["driver"].pid).children(recursive=True)
        return []

    def _ours(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("CHAOS_FOLDER") == str(self.folder):
                    found.append(process)
        return found


def is_kind(process: psutil.Process, kind: str) -> bool:
    """Whether a process of Ray's is of a kind that can be killed."""
    with contextlib.suppress(psutil.Error):
        words = " ".join(process.cmdline())
        names = {"raylet": "raylet/raylet", "gcs": "gcs_server", "worker": "ray::RayTrainWorker"}
        if kind in names:
            return names[kind] in words
        is_actor = words.startswith("ray::") and "IDLE" not in words and "Agent" not in words
        return kind == "actor" and is_actor and "RayTrainWorker" not in words
    return False


if __name__ == "__main__":
    main()
