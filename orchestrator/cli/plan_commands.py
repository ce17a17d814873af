"""`plan`: what a sweep would do, before anything is spent."""

from __future__ import annotations

from orchestrator.cli.main import app, config_argument, emit, json_option


@app.command()
@config_argument
@json_option
def plan(file: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say everything the sweep of FILE would do, without doing it: trials, masks, data, sizes and cost."""
    from orchestrator.config import load_config
    from orchestrator.sweep.planning import describe_plan

    description = describe_plan(load_config(file, overrides))
    emit(as_json, description.to_json(), description.text())
