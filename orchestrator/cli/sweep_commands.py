"""`ls`, `status`, `logs`, `pause`, `resume`, `cancel`, `extend` and `simulate`: the life of a sweep after its start."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import emit, json_option, optional_config_argument, runs_option, set_option
from orchestrator.text import counted

if TYPE_CHECKING:
    from orchestrator.config import RunConfig
    from orchestrator.sweep.journal import Request, Runs
    from orchestrator.sweep.watch import SweepStatus

_REFRESH_S = 2.0


@app.command(name="ls")
@runs_option
@json_option
def list_all(runs: Runs, as_json: bool) -> None:
    """List the sweeps, runs and reproductions of a folder, newest first."""
    from orchestrator.sweep.watch import list_sweeps

    found = list_sweeps(runs.store())
    lines = [] if not found else [f"{'id':<44}  {'kind':<12}  {'state':<12} {'done':<18} hours"]
    for status in found:
        trials = status.record.trials.values()
        done = f"{sum(trial.done for trial in trials)} of {counted(len(trials), 'trial')}"
        hours = status.ledger()
        lines.append(
            f"{status.record.sweep_id:<44}  {status.kind:<12}  {status.state:<12} {done:<18} "
            f"{hours.total.total:.3f} {hours.device} hours"
        )
    emit(as_json, [status.to_json() for status in found], "\n".join(lines) or f"no sweeps in {runs.uri}")


@app.command()
@click.argument("sweep_id")
@runs_option
@click.option(
    "--watch",
    is_flag=True,
    help="Show it again every two seconds until the sweep and its driver end; with --json one document a line.",
)
@json_option
def status(sweep_id: str, runs: Runs, watch: bool, as_json: bool) -> None:
    """Say how a sweep stands: its trials, and where its hours went."""
    import json

    from orchestrator.text import json_able

    found = _open(runs, sweep_id)
    while True:
        found.refresh()
        if watch and not as_json and sys.stdout.isatty():
            click.clear()
        if watch and as_json:  # one document a line, for whoever reads them as they come
            click.echo(json.dumps(json_able(found.to_json()), sort_keys=True))
        else:
            emit(as_json, found.to_json(), found.text())
        if not watch or (found.state != "running" and not found.driver):
            return  # a driver that still writes its report holds the sweep
        time.sleep(_REFRESH_S)


@app.command()
@click.argument("sweep_id")
@runs_option
@click.option("-f", "--follow", is_flag=True, help="Wait for more until the sweep ends.")
@click.option("--trial", help="Only this trial, by id or number.")
@json_option
def logs(sweep_id: str, runs: Runs, follow: bool, trial: str | None, as_json: bool) -> None:
    """Print what happened in a sweep, one line an event; with --json one JSON document a line."""
    import json

    from orchestrator.sweep.journal import trial_id_of
    from orchestrator.sweep.watch import event_line
    from orchestrator.text import json_able

    found = _open(runs, sweep_id)
    fresh = found.refresh()
    wanted = None if trial is None else trial_id_of(found.record, trial)
    while True:
        for entry in fresh:
            if wanted is not None and entry.trial_id != wanted:
                continue
            told = json.dumps(json_able(entry.to_json()), sort_keys=True) if as_json else event_line(entry)
            click.echo(told)
        if not follow or found.state != "running":
            return
        time.sleep(_REFRESH_S)
        fresh = found.refresh()


@app.command()
@click.argument("sweep_id")
@runs_option
@json_option
def pause(sweep_id: str, runs: Runs, as_json: bool) -> None:
    """Ask a running sweep to checkpoint and end; `orchestrator resume` goes on with it."""
    _ask(runs, sweep_id, "pause", as_json=as_json)


@app.command()
@click.argument("sweep_id")
@runs_option
@json_option
def cancel(sweep_id: str, runs: Runs, as_json: bool) -> None:
    """Ask a running sweep to checkpoint and end for good; trials that are not done are marked as cancelled."""
    _ask(runs, sweep_id, "cancel", as_json=as_json)


@app.command()
@click.argument("sweep_id")
@set_option("Override what may change.")
@click.option(
    "--revive", metavar="TRIAL", multiple=True, help="Let a stopped trial go on. May be given again."
)
@click.option("--address", help="Ray cluster to join; default: start one on this machine.")
@click.option("--num-cpus", type=click.IntRange(1), help="CPUs the local Ray may use; default: all.")
@runs_option
@json_option
def resume(
    sweep_id: str,
    overrides: tuple[str, ...],
    revive: tuple[str, ...],
    address: str | None,
    num_cpus: int | None,
    runs: Runs,
    as_json: bool,
) -> None:
    """Go on with a paused, interrupted or crashed sweep, with the configuration in its folder."""
    _go_on(sweep_id, overrides, revive, address, num_cpus, runs, as_json)


@app.command()
@click.argument("sweep_id")
@set_option(
    "More of something: train.images, sweep.num_trials, sweep.seeds, an axis' choices or range, the budget.",
    required=True,
)
@click.option("--address", help="Ray cluster to join; default: start one on this machine.")
@click.option("--num-cpus", type=click.IntRange(1), help="CPUs the local Ray may use; default: all.")
@runs_option
@json_option
def extend(
    sweep_id: str,
    overrides: tuple[str, ...],
    address: str | None,
    num_cpus: int | None,
    runs: Runs,
    as_json: bool,
) -> None:
    """Run more or longer trials in a sweep that has ended; what is done is not done again."""
    _go_on(sweep_id, overrides, (), address, num_cpus, runs, as_json)


def _go_on(
    sweep_id: str,
    overrides: tuple[str, ...],
    revive: tuple[str, ...],
    address: str | None,
    num_cpus: int | None,
    runs: Runs,
    as_json: bool,
) -> None:
    from orchestrator.cli.commands import conclude, execute

    config = recorded_config(sweep_id, overrides, runs)
    record = execute(config, sweep_id=sweep_id, address=address, num_cpus=num_cpus, revive=revive)
    conclude(config, record, as_json=as_json)


def recorded_config(sweep_id: str, overrides: tuple[str, ...], runs: Runs) -> RunConfig:
    """The configuration in a sweep's folder, with what is overridden now; the sweep stays where it was found.

    Raises:
        NotFoundError: There is no such sweep.
        ConfigError: A fault of the file or of an override, or one that names another place.
    """
    from orchestrator.config import dump, parse_config
    from orchestrator.errors import ConfigError, Fault

    found = _open(runs, sweep_id)
    found.refresh()
    source = f"{found.store.uri}/config.yaml"
    config = parse_config(found.store.read("config.yaml"), source=source)
    placed = runs.placed(config, found.record.folder)
    changed = parse_config(dump(placed), source=source, overrides=overrides)
    if changed.storage.uri != placed.storage.uri:
        raise ConfigError(
            [
                Fault(
                    key="storage.uri",
                    rule=f"{sweep_id} goes on where it was found, in {runs.uri}",
                    given=changed.storage.uri,
                    remedy="copy its folder there, and name the place with --runs",
                )
            ]
        )
    return changed


def _ask(runs: Runs, sweep_id: str, request: Request, *, as_json: bool) -> None:
    from orchestrator.sweep.journal import driver_text, leave_request

    found = _open(runs, sweep_id)
    found.refresh()
    driver = driver_text(found.store)
    if not driver:
        raise click.ClickException(
            f"{sweep_id} is {found.state}: no driver runs it, so there is nothing to {request}"
        )
    leave_request(found.store, request)
    emit(
        as_json,
        {"sweep_id": sweep_id, "request": request, "driver": driver},
        f"asked {driver} to {request} {sweep_id}; every running trial writes its checkpoint first",
    )


def _open(runs: Runs, sweep_id: str) -> SweepStatus:
    from orchestrator.sweep.watch import SweepStatus

    return SweepStatus(runs.sweep_store(sweep_id), runs=runs)


@app.command()
@optional_config_argument
@click.option(
    "--from", "sweep_id", metavar="SWEEP", required=True, help="The sweep whose curves are replayed."
)
@click.option("--slots", type=click.IntRange(1), default=1, show_default=True, help="Trials at once.")
@runs_option
@json_option
def simulate(
    file: str | None, overrides: tuple[str, ...], sweep_id: str, slots: int, runs: Runs, as_json: bool
) -> None:
    """Replay the recorded curves of a sweep under the scheduler, health rules and budget of FILE, in seconds.

    Without FILE, under those of the sweep itself, with what --set changes.
    """
    from orchestrator.config import load_config, parse_config
    from orchestrator.sweep.foresight import replay_sweep

    found = _open(runs, sweep_id)
    found.refresh()
    if file is None:
        source = f"{found.store.uri}/journal"
        config = parse_config(found.record.config_text, source=source, overrides=overrides)
    else:
        config = load_config(file, overrides)
    result = replay_sweep(config, found.record, num_slots=slots)
    emit(as_json, result.to_json(), result.text())
