"""`plan`: what a sweep would do, before anything is spent."""

from __future__ import annotations

from functools import partial

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import config_argument, emit, json_option


@app.command()
@config_argument
@click.option(
    "--calibrate",
    is_flag=True,
    help="Run the cheapest and the dearest trial for a few steps on this machine and quote device hours.",
)
@json_option
def plan(file: str, overrides: tuple[str, ...], calibrate: bool, as_json: bool) -> None:
    """Say everything the sweep of FILE would do, without doing it: trials, masks, data, sizes and cost."""
    from orchestrator.config import load_config
    from orchestrator.sweep.foresight import describe_plan

    say = partial(click.echo, err=True) if calibrate else None
    description = describe_plan(load_config(file, overrides), say)
    emit(as_json, description.to_json(), description.text())
