"""What MLflow has not taken: it is said at the end of a sweep, and `orchestrator deliver` sends it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from answering_server import answering
from command_line import run_command
from sweep_records import record_of, sweep_config, sweep_events, write_journal

from orchestrator.cli.commands import conclude
from orchestrator.config import apply_overrides
from orchestrator.config.models import TrackingConfig
from orchestrator.protocol.reports import Row
from orchestrator.sweep.watch.follower import Follower
from orchestrator.tracking import (
    MemoryTracker,
    RunStatus,
    find_location,
    find_tracker,
    open_tracker,
    read_delivery,
    spool_folder,
)

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def sweep(tmp_path: Path, template_database: Path) -> SimpleNamespace:
    """A sweep of which three calls wait, as its server could never be reached."""
    sweep_id = write_journal(tmp_path, sweep_events())
    leave_calls(tmp_path, sweep_id, TrackingConfig(uri=NOWHERE))
    shutil.copy(template_database, tmp_path / "mlflow.db")
    return SimpleNamespace(runs=tmp_path, sweep_id=sweep_id)


def leave_calls(runs: Path, sweep_id: str, tracking: TrackingConfig) -> None:
    tracker = open_tracker(tracking, str(runs), "masks", spool_folder(str(runs), sweep_id))
    tracker.start_sweep(sweep_id, sweep_id, {}, {})
    tracker.log_rows(None, [Row(images=1, timestamp_ms=1, metrics={"loss": 1.0})])
    tracker.finish_sweep(RunStatus.FINISHED)
    tracker.flush(5.0 if tracking.uri is None else 0.5)
    tracker.close(0.1)


def test_what_waits_is_sent_once_and_then_nothing_waits(sweep, monkeypatch, capsys):
    command = ("deliver", sweep.sweep_id, "--runs", str(sweep.runs))
    done = run_command(monkeypatch, capsys, *command, "--json")
    assert done.code == 0
    assert json.loads(done.out) == {"sweep_id": sweep.sweep_id, "sent": 3, "pending": 0, "refused": 0}
    assert find_tracker(TrackingConfig(), str(sweep.runs), "masks", sweep.sweep_id) is not None
    assert "nothing of" in run_command(monkeypatch, capsys, *command).out


def test_a_store_that_is_still_away_is_told_and_the_calls_stay(sweep, monkeypatch, capsys):
    command = ("deliver", sweep.sweep_id, "--runs", str(sweep.runs), "--set", f"tracking.uri={NOWHERE}")
    done = run_command(monkeypatch, capsys, *command)
    assert done.code == 5
    assert "cannot be reached: Connection refused; 3 calls still wait in" in done.err
    assert read_delivery(spool_folder(str(sweep.runs), sweep.sweep_id)).pending == 3


def test_a_store_that_refuses_the_account_is_told_as_that(sweep, monkeypatch, capsys):
    with answering(401, "who?") as uri:
        command = ("deliver", sweep.sweep_id, "--runs", str(sweep.runs), "--set", f"tracking.uri={uri}")
        done = run_command(monkeypatch, capsys, *command)
    assert done.code == 5
    assert "refuses reading to this account (HTTP 401); give one that may" in done.err


def test_the_rest_of_a_sweep_is_not_sent_to_a_store_that_lacks_its_beginning(sweep, monkeypatch, capsys):
    folder = spool_folder(str(sweep.runs), sweep.sweep_id)
    first_line = (folder / "calls.jsonl").read_bytes().splitlines(keepends=True)[0]
    (folder / "acked").write_text(str(len(first_line)))
    done = run_command(monkeypatch, capsys, "deliver", sweep.sweep_id, "--runs", str(sweep.runs))
    assert done.code == 5
    assert "whose first calls went to another store" in done.err
    assert read_delivery(folder).pending == 2


def conclusion(sweep: SimpleNamespace, capsys: Any, tracking: str | None) -> Any:
    values = {"storage.uri": str(sweep.runs), "tracking.uri": tracking}
    config = apply_overrides(sweep_config(), values)
    conclude(config, record_of(sweep_events()), as_json=False)
    return capsys.readouterr()


def test_a_sweep_of_which_nothing_arrived_says_how_many_calls_wait_where_why_and_what_sends_them(
    sweep, capsys
):
    shown = conclusion(sweep, capsys, NOWHERE)
    assert (
        f"nothing of this sweep has reached MLflow ({NOWHERE} cannot be reached: Connection refused)"
        in shown.err
    )
    assert f"3 calls wait in {sweep.runs}/.spool/{sweep.sweep_id}" in shown.err
    assert f"orchestrator deliver {sweep.sweep_id} --runs {sweep.runs}" in shown.err
    assert "MLflow:" not in shown.out


def test_a_sweep_that_arrived_names_the_page_and_no_calls(sweep, monkeypatch, capsys):
    run_command(monkeypatch, capsys, "deliver", sweep.sweep_id, "--runs", str(sweep.runs))
    shown = conclusion(sweep, capsys, None)
    assert f"MLflow: orchestrator ui --runs {sweep.runs}" in shown.out
    assert "wait" not in shown.err


class Watching:
    """Keeps what it is told of calls that wait."""

    def __init__(self) -> None:
        self.waiting: list[str] = []

    def on_event(self, entry: Any, record: Any) -> None: ...

    def on_message(self, text: str) -> None: ...

    def on_waiting(self, text: str) -> None:
        self.waiting.append(text)


def test_a_watcher_hears_while_calls_wait_and_when_they_are_taken(tmp_path):
    class Store(MemoryTracker):
        def select_sweep(self, sweep_id: str) -> None:
            self._check()
            self.sweep_id = sweep_id

        def reachable(self) -> bool:
            return self.available

    from orchestrator.tracking import Links, SpooledTracker

    store, seen = Store(), Watching()
    store.available = False
    links = Links(tracking_uri="memory:", experiment="e")
    tracker = SpooledTracker(lambda: store, tmp_path, links=links)
    tracker.start_sweep("s", "s", {}, {})
    tracker.flush(0.3)
    follower = Follower(sweep_config(), tracker, seen)
    follower.follow([])
    follower.follow([])
    store.available = True
    assert tracker.flush(10)
    follower.follow([])
    tracker.close()
    assert [text.partition(":")[0] for text in seen.waiting] == ["1 call waits for MLflow", ""]


def test_the_place_of_the_default_store_is_the_spools(tmp_path):
    place = find_location(TrackingConfig(), str(tmp_path))
    assert place.database is not None
    assert spool_folder(str(tmp_path), "s") == place.database.parent / ".spool" / "s"
