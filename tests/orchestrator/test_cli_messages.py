"""What of the log reaches the user: our own warnings, once each, beside and never inside a command's result."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from orchestrator.cli.messages import OnceHandler, log_through, show_log
from orchestrator.cli.views import watching
from orchestrator.config import default_config
from orchestrator.sweep.watch.follower import OutageObserver

OURS = logging.getLogger("orchestrator.tracking.spool")


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    yield
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, OnceHandler)]:
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("orchestrator").setLevel(logging.NOTSET)


def test_a_warning_of_ours_is_told_once_and_on_standard_error(capsys):
    show_log(verbose=False)
    for _ in range(3):
        OURS.warning("calls wait in %s", "runs")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "warning: calls wait in runs\n")


@pytest.mark.parametrize(
    "library", ["mlflow.store", "sqlalchemy.pool", "alembic", "urllib3", "ray", "botocore"]
)
def test_libraries_stay_quiet(library, capsys):
    show_log(verbose=False)
    logging.getLogger(library).error("a long story")
    assert capsys.readouterr().err == ""


def test_an_error_behind_a_warning_is_one_line_and_whole_when_verbose(capsys):
    for verbose in (False, True):
        show_log(verbose=verbose)
        try:
            raise ValueError("no room\nsecond line")
        except ValueError:
            OURS.warning("the masks are not drawn", exc_info=True)
    brief, _, whole = capsys.readouterr().err.partition("\n")
    assert brief == "warning: the masks are not drawn: no room"
    assert "Traceback" in whole


def test_a_second_command_of_a_process_tells_it_again_and_not_twice(capsys):
    for _ in range(2):
        show_log(verbose=False)
        OURS.warning("careful")
    assert capsys.readouterr().err == "warning: careful\nwarning: careful\n"


def test_a_view_of_lines_takes_warnings_among_its_own(capsys):
    show_log(verbose=False)
    stream = io.StringIO()
    with watching(default_config(), stream):
        OURS.warning("calls wait")
    OURS.warning("the sweep has ended")
    assert stream.getvalue() == "[00:00] warning: calls wait\n"
    assert capsys.readouterr().err == "warning: the sweep has ended\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_view_keeps_warnings_above_the_table_and_shows_that_calls_wait(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    show_log(verbose=False)
    stream = Terminal()
    with watching(default_config(), stream) as view:
        OURS.warning("[red]brackets[/red] stay")
        assert isinstance(view, OutageObserver)
        view.on_waiting("3 calls wait for MLflow: Connection refused")
        shown = Terminal()
        Console(file=shown, width=100).print(view)
        view.on_waiting("")
    assert "3 calls wait for MLflow: Connection refused" in shown.getvalue()
    assert "warning: [red]brackets[/red] stay" in stream.getvalue()
    assert capsys.readouterr().err == ""


def test_the_log_is_written_as_before_after_a_block(capsys):
    show_log(verbose=False)
    lines: list[str] = []
    with log_through(lines.append):
        OURS.warning("inside")
    OURS.warning("outside")
    assert (lines, capsys.readouterr().err) == (["warning: inside"], "warning: outside\n")


def test_of_a_thousand_warnings_of_one_kind_a_few_are_shown(capsys):
    show_log(verbose=False)
    for index in range(1000):
        OURS.warning("sample %d is left out", index)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: sample 0 is left out"
    assert len(lines) == 6
    assert "more like the last are not shown; `orchestrator --verbose` shows all" in lines[-1]
