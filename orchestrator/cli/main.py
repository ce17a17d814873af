"""The `orchestrator` command and its sub-commands."""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator import __version__
from orchestrator.cli.proxies import spare_loopback
from orchestrator.cli.streams import READER_GONE_EXIT_CODE, ReaderGoneError, safe_streams
from orchestrator.errors import OrchestratorError, StorageError
from orchestrator.text import json_able

if TYPE_CHECKING:
    from orchestrator.sweep.runs import Runs

F = TypeVar("F", bound=Callable[..., Any])

_EPILOG = (
    "Exit codes: 0 done, 1 unexpected, 2 configuration, 3 data, 4 storage, 5 tracking, 6 training, 7 cluster, "
    "130 interrupted, 141 nobody reads the output any more."
)


class Commands(click.Group):
    """A group that lists each command with its whole first paragraph; stock click cuts it at 45 characters."""

    group_class = type

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click takes any broken pipe, a server's too, for a reader of the output that left."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as err:
            raise StorageError(
                f"{err.filename or 'a connection'}: broken off ({err.strerror}); try again"
            ) from err

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list; long lines are wrapped."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, " ".join((command.help or "").split("\n\n")[0].split()))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="orchestrator")
@click.option("-v", "--verbose", is_flag=True, help="Show our whole log and the libraries' warnings.")
def app(verbose: bool) -> None:
    """Find the mask geometry with which I-JEPA learns the best features per GPU hour on your images."""
    from orchestrator.cli.messages import show_log

    show_log(verbose=verbose)
    if not verbose:
        import warnings

        warnings.filterwarnings("ignore")


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


def config_argument(command: F) -> F:
    """The YAML file and `--set`, for every command that reads a configuration."""
    return click.argument("file", type=click.Path(dir_okay=False))(_overrides(command))


def optional_config_argument(command: F) -> F:
    """The same for a command that can do without the file."""
    return click.argument("file", type=click.Path(dir_okay=False), required=False)(_overrides(command))


def _overrides(command: F) -> F:
    return click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Override a dotted key, e.g. --set train.images=100000. May be given again.",
    )(command)


def json_option(command: F) -> F:
    """`--json`: the result as one JSON document on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def runs_option(command: Any) -> Any:
    """`--runs` and `--endpoint-url`: where the sweeps are, which the command is given as one `Runs`."""

    @functools.wraps(command)
    def with_runs(*args: Any, runs: str, endpoint_url: str | None, **options: Any) -> Any:
        for override in options.get("overrides", ()):
            key, _, value = override.partition("=")
            if key.strip() == "storage.endpoint_url" and endpoint_url is None:
                endpoint_url = value.strip()
        return command(*args, runs=_runs(runs, endpoint_url), **options)

    for option in (
        click.option(
            "--endpoint-url", help="Server of an `s3://` prefix; default: AWS_ENDPOINT_URL, else AWS."
        ),
        click.option(
            "--runs", default="runs", show_default=True, help="Folder or `s3://` prefix of the runs."
        ),
    ):
        with_runs = option(with_runs)
    return with_runs


def _runs(uri: str, endpoint_url: str | None) -> Runs:
    """The place of the sweeps, checked by the rules of `storage.uri` and `storage.endpoint_url`."""
    from orchestrator.config.uris import check_endpoint_url, check_store_uri, mask_secrets
    from orchestrator.sweep.runs import Runs

    for name, value, check in (
        ("--runs", uri, check_store_uri),
        ("--endpoint-url", endpoint_url, check_endpoint_url),
    ):
        try:
            if value is not None:
                check(value)
        except ValueError as err:
            raise click.UsageError(f"{name} {mask_secrets(str(value))!r}: {err}") from None
    return Runs(uri=uri, endpoint_url=endpoint_url)


def emit(as_json: bool, data: Any, text: str) -> None:
    """Print a command's result."""
    click.echo(json.dumps(json_able(data), indent=2, sort_keys=True) if as_json else text)
