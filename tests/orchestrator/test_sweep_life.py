"""A sweep's life as its user leads it: started, watched, paused, gone on with, cancelled, and ended while it starts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny_sweeps import tiny_config

from orchestrator.cli import app_with_commands
from orchestrator.config import apply_overrides, dump
from orchestrator.config.models import RunConfig
from orchestrator.storage import open_store
from orchestrator.sweep.journal.lease import driver_text

COMMAND = [sys.executable, "-m", "orchestrator"]


class Shell:
    """Commands that are started in a folder; whatever is left of them is killed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, folder / "runs"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, name: str) -> subprocess.Popen[str]:
        with (self.folder / f"{name}.err").open("w") as errors:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self.folder,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def errors(self, name: str) -> str:
        return (self.folder / f"{name}.err").read_text()

    def call(self, *arguments: str) -> Any:
        """A command that ends at once, in this process; what it prints."""
        place = ("--runs", str(self.runs), "--json")
        result = CliRunner().invoke(app_with_commands(), [*arguments, *place], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def shell(tmp_path: Path, migrated_runs: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.end()


def _start_sweep(shell: Shell, config: RunConfig, *more: str) -> subprocess.Popen[str]:
    file = shell.folder / "sweep.yaml"
    file.write_text(dump(config))
    return shell.start("sweep", str(file), "--num-cpus", "1", "--json", *more, name="sweep")


def _wait_for(shell: Shell, name: str, text: str, process: subprocess.Popen[str]) -> None:
    while text not in shell.errors(name):
        assert process.poll() is None, shell.errors(name)
        time.sleep(0.05)


@pytest.mark.ray
def test_a_sweep_that_is_ended_while_ray_starts_leaves_nothing_behind(shell: Shell) -> None:
    sweep = _start_sweep(shell, tiny_config(shell.folder, train__images=640_000))
    _wait_for(shell, "sweep", "starting Ray", sweep)
    time.sleep(
        1.0
    )  # somewhere in Ray's start, which no file tells of; wherever it falls, the end is the same
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait() == 130
    assert "interrupted" in shell.errors("sweep")
    assert "Traceback" not in shell.errors("sweep")
    (folder,) = (path for path in shell.runs.iterdir() if (path / "config.yaml").exists())
    assert driver_text(open_store(str(folder))) == ""
    _wait_until_no_process_is_left(sweep.pid)


def _wait_until_no_process_is_left(session: int) -> None:
    """Ray's processes end with their driver, a moment later; the test's timeout bounds the wait."""
    while any(_session_of(stat) == session for stat in Path("/proc").glob("[0-9]*/stat")):
        time.sleep(0.1)


def _session_of(stat: Path) -> int | None:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[3])


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """What is started hears SIGINT, though pytest itself was started in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.ray
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_once_ends_with_checkpoints_and_twice_at_once(shell: Shell, times: int) -> None:
    # The first Ctrl-C waits for the next report, which never comes where a second one must end the sweep; its
    # checkpoint does not wait.
    every = 160 if times == 1 else 6_400_000
    config = tiny_config(shell.folder, train__images=6_400_000, train__report_every_images=every)
    sweep = _start_sweep(shell, apply_overrides(config, {"train.checkpoint_every_images": 6_400_000}))
    _wait_for(shell, "sweep", "0 of 6,400,000 images", sweep)
    for number in range(times):
        sweep.send_signal(signal.SIGINT)
        if number == 0:
            _wait_for(shell, "sweep", "Ctrl-C again stops at once", sweep)
        while times == 2 and not list(shell.runs.rglob("step-*/manifest.json")):
            time.sleep(0.05)
    told = sweep.communicate()[0]
    assert sweep.returncode == 130
    assert "Traceback" not in shell.errors("sweep")
    (found,) = shell.call("ls")
    assert found["driver"] == ""
    assert found["trials"][0]["state"] == "pending"
    assert f"orchestrator resume {found['sweep_id']}" in shell.errors("sweep")
    assert list(shell.runs.rglob("step-*/manifest.json"))
    if times == 1:
        assert found["state"] == "interrupted"
        assert json.loads(told)["state"] == "interrupted"
    else:
        assert found["state"] == "crashed"
    _wait_until_no_process_is_left(sweep.pid)


@pytest.mark.slow
@pytest.mark.ray
def test_a_running_sweep_is_followed_watched_paused_gone_on_with_and_cancelled(shell: Shell) -> None:
    config = tiny_config(
        shell.folder,
        train__images=640_000,
        sweep__space={"masks.num_target_blocks": {"choices": [1, 2]}},
        sweep__max_concurrent_trials=1,
    )
    sweep = _start_sweep(shell, config)
    _wait_for(shell, "sweep", " starts", sweep)
    (sweep_id,) = (found["sweep_id"] for found in shell.call("ls"))
    seen = _ask_after_a_report(shell, sweep_id, "pause", sweep)
    assert sweep.returncode == 0
    assert seen["state"] == "paused"
    assert shell.call("status", sweep_id)["state"] == "paused"
    before = shell.call("status", sweep_id)["trials"][0]["images"]

    again = shell.start(
        "resume", sweep_id, "--num-cpus", "1", "--runs", str(shell.runs), "--json", name="again"
    )
    _wait_for(shell, "again", "starts again", again)
    seen = _ask_after_a_report(shell, sweep_id, "cancel", again, after_images=before)
    assert again.returncode == 0
    assert seen["state"] == "cancelled"
    assert [trial["reason"] for trial in seen["trials"]] == ["cancelled", "cancelled"]
    assert seen["trials"][0]["images"] > before
    assert seen["driver"] == ""


def _ask_after_a_report(
    shell: Shell, sweep_id: str, request: str, driver: subprocess.Popen[str], *, after_images: int = 0
) -> dict[str, Any]:
    """Follow the log up to a report, ask, and let all three end by themselves; returns the last status watched."""
    place = ("--runs", str(shell.runs), "--json")
    watch = shell.start("status", sweep_id, "--watch", *place, name=f"watch-{request}")
    follow = shell.start("logs", sweep_id, "-f", *place, name=f"follow-{request}")
    assert follow.stdout is not None
    events = map(json.loads, follow.stdout)
    next(event for event in events if event["kind"] == "report" and event["images"] > after_images)
    assert shell.call(request, sweep_id)["request"] == request
    statuses = watch.communicate()[0].splitlines()
    *_, last = events
    driver.communicate()
    assert (watch.returncode, follow.wait(), last["kind"]) == (0, 0, "sweep_ended")
    seen: dict[str, Any] = json.loads(statuses[-1])
    assert json.loads(statuses[0])["state"] == "running"
    return seen
