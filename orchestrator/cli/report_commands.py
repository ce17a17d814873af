"""`report`, `compare`, `best`, `reproduce` and `ui`: what a sweep found, afterwards."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import emit, json_option, runs_option
from orchestrator.errors import NotFoundError, TrackingError

if TYPE_CHECKING:
    from orchestrator.sweep.journal import Runs


@app.command()
@click.argument("sweep_id", metavar="SWEEP")
@runs_option
@json_option
def report(sweep_id: str, runs: Runs, as_json: bool) -> None:
    """Write the report of SWEEP again, from its journal, and print its summary.

    The page, its plots and tables are written to `report/` in the sweep's folder and, where the tracking store knows
    the sweep, put on its MLflow run, which every figure then links to.
    """
    from orchestrator.report import load_sweep, write_report

    config, record, uri = load_sweep(runs, sweep_id)
    summary = write_report(config, record, uri)
    written = f"{uri}/report/report.html"
    emit(
        as_json,
        {**summary.to_json(), "report": written},
        f"{summary.text()}\n\nreport: {shlex.quote(written)}",
    )


@app.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@runs_option
@json_option
def compare(names: tuple[str, ...], runs: Runs, as_json: bool) -> None:
    """Compare RUNs at equal images, FLOPs and device hours: who beats whom, what is tied, what cannot be said.

    A RUN is SWEEP/TRIAL (an id or a number), a SWEEP, or an MLflow run id. A trial stands for its geometry with all its
    seeds. One SWEEP alone is compared within itself: its best against each other geometry.
    """
    from orchestrator.report.lookup import compare_runs

    comparison = compare_runs(names, runs)
    emit(as_json, comparison.to_json(), comparison.text())


@app.command()
@click.argument("sweep_id", metavar="SWEEP")
@runs_option
@click.option(
    "--pick",
    type=click.Choice(["recommended", "highest", "cheapest"]),
    default="recommended",
    show_default=True,
    help="`recommended` is the highest, or the cheapest tied with it where that costs notably less.",
)
@click.option("--yaml", "as_yaml", is_flag=True, help="Print its whole configuration, to be saved as a file.")
@json_option
def best(sweep_id: str, runs: Runs, pick: Any, as_yaml: bool, as_json: bool) -> None:
    """Name the geometry that SWEEP recommends, with its settings, accuracy and cost."""
    from orchestrator.config import dump
    from orchestrator.protocol.jobs import checkpoints_uri
    from orchestrator.report import load_sweep, recommend, summarize, trial_config
    from orchestrator.report.statistics import check_one_setting
    from orchestrator.sweep.core import schedule_text

    config, record, uri = load_sweep(runs, sweep_id)
    choice = recommend(summarize(config, record), pick)
    schedule = choice.trial.schedule
    if as_yaml:
        check_one_setting(config, schedule, choice.trial.trial_id)
        click.echo(dump(trial_config(config, choice.trial.point, choice.trial.seed)).rstrip())
        return
    checkpoints = checkpoints_uri(uri, choice.trial.trial_id)
    longer = runs.command("train", "--from-best", sweep_id, then=("--set", "train.images=..."))
    export = runs.command("export", f"{sweep_id}/{choice.trial.trial_id}", then=("--to", "timm"))
    go_on = f"export its encoder: {export}    (--checkpoint last for the newest)\ntrain it longer: {longer}"
    if len(schedule) > 1:
        weights = f"weights of {schedule_text(config, schedule)}: no one configuration trains them again"
        go_on = f"export its encoder: {export}\n{weights}"
    told = {**choice.to_json(), "checkpoints": checkpoints, "schedule": [each.to_json() for each in schedule]}
    emit(as_json, told, f"{choice.text()}\ncheckpoints: {shlex.quote(checkpoints)}\n{go_on}")


@app.command()
@click.argument("name", metavar="RUN")
@runs_option
@click.option("--num-cpus", type=click.IntRange(1), help="CPUs the local Ray may use; default: all.")
@click.option("--address", help="Ray cluster to join; default: start one.")
@click.option("--dry-run", is_flag=True, help="Print what would be run; start nothing.")
@json_option
def reproduce(
    name: str, runs: Runs, num_cpus: int | None, address: str | None, dry_run: bool, as_json: bool
) -> None:
    """Run a trial again under its own settings and seed, and say whether it comes out the same.

    RUN is SWEEP/TRIAL or an MLflow run id. On a CPU with the same packages every figure should be identical. Exits with
    6 when probe accuracies differ by more than a point.
    """
    from orchestrator.cli.commands import execute
    from orchestrator.cli.undelivered import warn_undelivered
    from orchestrator.config import dump
    from orchestrator.report.lookup import find_run
    from orchestrator.report.reproduce import compare_outcomes
    from orchestrator.report.statistics import check_one_setting
    from orchestrator.report.words import trial_config
    from orchestrator.sweep.core import schedule_of

    found = find_run(name, runs)
    trial = found.the_trial()
    check_one_setting(found.config, schedule_of(found.record, trial.trial_id), trial.trial_id)
    config = trial_config(found.config, trial.point, trial.seed)
    if dry_run:
        click.echo(dump(config).rstrip())
        return
    origin = f"reproduction of {found.record.sweep_id}/{trial.trial_id}"
    # Not registered: a repetition, of whichever trial, is not the sweep's best encoder.
    record = execute(config, sweep_id=None, address=address, num_cpus=num_cpus, register=False, origin=origin)
    warn_undelivered(config, record.sweep_id)
    result = compare_outcomes(trial, record.in_order()[0], then=found.record, now=record)
    emit(as_json, result.to_json(), result.text())
    sys.exit({"different": 6, "not comparable": 1}.get(result.sameness, 0))


def check_port(port: int) -> None:
    """Whether a server can listen on a port of 127.0.0.1.

    Raises:
        TrackingError: The port is taken, or may not be opened.
    """
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: an ended one does not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise TrackingError(f"port {port} is taken; choose another --port") from error
            raise TrackingError(
                f"port {port} cannot be opened ({error.strerror}); choose another --port, above 1023"
            ) from error


@app.command()
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@click.option("--runs", default="runs", show_default=True, help="Folder of the runs, when no FILE names it.")
@click.option(
    "--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port on 127.0.0.1."
)
def ui(file: str | None, runs: str, port: int) -> None:
    """Open the MLflow UI on the runs of FILE or of a folder, on 127.0.0.1."""
    from orchestrator.config import default_config, load_config
    from orchestrator.sweep.journal import Runs
    from orchestrator.tracking import check_location, find_location, ui_command, ui_environment

    config = default_config() if file is None else load_config(file)
    root = Runs(uri=runs) if file is None else Runs.of(config.storage)
    place = find_location(config.tracking, str(root.local_folder))
    if place.remote:
        click.echo(f"the tracking server is {place.uri}; open it in a browser")
        return
    if place.database is not None and not place.database.exists():
        raise NotFoundError(
            f"{place.database}: there is no tracking store; run a sweep first, or name the folder of its runs "
            "with --runs"
        )
    check_port(port)
    if problem := check_location(place):
        raise TrackingError(problem)
    click.echo(f"MLflow UI: http://127.0.0.1:{port}  (Ctrl-C ends it)", err=True)
    command = ui_command(place.uri, port=port)
    os.execvpe(command[0], command, {**os.environ, **ui_environment()})
