"""What a user sees when something goes wrong: one line, an exit code, and never a bare traceback."""

import json
import math
import tempfile
from pathlib import Path

import click
import pytest
from command_line import run_command
from ray.exceptions import RayTaskError

from orchestrator.cli.app import app
from orchestrator.cli.commands import conclude
from orchestrator.cli.options import emit
from orchestrator.config.models import RunConfig
from orchestrator.errors import StorageError
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.train.ray.failure import error_text


def _from_another_process(error: Exception) -> Exception:
    trace = f"Traceback\n  a line\n{error!r}"
    carried = RayTaskError("Coordinator.report", trace, error, "coordinator", 1, "127.0.0.1")
    found: Exception = carried.as_instanceof_cause()
    return found


def _run_failing(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    def fail() -> None:
        raise error

    monkeypatch.setitem(app.commands, "fail", click.Command("fail", callback=fail))
    found = run_command(monkeypatch, capsys, "fail")
    return found.code, found.err


def test_an_unforeseen_error_is_a_line_and_a_file_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, text = _run_failing(KeyError("gone"), monkeypatch, capsys)
    (report,) = tmp_path.iterdir()
    assert code == 1
    assert text.startswith("error: unexpected KeyError: 'gone'")
    assert "Traceback" not in text
    assert str(report) in text
    assert "Traceback" in report.read_text()


def test_an_error_of_another_process_reads_as_it_was_raised_and_keeps_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _from_another_process(StorageError("s3://b: no space"))
    assert _run_failing(error, monkeypatch, capsys) == (4, "error: s3://b: no space\n")


def test_a_trials_reason_leaves_out_how_its_error_travelled() -> None:
    assert error_text(_from_another_process(StorageError("s3://b: no space"))) == "s3://b: no space"
    assert error_text(_from_another_process(KeyError("gone"))) == "KeyError: 'gone'"


def test_json_on_the_command_line_is_json_where_a_figure_is_not_finite(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit(True, {"loss": math.nan, "rank": 2.5}, "")
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"loss": None, "rank": 2.5}


def test_an_interrupted_sweep_says_how_to_go_on_and_exits_with_130(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        conclude(RunConfig(), SweepRecord(sweep_id="s-1", state="interrupted"), as_json=False)
    assert ended.value.code == 130
    assert "orchestrator resume s-1" in capsys.readouterr().err
