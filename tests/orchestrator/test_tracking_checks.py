"""What will never reach MLflow is an error before anything is spent; what may come back is told and waits."""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from answering_server import answering
from command_line import run_command

from orchestrator.config.models import TrackingConfig
from orchestrator.errors import TrackingError
from orchestrator.tracking import UnavailableError, check_location, find_location, open_tracker, read_delivery
from orchestrator.tracking.base import UnusableError
from orchestrator.tracking.mlflow import MlflowTracker


def check(uri: str | None, runs: Path) -> str:
    return check_location(find_location(TrackingConfig(uri=uri), str(runs)))


LASTING_ANSWERS = [
    (
        (401, "who are you?"),
        "refuses reading to this account .HTTP 401.; give one that may: set MLFLOW_TRACKING_USERNAME",
    ),
    ((403, '{"detail": "no"}'), r"refuses reading to this account \(HTTP 403\)"),
    ((404, "<html>nothing here</html>"), r"answers HTTP 404 to reading .*no MLflow server"),
    ((400, "sent an HTTP request to an HTTPS server"), "answers HTTP 400"),
    ((200, "<html>please log in</html>"), "answers with a page or text and no data"),
]


@pytest.mark.parametrize(("answer", "said"), LASTING_ANSWERS)
def test_a_server_that_will_never_take_a_run_is_an_error(answer, said, tmp_path):
    with answering(*answer) as uri, pytest.raises(UnusableError, match=said):
        check(uri, tmp_path)


def test_the_time_that_mlflow_takes_to_load_is_not_a_store_that_does_not_answer(tmp_path, monkeypatch):
    def load_slowly() -> None:
        time.sleep(1.0)

    monkeypatch.setattr("orchestrator.tracking.checks._LIMIT_S", 0.5)
    monkeypatch.setattr("orchestrator.tracking.checks.load_mlflow", load_slowly)
    assert "Connection refused" in check("http://127.0.0.1:9", tmp_path)


def test_a_server_that_lets_read_but_not_write_is_an_error(tmp_path):
    with answering(200, "{}", writes=403) as uri, pytest.raises(UnusableError, match="refuses writing"):
        check(uri, tmp_path)


def test_a_server_that_is_too_old_is_an_error(tmp_path):
    from orchestrator.tracking import checks

    class Answer:
        status_code, text = 200, "1.30.0"

    with pytest.raises(UnusableError, match=r"is MLflow 1\.30\.0, which is too old; update it to 2\.4"):
        checks._judge_version("http://host", Answer())


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_in_trouble_may_come_back(status, tmp_path):
    with answering(status, "busy") as uri:
        assert f"cannot serve now (HTTP {status}: busy)" in check(uri, tmp_path)


def test_a_server_that_is_down_may_come_back(tmp_path):
    assert check("http://127.0.0.1:9", tmp_path) == "http://127.0.0.1:9 cannot be reached: Connection refused"


def test_a_server_that_accepts_and_says_nothing_may_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.tracking.client._ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "no answer in time" in check(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)


def test_a_host_that_no_one_knows_is_an_error(tmp_path):
    with pytest.raises(UnusableError, match="the host's name is not known; check the address"):
        check("http://no-such-host.invalid:5000", tmp_path)


def test_https_at_a_server_without_it_is_an_error(tmp_path):
    with (
        answering(200, "{}") as uri,
        pytest.raises(UnusableError, match="does not speak https; write http://"),
    ):
        check(uri.replace("http:", "https:"), tmp_path)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql://127.0.0.1:9/mlflow", r"`psycopg` is not installed; pip install 'psycopg\[binary\]'"),
        ("postgresql+psycopg2://127.0.0.1:9/mlflow", "pip install psycopg2-binary"),
        ("mysql+pymysql://127.0.0.1:9/mlflow", "`pymysql` is not installed; pip install pymysql"),
        ("postgresql+nonsense://127.0.0.1:9/mlflow", "no address of a tracking store"),
    ],
)
def test_a_database_without_its_driver_is_an_error(uri, said, tmp_path):
    with pytest.raises(UnusableError, match=said):
        check(uri, tmp_path)


def test_a_new_database_is_checked_without_being_made(tmp_path):
    assert check(None, tmp_path / "a" / "runs") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_meant_is_an_error(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UnusableError, match=r"Not a directory.*set tracking.uri to another place"):
        check(None, tmp_path / "runs")


@pytest.mark.parametrize("folder", ["/proc/store", "/sys/store", "/dev/null/store"])
def test_a_folder_that_cannot_be_written_is_an_error(folder):
    with pytest.raises(UnusableError, match=r"; (give write access, or )?set tracking\.uri to another place"):
        check(folder, Path("runs"))


def test_a_file_that_is_no_database_is_an_error_at_once(tmp_path):
    (tmp_path / "mlflow.db").write_text("these are my notes and no database at all" * 50)
    with pytest.raises(UnusableError, match="damaged, or no SQLite database; move it away"):
        check(None, tmp_path)


def test_a_database_of_another_version_is_an_error(template_database, tmp_path):
    shutil.copy(template_database, tmp_path / "mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.close()
    with pytest.raises(
        UnusableError, match="another version of MLflow; back it up and run `mlflow db upgrade`"
    ):
        check(None, tmp_path)


def test_a_locked_database_may_come_back(template_database, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.tracking.database._LOCK_S", 0.1)
    shutil.copy(template_database, tmp_path / "mlflow.db")
    other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert "another program holds the database; wait for it, or end it" in check(None, tmp_path)
    other.close()


def test_a_full_disk_is_one_line_and_no_traceback(template_database, full_disk, capfd):
    shutil.copy(template_database, full_disk.folder / "mlflow.db")
    tracker = MlflowTracker(find_location(TrackingConfig(), str(full_disk.folder)), "full")
    tracker.start_sweep("s", "s", {}, {})
    full_disk.fill()
    many = {f"tag{index}": "x" * 4000 for index in range(1000)}
    with pytest.raises(UnavailableError, match="cannot be written now: the disk is full; free some of it"):
        tracker.set_tags(None, many)
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err


def test_a_broken_database_in_mid_sweep_keeps_the_calls(template_database, tmp_path):
    shutil.copy(template_database, tmp_path / "mlflow.db")
    place = find_location(TrackingConfig(), str(tmp_path))
    tracker = MlflowTracker(place, "broken")
    tracker.start_sweep("s", "s", {}, {})
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 40_000)
    with pytest.raises(UnusableError, match="damaged"):
        tracker.set_tags(None, {"a": "b"})


@pytest.mark.parametrize("command", ["doctor", "sweep", "train"])
def test_every_command_that_trains_refuses_a_hopeless_store_and_makes_nothing(
    command, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.yaml").write_text("name: tiny\n")
    done = run_command(
        monkeypatch, capsys, command, "f.yaml", "--set", "tracking.uri=postgresql://127.0.0.1:9/mlflow"
    )
    assert done.code == TrackingError.exit_code
    assert "`psycopg` is not installed; pip install 'psycopg[binary]'" in done.out + done.err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["f.yaml"]


@pytest.mark.parametrize("answer", [answer for answer, _ in LASTING_ANSWERS if answer[0] != 400])
def test_a_refusal_that_begins_in_mid_sweep_is_told_as_such_and_keeps_the_calls(answer, tmp_path, caplog):
    with answering(*answer) as uri:
        tracker = open_tracker(TrackingConfig(uri=uri), str(tmp_path), "masks", tmp_path / "spool")
        tracker.start_sweep("s", "s", {}, {})
        deadline = time.monotonic() + 60
        while not tracker.links().problem and time.monotonic() < deadline:
            time.sleep(0.05)
        tracker.close(0.1)
    left = read_delivery(tmp_path / "spool")
    assert (left.pending, left.refused, left.has_delivered) == (1, 0, False)
    assert re.search("refuses|no MLflow server", left.problem), left.problem
    assert left.problem in caplog.text
