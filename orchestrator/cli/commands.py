"""`sweep`, `train`, `report`, `ui` and `doctor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.main import app, config_argument, emit, json_option

if TYPE_CHECKING:
    from orchestrator.config import RunConfig


def run_options(command: Any) -> Any:
    """What `sweep` and `train` share beyond the configuration."""
    for option in (
        click.option(
            "--address", help="Ray cluster to join (`auto` for the one of this machine); default: start one."
        ),
        click.option("--num-cpus", type=click.IntRange(1), help="CPUs the local Ray may use; default: all."),
        click.option("--dry-run", is_flag=True, help="Check everything and print the plan; start nothing."),
        json_option,
    ):
        command = option(command)
    return config_argument(command)


@app.command()
@run_options
@click.option("--resume", "sweep_id", metavar="ID", help="Go on with an interrupted or crashed sweep.")
def sweep(
    file: str,
    overrides: tuple[str, ...],
    sweep_id: str | None,
    address: str | None,
    num_cpus: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Search the space of FILE and say which geometry won, by how much and at what cost."""
    from orchestrator.config import load_config

    config = load_config(file, overrides)
    _run(config, sweep_id=sweep_id, address=address, num_cpus=num_cpus, dry_run=dry_run, as_json=as_json)


@app.command()
@run_options
@click.option("--resume", "run_id", metavar="ID", help="Go on with an interrupted or crashed run.")
def train(
    file: str,
    overrides: tuple[str, ...],
    run_id: str | None,
    address: str | None,
    num_cpus: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the base configuration of FILE alone; its search space is left aside."""
    from orchestrator.config import apply_overrides, load_config

    config = load_config(file, overrides)
    seeds = (config.train.seed,)
    config = apply_overrides(
        config,
        {
            "sweep.space": {},
            "sweep.points": [],
            "sweep.search": "grid",
            "sweep.num_trials": None,
            "sweep.seeds": seeds,
            "sweep.asha": None,
        },
    )
    _run(config, sweep_id=run_id, address=address, num_cpus=num_cpus, dry_run=dry_run, as_json=as_json)


def _run(
    config: RunConfig,
    *,
    sweep_id: str | None,
    address: str | None,
    num_cpus: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from orchestrator.cli.views import watching
    from orchestrator.report import log_preview, log_report, summarize
    from orchestrator.sweep.planning import describe_plan
    from orchestrator.sweep.runner import SweepRequest, run_sweep

    if dry_run:
        plan = describe_plan(config)
        emit(as_json, plan.to_json(), plan.text())
        return
    with watching(config) as observer:
        record = run_sweep(
            SweepRequest(
                config=config,
                observer=observer,
                sweep_id=sweep_id,
                address=address,
                num_cpus=num_cpus,
                on_started=log_preview,
                on_ended=log_report,
            )
        )
    summary = summarize(config, record)
    emit(as_json, summary.to_json(), summary.text())
    if record.state == "interrupted":
        click.echo(f"go on with: orchestrator sweep FILE --resume {record.sweep_id}", err=True)
        sys.exit(130)


@app.command()
@click.argument("sweep_id")
@click.option("--runs", default="runs", show_default=True, help="Folder or `s3://` prefix of the runs.")
@json_option
def report(sweep_id: str, runs: str, as_json: bool) -> None:
    """Write the report of a sweep again, from its journal, and print its summary."""
    from orchestrator.report import load_sweep, summarize, write_report

    config, record, uri = load_sweep(runs, sweep_id)
    written = write_report(config, record, uri)
    summary = summarize(config, record)
    emit(as_json, {**summary.to_json(), "report": written}, f"{summary.text()}\n\nreport: {written}")


@app.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True), required=False)
@click.option("--runs", default="runs", show_default=True, help="Folder of the runs, when no FILE names it.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(file: str | None, runs: str, port: int) -> None:
    """Open the MLflow UI on the runs of FILE or of a folder, on 127.0.0.1."""
    from orchestrator.config import default_config, load_config
    from orchestrator.tracking import find_place, ui_command, ui_environment

    config = load_config(file) if file else default_config()
    root = runs if file is None or "://" in config.storage.uri else config.storage.uri
    place = find_place(config.tracking, str(Path(root).expanduser().resolve()))
    if place.remote:
        click.echo(f"the tracking server is {place.uri}; open it in a browser")
        return
    click.echo(f"MLflow UI: http://127.0.0.1:{port}  (Ctrl-C ends it)", err=True)
    command = ui_command(place.uri, port=port)
    os.execvpe(command[0], command, {**os.environ, **ui_environment()})


@app.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True), required=False)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a dotted key of FILE.")
@json_option
def doctor(file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check this machine, and what FILE needs, before anything is spent."""
    from orchestrator.cli.doctor import examine
    from orchestrator.config import default_config, load_config

    findings = examine(load_config(file, overrides) if file else default_config())
    text = "\n".join(f"{finding.mark}  {finding.name:<12} {finding.text}" for finding in findings)
    emit(as_json, [finding.to_json() for finding in findings], text)
    sys.exit(max(finding.exit_code for finding in findings))
