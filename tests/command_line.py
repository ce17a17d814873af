"""Running the command line in this process."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from orchestrator.cli import main


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> Outcome:
    """Run `orchestrator` with these arguments, as its installed script would."""
    monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as err:
        code = err.code if isinstance(err.code, int) else int(err.code is not None)
    shown = capsys.readouterr()
    return Outcome(code=code, out=shown.out, err=shown.err)
