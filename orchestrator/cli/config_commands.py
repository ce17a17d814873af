"""`config schema`, `config explain`, `config show` and `config reference`."""

from __future__ import annotations

import json

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import config_argument, emit, json_option


@app.group()
def config() -> None:
    """The configuration: its schema, its keys, and a file as it resolves."""


@config.command()
def schema() -> None:
    """Print the JSON Schema of a sweep file, for editors."""
    from orchestrator.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@config.command()
@click.argument("key")
def explain(key: str) -> None:
    """Say what a dotted KEY (or a section) means, its type, rule and default."""
    from orchestrator.config import explain as explain_key

    click.echo(explain_key(key))


@config.command()
@config_argument
@json_option
def show(file: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print FILE with every default filled in and every override applied."""
    from orchestrator.config import dump, flatten, load_config

    resolved = load_config(file, overrides)
    emit(as_json, flatten(resolved), dump(resolved).rstrip())


@config.command()
def reference() -> None:
    """Print the configuration reference in Markdown (docs/configuration.md)."""
    from orchestrator.config import reference_markdown

    click.echo(reference_markdown().rstrip())
