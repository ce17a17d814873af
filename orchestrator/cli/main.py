"""The `orchestrator` command: every sub-command, the errors they end with, and the exit codes."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

import click

from orchestrator.cli.app import app
from orchestrator.cli.proxies import spare_loopback
from orchestrator.cli.streams import READER_GONE_EXIT_CODE, ReaderGoneError, safe_streams
from orchestrator.errors import OrchestratorError, StorageError


def app_with_commands() -> click.Group:
    """The command line with every command; a module adds its own when it is imported."""
    from orchestrator.cli import (  # noqa: F401
        bench_commands,
        commands,
        config_commands,
        data_commands,
        export_commands,
        job_commands,
        mask_commands,
        plan_commands,
        probe_commands,
        report_commands,
        sweep_commands,
        undelivered,
    )

    return app


def main() -> None:
    """Run the command line; the entry point of the installed script."""
    spare_loopback()
    try:
        with safe_streams():
            _run()
    except ReaderGoneError:  # `head` for one has seen enough
        sys.exit(READER_GONE_EXIT_CODE)


def _run() -> None:
    try:
        app_with_commands().main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as err:
        err.show()
        sys.exit(2)
    except OrchestratorError as err:
        click.echo(f"error: {_as_raised(err)}", err=True)
        sys.exit(err.exit_code)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except ReaderGoneError:
        raise
    except OSError as err:
        click.echo(f"error: {_refused(err)}", err=True)
        sys.exit(StorageError.exit_code)
    except Exception as err:
        click.echo(_unexpected(err), err=True)
        sys.exit(1)


def _as_raised(error: OrchestratorError) -> BaseException:
    """The error itself of one that was raised in another process, without Ray's account of how it travelled."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, OrchestratorError) else error


def _refused(error: OSError) -> str:
    """What the operating system refuses, in a line; no fault of ours, but its traceback is kept too."""
    places = [str(place) for place in (error.filename, error.filename2) if place is not None]
    said = f"{' and '.join(places)}: {error.strerror}" if places else " ".join(str(error).split())[:300]
    return f"{said}; check the place, its permissions and free space{_kept(error, ' (traceback: {})')}"


def _unexpected(error: Exception) -> str:
    """What to say of an error that nobody foresaw; its traceback goes to a file, for whoever mends it."""
    said = " ".join(str(error).split())[:300]
    return (
        f"error: unexpected {type(error).__name__}: {said}\n"
        f"This is a fault of orchestrator's own; please report it{_kept(error, ' with {}')}"
    )


def _kept(error: Exception, form: str) -> str:
    """Write the traceback to a file and say where; empty where no file can be written."""
    try:
        handle, path = tempfile.mkstemp(prefix="orchestrator-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return form.format(path)
