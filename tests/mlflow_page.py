"""A sweep in a real MLflow store, and MLflow's own page on it, served on loopback as `orchestrator ui` does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep_records import entries, sweep_config, sweep_events, write_journal

from orchestrator.config.models import TrackingConfig
from orchestrator.report import log_report
from orchestrator.sweep.watch.follower import Follower
from orchestrator.tracking import Links, RunStatus, find_location, ui_environment
from orchestrator.tracking.location import ui_command
from orchestrator.tracking.mlflow import MlflowTracker


class _Silent:
    """Watches nothing."""

    def on_event(self, entry: Any, record: Any) -> None: ...

    def on_message(self, text: str) -> None: ...


def track_sweep(folder: Path, template_database: Path, *, seeds: tuple[int, ...] = (0,)) -> Links:
    """Tell MLflow of the synthetic sweep, as its driver would have, with its report."""
    shutil.copy(template_database, folder / "mlflow.db")
    events = _of_seeds(sweep_events(), seeds)
    sweep_id = write_journal(folder, events)
    tracker = MlflowTracker(
        find_location(TrackingConfig(), str(folder)), "masks", headline="probe/linear/mean"
    )
    tracker.start_sweep(sweep_id, sweep_id, {"sweep.search": "grid"}, {"orchestrator.sweep": sweep_id})
    follower = Follower(sweep_config(), tracker, _Silent())
    follower.follow(entries(events))
    log_report(follower.record, tracker, str(folder / sweep_id))
    tracker.finish_sweep(RunStatus.FINISHED)
    return tracker.links()


def _of_seeds(events: list[dict[str, Any]], seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    kept = {event["trial_id"] for event in events if event.get("seed") in seeds}
    return [event for event in events if event.get("trial_id", next(iter(kept))) in kept]


@contextmanager
def mlflow_page(folder: Path) -> Iterator[str]:
    """The address of MLflow's page on a folder's store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ui_command(f"sqlite:///{folder / 'mlflow.db'}", port=port)
    log = (folder / "page.log").open("ab")
    process = subprocess.Popen(command, env=ui_environment(), stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "page.log").read_text()
                assert time.monotonic() < deadline, "MLflow's page did not start"
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
