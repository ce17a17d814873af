"""What commands share: the configuration file and its overrides, where the sweeps are, and JSON in place of text."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.text import json_able

if TYPE_CHECKING:
    from orchestrator.sweep.journal import Runs

F = TypeVar("F", bound=Callable[..., Any])


def config_argument(command: F) -> F:
    """The YAML file and `--set`, for every command that reads a configuration."""
    return click.argument("file", type=click.Path(dir_okay=False))(_overrides(command))


def optional_config_argument(command: F) -> F:
    """The same for a command that can do without the file."""
    return click.argument("file", type=click.Path(dir_okay=False), required=False)(_overrides(command))


def set_option(help_text: str, *, required: bool = False) -> Callable[[F], F]:
    """`--set KEY=VALUE`, any number of times."""
    return click.option(
        "--set", "overrides", metavar="KEY=VALUE", multiple=True, required=required, help=help_text
    )


def _overrides(command: F) -> F:
    return set_option("Override a dotted key, e.g. --set train.images=100000. May be given again.")(command)


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
    from orchestrator.sweep.journal import Runs

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
