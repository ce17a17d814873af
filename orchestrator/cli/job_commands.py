"""`submit` and `jobs`: sweeps on a Ray cluster that is somewhere else."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import config_argument, emit, json_option
from orchestrator.cli.streams import outlive_reader
from orchestrator.errors import OrchestratorError
from orchestrator.text import command_text

if TYPE_CHECKING:
    from orchestrator.config import RunConfig
    from orchestrator.jobs import JobState, Submitted
    from orchestrator.jobs.client import JobsClient
    from orchestrator.sweep.journal import Runs


def cluster_options(command: Any) -> Any:
    """How to reach the cluster."""
    for option in (
        click.option(
            "--address",
            required=True,
            envvar="ORCHESTRATOR_ADDRESS",
            help="The head's dashboard, e.g. http://127.0.0.1:8265 behind `ssh -L` (or ORCHESTRATOR_ADDRESS).",
        ),
        click.option(
            "--token-file",
            type=click.Path(dir_okay=False),
            help="File with the cluster's token; default: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.",
        ),
        click.option(
            "--ca-file", type=click.Path(dir_okay=False), help="PEM file that signs the head's https."
        ),
        click.option("--allow-insecure", is_flag=True, help="Use a cluster that asks for no token."),
    ):
        command = option(command)
    return command


@app.command()
@config_argument
@cluster_options
@click.option(
    "--include", multiple=True, metavar="PATH", help="Send this file or folder too. May be given again."
)
@click.option("--no-code", is_flag=True, help="Do not send our code: the cluster's image has this version.")
@click.option("--python", default="python", show_default=True, help="Interpreter on the cluster.")
@click.option("--env", "pairs", multiple=True, metavar="NAME=VALUE", help="Variable of the job; no secrets.")
@click.option("--shared-filesystem", is_flag=True, help="Absolute paths of FILE are mounted on every node.")
@click.option(
    "--stop-wait-s",
    default=180,
    show_default=True,
    type=click.IntRange(1, 86_400),
    help="Time that a driver which is told to stop has for its checkpoints.",
)
@click.option(
    "--restarts",
    default=5,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="How often a driver that is killed is started again.",
)
@click.option(
    "--new", "fresh", is_flag=True, help="A new sweep even if this configuration was submitted before."
)
@click.option("--dry-run", is_flag=True, help="Check everything, the cluster included, and send nothing.")
@json_option
def submit(
    file: str,
    overrides: tuple[str, ...],
    address: str,
    token_file: str | None,
    ca_file: str | None,
    allow_insecure: bool,
    include: tuple[str, ...],
    no_code: bool,
    python: str,
    pairs: tuple[str, ...],
    shared_filesystem: bool,
    stop_wait_s: int,
    restarts: int,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run the sweep of FILE on a Ray cluster and detach; the same FILE again is the same sweep.

    Sends the resolved configuration and our own code, never the current folder. A sweep whose job died or was stopped
    goes on from its journal and checkpoints when FILE is submitted again.
    """
    from orchestrator import jobs
    from orchestrator.config import dump, load_config
    from orchestrator.sweep.journal import Runs

    config = load_config(file, overrides)
    jobs.check_shared_storage(config, shared_filesystem=shared_filesystem)
    environment = jobs.parse_environment(pairs)
    package = jobs.build_package(dump(config), with_code=not no_code, include=include)
    click.echo(f"package: {package.describe()}", err=True)
    client = jobs.connect(address, token_file=token_file, ca_file=ca_file, allow_insecure=allow_insecure)
    for warning in (
        *jobs.warnings_of(client.head),
        *jobs.shared_storage_warnings(config, client.head.url),
        *_tracking_warnings(config),
    ):
        click.echo(f"warning: {warning}", err=True)
    if dry_run:
        facts = {"url": client.head.url, "ray": client.head.ray_version, "bytes": len(package.data)}
        emit(
            as_json,
            facts,
            f"{client.head.url} (Ray {client.head.ray_version}) would take it; nothing was sent",
        )
        return
    request = jobs.JobRequest(
        config=config,
        package=package,
        python=python,
        stop_wait_s=stop_wait_s,
        restarts=restarts,
        environment=environment,
        fresh=fresh,
    )
    done = jobs.submit(client, request)
    runs = Runs.of(config.storage)
    emit(
        as_json,
        {"job_id": done.job_id, "sweep_id": done.sweep_id, "outcome": done.outcome, "runs": runs.uri},
        _next_commands(done, address=address, runs=runs),
    )


def _tracking_warnings(config: RunConfig) -> list[str]:
    """What is wrong with the tracking server as seen from here; names, networks and accounts of the cluster differ."""
    from orchestrator.errors import TrackingError
    from orchestrator.tracking import check_location, find_location

    if config.tracking.uri is None:
        return []
    try:
        problem = check_location(find_location(config.tracking, "runs"))
    except TrackingError as error:
        problem = str(error)
    return [f"seen from here, {problem}; the job asks again before its first trial"] if problem else []


def _next_commands(done: Submitted, *, address: str, runs: Runs) -> str:
    said = {
        "new": f"submitted {done.job_id}",
        "resumed": f"submitted {done.job_id}; it goes on with the sweep {done.sweep_id}",
        "present": f"{done.job_id} is there already"
        + (f" ({done.earlier.status.lower()})" if done.earlier is not None else "")
        + "; nothing was sent (--new makes another sweep of it)",
    }[done.outcome]
    place = (done.job_id, "--address", address)
    return "\n".join(
        (
            said,
            f"  look:   {command_text('jobs', 'status', *place)}",
            f"  follow: {command_text('jobs', 'logs', '-f', *place)}",
            f"  stop:   {command_text('jobs', 'stop', *place)}",
            f"  result: {runs.command('report', done.sweep_id)}",
        )
    )


@app.group()
def jobs() -> None:
    """Sweeps that were submitted to a cluster."""


@jobs.command("ls")
@cluster_options
@json_option
def ls(
    address: str, token_file: str | None, ca_file: str | None, allow_insecure: bool, as_json: bool
) -> None:
    """List the submitted sweeps of a cluster, newest first."""
    found = _connect(address, token_file, ca_file, allow_insecure).jobs()
    lines = [f"{state.status:<10} {_duration(state):>9}  {state.job_id}" for state in found]
    emit(
        as_json,
        [state.to_json() for state in found],
        "\n".join(lines) or "no sweep was submitted to this cluster",
    )


@jobs.command()
@click.argument("name")
@cluster_options
@json_option
def status(
    name: str, address: str, token_file: str | None, ca_file: str | None, allow_insecure: bool, as_json: bool
) -> None:
    """Say how the job or sweep NAME stands."""
    state = _connect(address, token_file, ca_file, allow_insecure).find(name)
    ended = "" if state.exit_code is None else f", exit code {state.exit_code}"
    text = f"{state.job_id}: {state.status.lower()} for {_duration(state)}{ended}"
    if state.message:
        text += f"\n  {state.message}"
    emit(as_json, state.to_json(), text)


@jobs.command()
@click.argument("name")
@cluster_options
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends; Ctrl-C leaves it running.")
def logs(
    name: str, address: str, token_file: str | None, ca_file: str | None, allow_insecure: bool, follow: bool
) -> None:
    """Print what the driver of the job or sweep NAME has printed."""
    client = _connect(address, token_file, ca_file, allow_insecure)
    state = client.find(name)
    if follow and state.active:
        client.follow(state.job_id, lambda text: click.echo(text, nl=False))
        state = client.find(state.job_id)
        click.echo(f"{state.job_id}: {state.status.lower()}", err=True)
    else:
        click.echo(client.logs(state.job_id), nl=False)


@jobs.command()
@click.argument("name")
@cluster_options
@click.option("--wait-s", default=0, show_default=True, type=click.IntRange(0), help="Wait for the end.")
def stop(
    name: str, address: str, token_file: str | None, ca_file: str | None, allow_insecure: bool, wait_s: int
) -> None:
    """Stop the job or sweep NAME with checkpoints; submitting its file again goes on with it."""
    client = _connect(address, token_file, ca_file, allow_insecure)
    state = client.find(name)
    if not state.active:
        click.echo(f"{state.job_id} has ended already ({state.status.lower()})")
        return
    client.stop(state.job_id)
    deadline = time.monotonic() + wait_s
    while state.active and time.monotonic() < deadline:
        time.sleep(1.0)
        state = client.find(state.job_id)
    said = "is writing its checkpoints and ends" if state.active else f"has ended ({state.status.lower()})"
    click.echo(f"{state.job_id} {said}")


@jobs.command()
@config_argument
@click.option(
    "--sweep-id", help="Begin, or go on with, the sweep of this id; default: one that follows from FILE."
)
@click.option(
    "--ray-address", default="auto", show_default=True, help="The Ray cluster this machine is part of."
)
def drive(file: str, overrides: tuple[str, ...], sweep_id: str | None, ray_address: str) -> None:
    """Be the driver of a sweep, on a node of the cluster: what `submit`, Slurm and KubeRay run."""
    from orchestrator.cli.abort import abort
    from orchestrator.cli.commands import preview, report
    from orchestrator.cli.undelivered import warn_undelivered
    from orchestrator.cli.views import watching
    from orchestrator.config import load_config
    from orchestrator.jobs.submission import sweep_id_of
    from orchestrator.report import summarize
    from orchestrator.sweep.run import SweepRequest, run_sweep

    config = load_config(file, overrides)
    outlive_reader()
    with _telling(), watching(config) as observer:
        record = run_sweep(
            SweepRequest(
                config=config,
                observer=observer,
                sweep_id=sweep_id or sweep_id_of(config),
                address=None if ray_address == "local" else ray_address,
                on_training=preview,
                on_ended=report,
                on_cluster_loss=abort,
            )
        )
    click.echo(summarize(config, record).text())
    warn_undelivered(config, record.sweep_id)
    if record.state == "interrupted":
        sys.exit(130)


@contextmanager
def _telling() -> Iterator[None]:
    """Write the traceback of anything unexpected to the job's log before Ray goes down, whoever ends the process."""
    try:
        yield
    except (OrchestratorError, KeyboardInterrupt):
        raise
    except BaseException:
        traceback.print_exc()
        raise


def _connect(address: str, token_file: str | None, ca_file: str | None, allow_insecure: bool) -> JobsClient:
    from orchestrator.jobs import connect

    return connect(address, token_file=token_file, ca_file=ca_file, allow_insecure=allow_insecure)


def _duration(state: JobState) -> str:
    if state.started_s is None:
        return "-"
    seconds = int((state.ended_s or time.time()) - state.started_s)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {seconds % 60:02d} s"
