"""What is said at the end of a sweep of which MLflow has not taken everything, and `deliver`, which sends the rest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import emit, json_option, runs_option, set_option

if TYPE_CHECKING:
    from orchestrator.config import RunConfig
    from orchestrator.sweep.journal import Runs
    from orchestrator.tracking import Delivery


def undelivered_text(delivery: Delivery, sweep_id: str, runs: Runs) -> str:
    """How many calls wait, where, why and the command that sends them; empty when none waits and none was refused."""
    lines = []
    if delivery.pending:
        calls = "1 call waits" if delivery.pending == 1 else f"{delivery.pending} calls wait"
        reached = "not everything" if delivery.has_delivered else "nothing"
        why = f" ({delivery.problem})" if delivery.problem else ""
        lines.append(
            f"warning: {reached} of this sweep has reached MLflow{why}; {calls} in {delivery.folder}\n"
            f"send what waits with: {runs.command('deliver', sweep_id)}"
        )
    if delivery.refused:
        calls = "1 call" if delivery.refused == 1 else f"{delivery.refused} calls"
        lines.append(
            f"warning: MLflow has refused {calls} for good; see {delivery.folder / 'refused.jsonl'} for the reasons"
        )
    return "\n".join(lines)


def warn_undelivered(config: RunConfig, sweep_id: str) -> None:
    """Say on standard error what MLflow has not taken of a sweep that has ended."""
    from orchestrator.sweep.journal import Runs
    from orchestrator.sweep.run import delivery_of

    if text := undelivered_text(delivery_of(config, sweep_id), sweep_id, Runs.of(config.storage)):
        click.echo(text, err=True)


@app.command()
@click.argument("sweep_id", metavar="SWEEP")
@set_option("Override a dotted key of SWEEP, tracking.uri for one. May be given again.")
@click.option(
    "--wait-s", default=60, show_default=True, type=click.IntRange(1), help="How long to try, in seconds."
)
@runs_option
@json_option
def deliver(sweep_id: str, overrides: tuple[str, ...], wait_s: int, runs: Runs, as_json: bool) -> None:
    """Send to MLflow what an outage kept of SWEEP; exits with 5 when something still waits.

    Nothing is sent twice. `orchestrator report SWEEP` afterwards writes the page again, with its links to MLflow.
    """
    from orchestrator.config import dump, parse_config
    from orchestrator.errors import TrackingError
    from orchestrator.report import load_sweep
    from orchestrator.report.write import runs_root
    from orchestrator.tracking import read_delivery, spool_folder

    config, _, uri = load_sweep(runs, sweep_id)
    if overrides:
        config = parse_config(dump(config), source=f"{uri}/journal", overrides=overrides)
    folder = spool_folder(runs_root(uri), sweep_id)
    before = read_delivery(folder)
    if before.pending:
        _send(config, before, runs_root(uri), sweep_id, wait_s)
    after = read_delivery(folder)
    sent = before.pending - after.pending
    result = {"sweep_id": sweep_id, "sent": sent, "pending": after.pending, "refused": after.refused}
    emit(as_json, result, _said(sent, after, sweep_id))
    if rest := undelivered_text(after, sweep_id, runs):
        click.echo(rest, err=True)
    sys.exit(TrackingError.exit_code if after.pending else 0)


def _send(config: RunConfig, waiting: Delivery, root: str, sweep_id: str, wait_s: int) -> None:
    """Try for a limited time to deliver a spool.

    Raises:
        TrackingError: The store does not answer, or is not the one that has the calls before these.
    """
    from orchestrator.errors import TrackingError
    from orchestrator.tracking import check_location, find_location, find_tracker, open_tracker

    experiment, place = config.tracking.experiment or config.name, find_location(config.tracking, root)
    if problem := check_location(place):
        raise TrackingError(
            f"{problem}; {waiting.pending} calls still wait in {waiting.folder}; try again later"
        )
    if waiting.has_delivered and find_tracker(config.tracking, root, experiment, sweep_id) is None:
        raise TrackingError(
            f"{place.uri} does not know {sweep_id}, whose first calls went to another store; give that one's address "
            "with --set tracking.uri=..."
        )
    tracker = open_tracker(config.tracking, root, experiment, waiting.folder, headline=config.sweep.metric)
    click.echo(f"sending {waiting.pending} calls, for at most {wait_s} s", err=True)
    tracker.close(wait_s)


def _said(sent: int, after: Delivery, sweep_id: str) -> str:
    if not sent and not after.pending:
        return f"nothing of {sweep_id} waits for MLflow"
    return f"sent {sent} calls of {sweep_id} to MLflow; {after.pending} wait"
