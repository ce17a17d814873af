"""Whatever reads the output, and in whatever encoding: no command fails for it, and no long one ends."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import TextIO

import click
import pytest

from orchestrator.cli import main
from orchestrator.cli.app import app
from orchestrator.cli.progress import telling
from orchestrator.cli.streams import ReaderGoneError, is_live, outlive_reader, safe_streams
from orchestrator.cli.views import PlainView, watching
from orchestrator.config import default_config


def _pipe(encoding: str = "utf-8") -> tuple[int, TextIO]:
    reader, writer = os.pipe()
    return reader, io.TextIOWrapper(io.FileIO(writer, "wb"), encoding=encoding, write_through=True)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _exit_code(monkeypatch: pytest.MonkeyPatch, name: str, command: Callable[[], None]) -> int:
    monkeypatch.setitem(app.commands, name, click.Command(name, callback=command))
    monkeypatch.setattr(sys, "argv", ["orchestrator", name])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "koi8-r"])
def test_a_letter_that_the_encoding_lacks_is_written_as_an_escape(monkeypatch, encoding):
    reader, stream = _pipe(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with safe_streams():
        print("cats: 猫")
    assert os.read(reader, 100) == b"cats: \\u732b\n"


def test_a_name_whose_bytes_are_no_utf8_is_written_as_an_escape(monkeypatch):
    reader, stream = _pipe()
    monkeypatch.setattr(sys, "stdout", stream)
    with safe_streams():
        print(os.fsdecode(b"caf\xe9"))
    assert os.read(reader, 100) == b"caf\\udce9\n"


def test_a_closed_stream_takes_everything(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with safe_streams():
        print("nobody hears", file=sys.stderr)
    assert sys.stderr is None


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_short_command_ends_with_141_when_its_reader_is_gone(monkeypatch, name):
    reader, stream = _pipe()
    os.close(reader)
    monkeypatch.setattr(sys, name, stream)
    assert _exit_code(monkeypatch, "short", lambda: click.echo("a", err=name == "stderr")) == 141


def test_a_pipe_that_breaks_elsewhere_is_an_error_and_no_missing_reader(monkeypatch, capsys):
    def fail() -> None:
        raise BrokenPipeError(32, "Broken pipe", "a server")

    assert _exit_code(monkeypatch, "fail", fail) == 4
    assert "a server: broken off" in capsys.readouterr().err


def test_a_long_command_goes_on_without_its_reader(monkeypatch):
    reader, stream = _pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stderr", stream)
    with safe_streams():
        outlive_reader()
        view = PlainView(default_config(), sys.stderr)
        view.on_message("first")
        view.on_message("second")
        assert not sys.stderr.closed
    assert sys.stderr is stream


def test_a_long_command_outlives_its_terminal():
    before = signal.getsignal(signal.SIGHUP)
    with safe_streams():
        outlive_reader()
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) == before


def test_output_that_finds_no_space_is_told_once(monkeypatch, capsys):
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", full)
    assert _exit_code(monkeypatch, "write", lambda: click.echo("a")) == 4
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_log_that_finds_no_space_never_ends_a_sweep(monkeypatch):
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), encoding="utf-8", write_through=True)
    monkeypatch.setattr(sys, "stderr", full)
    with safe_streams():
        outlive_reader()
        PlainView(default_config(), sys.stderr).on_message("first")
    assert sys.stderr is full


def test_the_reader_that_went_away_is_told_to_whoever_did_not_outlive_it(monkeypatch):
    reader, stream = _pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(ReaderGoneError), safe_streams():
        print("a")


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False), ("unknown", False)])
def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch, term, live):
    monkeypatch.setenv("TERM", term)
    assert is_live(_Terminal()) is live
    with watching(default_config(), _Terminal()) as observer:
        assert isinstance(observer, PlainView) is not live


@pytest.mark.parametrize("columns", ["1", "20", "400"])
def test_any_width_and_no_colour_will_do(monkeypatch, columns):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = _Terminal()
    with watching(default_config(), terminal) as observer:
        observer.on_message("packing")
    with telling(terminal) as tell:
        tell("packing")
    assert "\x1b[3" not in terminal.getvalue()
    assert "packing" in "".join(terminal.getvalue().split())
