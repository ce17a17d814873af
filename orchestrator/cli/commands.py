"""`sweep`, `train` and `doctor`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import (
    config_argument,
    emit,
    json_option,
    optional_config_argument,
    runs_option,
    set_option,
)
from orchestrator.cli.streams import outlive_reader
from orchestrator.text import counted

if TYPE_CHECKING:
    from orchestrator.config import RunConfig
    from orchestrator.sweep.core import SweepRecord
    from orchestrator.sweep.journal import Runs
    from orchestrator.sweep.run import SweepStart
    from orchestrator.tracking import Tracker


def run_options(*, file_required: bool = True) -> Callable[[Any], Any]:
    """What `sweep` and `train` share beyond the configuration."""
    return lambda command: _with_run_options(command, file_required=file_required)


def _with_run_options(command: Any, *, file_required: bool) -> Any:
    for option in (
        click.option(
            "--address", help="Ray cluster to join (`auto` for the one of this machine); default: start one."
        ),
        click.option("--num-cpus", type=click.IntRange(1), help="CPUs the local Ray may use; default: all."),
        click.option("--dry-run", is_flag=True, help="Check everything and print the plan; start nothing."),
        json_option,
    ):
        command = option(command)
    return config_argument(command) if file_required else optional_config_argument(command)


@app.command()
@run_options()
@click.option("--resume", "sweep_id", metavar="ID", help="Go on with an interrupted or crashed sweep.")
@click.option(
    "--revive",
    metavar="TRIAL",
    multiple=True,
    help="With --resume: let a stopped trial, by id or number, go on from its checkpoint. May be given again.",
)
def sweep(
    file: str,
    overrides: tuple[str, ...],
    sweep_id: str | None,
    revive: tuple[str, ...],
    address: str | None,
    num_cpus: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Search the space of FILE and say which geometry won, by how much and at what cost."""
    from orchestrator.config import load_config

    if revive and sweep_id is None:
        raise click.UsageError("--revive needs --resume ID: which sweep's trial?")
    config = load_config(file, overrides)
    _run(
        config,
        sweep_id=sweep_id,
        revive=revive,
        address=address,
        num_cpus=num_cpus,
        dry_run=dry_run,
        as_json=as_json,
    )


@app.command()
@run_options(file_required=False)
@click.option("--resume", "run_id", metavar="ID", help="Go on with an interrupted or crashed run.")
@click.option(
    "--from-best", "from_best", metavar="SWEEP", help="Train what SWEEP recommends; FILE is not needed."
)
@runs_option
def train(
    file: str | None,
    overrides: tuple[str, ...],
    run_id: str | None,
    from_best: str | None,
    runs: Runs,
    address: str | None,
    num_cpus: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the base configuration of FILE alone; its search space is left aside.

    With --from-best, train what a sweep in --runs recommends, scaled up by --set (train.images, encoder.name, ...), and
    say first what changes with scale. The new run is kept beside that sweep, or in --set storage.uri=... .
    """
    from orchestrator.config import load_config
    from orchestrator.protocol.point import Point
    from orchestrator.report.words import trial_config

    if (file is None) == (from_best is None):
        raise click.UsageError("give either FILE or --from-best SWEEP")
    if from_best is not None:
        config = _scaled_up(from_best, runs, overrides)
    else:
        config = load_config(str(file), overrides)
        config = trial_config(config, Point({}), config.train.seed)
    _run(
        config,
        sweep_id=run_id,
        address=address,
        num_cpus=num_cpus,
        dry_run=dry_run,
        as_json=as_json,
        origin="" if from_best is None else f"best of {from_best}",
    )


def _scaled_up(sweep_id: str, runs: Runs, overrides: tuple[str, ...]) -> RunConfig:
    """The configuration of a sweep's recommended geometry with overrides; says on stderr what they change."""
    from orchestrator.config import dump, parse_config
    from orchestrator.report import load_sweep, recommend, summarize, trial_config
    from orchestrator.report.statistics import check_one_setting
    from orchestrator.report.words import plan_scale

    config, record, _ = load_sweep(runs, sweep_id)
    choice = recommend(summarize(config, record))
    check_one_setting(config, choice.trial.schedule, choice.trial.trial_id)
    small = trial_config(config, choice.trial.point, choice.trial.seed)
    large = parse_config(dump(small), source=f"best of {sweep_id}", overrides=overrides)
    plan = plan_scale(small, large, choice.trial, sweep_id)
    click.echo(f"{choice.result.name}: {choice.reason}", err=True)
    click.echo(plan.text(), err=True)
    return large


def execute(
    config: RunConfig,
    *,
    sweep_id: str | None,
    address: str | None,
    num_cpus: int | None,
    revive: tuple[str, ...] = (),
    register: bool = True,
    origin: str = "",
) -> SweepRecord:
    """Run a configuration with live progress and its report; returns what came of it.

    `register` registers the recommended encoder in MLflow. `origin` says what a run that is no search is for.
    """
    from orchestrator.cli.abort import abort
    from orchestrator.cli.views import watching
    from orchestrator.sweep.run import SweepRequest, run_sweep

    outlive_reader()
    with watching(config) as observer:
        return run_sweep(
            SweepRequest(
                config=config,
                observer=observer,
                sweep_id=sweep_id,
                resume=sweep_id is not None,
                revive=revive,
                origin=origin,
                address=address,
                num_cpus=num_cpus,
                on_training=preview,
                on_ended=partial(report, register=register),
                on_cluster_loss=abort,
            )
        )


def preview(start: SweepStart) -> None:
    """`report.log_preview`, loaded when it is called: no trial waits for what draws."""
    from orchestrator.report import log_preview

    log_preview(start)


def report(record: SweepRecord, tracker: Tracker, uri: str, *, register: bool = True) -> None:
    """`report.log_report`, loaded when it is called."""
    from orchestrator.report import log_report

    log_report(record, tracker, uri, register=register)


def _run(
    config: RunConfig,
    *,
    sweep_id: str | None,
    address: str | None,
    num_cpus: int | None,
    dry_run: bool,
    as_json: bool,
    revive: tuple[str, ...] = (),
    origin: str = "",
) -> None:
    from orchestrator.sweep.foresight import describe_plan

    if dry_run:
        from orchestrator.sweep.run import check_tracking

        if problem := check_tracking(config):
            click.echo(f"warning: {problem}; what MLflow is to be told would wait", err=True)
        earlier: tuple[RunConfig, ...] = ()
        if sweep_id is not None:
            from orchestrator.sweep.run import check_resume

            earlier = check_resume(config, sweep_id, revive).earlier
        plan = describe_plan(config, earlier=earlier)
        emit(as_json, plan.to_json(), plan.text())
        return
    record = execute(
        config, sweep_id=sweep_id, address=address, num_cpus=num_cpus, revive=revive, origin=origin
    )
    conclude(config, record, as_json=as_json)


def conclude(config: RunConfig, record: SweepRecord, *, as_json: bool) -> None:
    """Print what came of a sweep, and how to go on with one that was interrupted, which exits with 130."""
    from orchestrator.cli.undelivered import warn_undelivered
    from orchestrator.report import summarize
    from orchestrator.sweep.journal import Runs

    runs, sweep_id = Runs.of(config.storage), record.sweep_id
    summary = summarize(config, record)
    closer = _look_closer(config, sweep_id, has_best=summary.verdict.best is not None)
    emit(as_json, summary.to_json(), f"{summary.text()}\n\n{closer}")
    if record.state == "finished" and record.is_exhausted:
        left = sum(not trial.done for trial in record.trials.values())
        extend = runs.command("extend", sweep_id, then=("--set", "budget.KEY=HOURS"))
        click.echo(
            f"the budget is spent, not done: {counted(left, 'trial')}; a larger one: {extend}", err=True
        )
    if record.state in ("interrupted", "paused"):
        click.echo(f"go on with: {runs.command('resume', sweep_id)}", err=True)
    warn_undelivered(config, sweep_id)
    if record.state == "interrupted":
        sys.exit(130)


def _look_closer(config: RunConfig, sweep_id: str, *, has_best: bool) -> str:
    """Where the page and the runs of a sweep are, and what to do with its best geometry.

    MLflow is named only where it has something of the sweep.
    """
    from orchestrator.sweep.journal import Runs
    from orchestrator.sweep.run import delivery_of

    runs = Runs.of(config.storage)
    go_on = runs.command("train", "--from-best", sweep_id, then=("--set", "train.images=N"))
    if config.sweep.pbt is not None:
        go_on = f"{runs.command('best', sweep_id)}    (whose weights, trained under what)"
    in_mlflow = delivery_of(config, sweep_id).has_delivered
    page = f"{runs.sweep_uri(sweep_id)}/report/report.html"
    lines = [
        f"Report: {shlex.quote(page)}",
        *([f"MLflow: {_page(config, sweep_id)}    (select the trials, press Compare)"] if in_mlflow else []),
        *([f"Go on:  {go_on}"] if has_best else []),
    ]
    return "\n".join(lines)


def _page(config: RunConfig, sweep_id: str) -> str:
    """A server's address, or the command that serves the page of a database."""
    from orchestrator.sweep.journal import Runs
    from orchestrator.sweep.run import tracking_root
    from orchestrator.text import command_text
    from orchestrator.tracking import find_location

    runs = Runs.of(config.storage)
    if config.tracking.uri is None:  # the default store is never in a bucket
        return (Runs() if runs.is_bucket else runs).command("ui")
    place = find_location(config.tracking, tracking_root(config))
    return place.uri if place.remote else command_text("ui", f"{runs.sweep_uri(sweep_id)}/config.yaml")


@app.command()
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@set_option("Override a dotted key of FILE.")
@click.option(
    "--address", help="Check a Ray cluster that sweeps are submitted to, too: its dashboard's address."
)
@click.option("--token-file", type=click.Path(dir_okay=False), help="File with the cluster's token.")
@click.option("--ca-file", type=click.Path(dir_okay=False), help="PEM file that signs the cluster's https.")
@json_option
def doctor(
    file: str | None,
    overrides: tuple[str, ...],
    address: str | None,
    token_file: str | None,
    ca_file: str | None,
    as_json: bool,
) -> None:
    """Check this machine, and what FILE needs, before anything is spent."""
    from orchestrator.cli.doctor import examine
    from orchestrator.cli.findings import ClusterAccess
    from orchestrator.config import default_config, load_config

    cluster = None
    if address is not None:
        cluster = ClusterAccess(address=address, token_file=token_file, ca_file=ca_file)
    config = default_config(overrides) if file is None else load_config(file, overrides)
    findings = examine(config, cluster)
    width = max(len(finding.name) for finding in findings)
    text = "\n".join(f"{finding.mark}  {finding.name:<{width}}  {finding.text}" for finding in findings)
    emit(as_json, [finding.to_json() for finding in findings], text)
    sys.exit(max(finding.exit_code for finding in findings))
