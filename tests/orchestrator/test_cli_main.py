"""What the command line says of itself."""

from __future__ import annotations

import socket

import click
import pytest
from command_line import run_command

from orchestrator.cli.main import app_with_commands


def test_the_list_of_commands_is_not_cut(monkeypatch, capsys):
    shown = run_command(monkeypatch, capsys, "--help")
    assert shown.code == 0
    assert "..." not in shown.out.partition("Commands:")[2]


def test_every_option_has_a_help_text():
    def options(command: click.Command, path: str) -> list[str]:
        if isinstance(command, click.Group):
            return [each for name, sub in command.commands.items() for each in options(sub, f"{path} {name}")]
        return [
            f"{path} {param.opts[0]}"
            for param in command.params
            if isinstance(param, click.Option) and not param.help
        ]

    assert options(app_with_commands(), "orchestrator") == []


@pytest.mark.parametrize("command", ["doctor", "plan", "ui"])
def test_a_file_that_is_not_there_is_said_alike_by_every_command(monkeypatch, capsys, command):
    shown = run_command(monkeypatch, capsys, command, "nothing.yaml")
    assert shown.code == 2
    assert shown.err == "error: nothing.yaml: cannot be read: No such file or directory\n"


def test_the_ui_on_a_taken_port_names_the_option_and_no_page(monkeypatch, capsys, tmp_path):
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        shown = run_command(monkeypatch, capsys, "ui", "--runs", str(tmp_path), "--port", str(port))
    assert shown.code == 5
    assert (shown.out, shown.err) == ("", f"error: port {port} is taken; choose another --port\n")


def test_the_ui_of_a_server_names_its_address(monkeypatch, capsys, tmp_path):
    (tmp_path / "f.yaml").write_text("tracking: {uri: 'http://host:5000'}\n")
    shown = run_command(monkeypatch, capsys, "ui", str(tmp_path / "f.yaml"))
    assert (shown.code, shown.out) == (0, "the tracking server is http://host:5000; open it in a browser\n")


def test_the_ui_of_a_damaged_store_is_one_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "mlflow.db").write_text("no database" * 500)
    shown = run_command(monkeypatch, capsys, "ui", "--runs", str(tmp_path), "--port", "5931")
    assert shown.code == 5
    assert "damaged, or no SQLite database; move it away" in shown.err


def test_the_ui_of_a_folder_without_runs_makes_nothing(monkeypatch, capsys, tmp_path):
    shown = run_command(monkeypatch, capsys, "ui", "--runs", str(tmp_path / "runs"))
    assert shown.code == 4
    assert "run a sweep first" in shown.err
    assert not (tmp_path / "runs").exists()
