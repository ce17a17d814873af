"""Whether a tracking store will take what a sweep sends, found out in seconds and without a trace.

`doctor` and the start of every command that trains ask `check_location`. A new SQLite file is not made, a server is
asked to refuse a run: nothing is left behind. MLflow is imported only where there is something to open.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

from orchestrator.errors import TrackingError
from orchestrator.tracking.base import UnavailableError, UnusableError
from orchestrator.tracking.client import (
    ask_server,
    check_reachable,
    check_readable,
    judge_answer,
    load_mlflow,
)
from orchestrator.tracking.database import check_database
from orchestrator.tracking.faults import as_ours
from orchestrator.tracking.location import TrackingLocation

_LIMIT_S = 15.0
_OLDEST_SERVER = (2, 4)
"""The first with data sets on runs."""


def check_location(place: TrackingLocation) -> str:
    """Why a store does not answer now; empty when it does, and for an SQLite file that is yet to be made.

    Raises:
        TrackingError: Waiting will not help: an address, an account, a driver, a folder or a version is wrong.
    """
    try:
        if place.remote:
            load_mlflow()
            _within(_LIMIT_S, place, lambda: _check_server(place))
            return ""
        check_database(place)
        if place.database is None or place.database.exists():
            load_mlflow()
            _within(_LIMIT_S, place, lambda: check_reachable(place))
    except UnusableError:
        raise
    except UnavailableError as error:
        return str(error)
    return ""


def _check_server(place: TrackingLocation) -> None:
    """Read, and have a run refused that no experiment can hold: the answer tells who may write."""
    if not place.uri.startswith(("http://", "https://")):
        check_reachable(place)
        return
    version = ask_server(place, "GET", "/version")
    check_readable(place)
    body = {"experiment_id": "orchestrator-doctor"}
    written = ask_server(place, "POST", "/api/2.0/mlflow/runs/create", json=body)
    if written.status_code not in (400, 404):  # it must refuse this, but as a server that would take a run
        judge_answer(place.uri, "writing", written)
    _judge_version(place.uri, version)


def _judge_version(uri: str, answer: Any) -> None:
    found = re.match(r"(\d+)\.(\d+)", answer.text.strip()) if answer.status_code == 200 else None
    if found is not None and (int(found[1]), int(found[2])) < _OLDEST_SERVER:
        oldest = ".".join(map(str, _OLDEST_SERVER))
        raise UnusableError(
            f"{uri} is MLflow {answer.text.strip()[:20]}, which is too old; update it to {oldest} or newer"
        )


def _within(limit_s: float, place: TrackingLocation, action: Callable[[], None]) -> None:
    """Run an action that may hang, for a limited time; a hanging one is left to its own thread."""
    caught: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as error:  # handed to the caller's thread
            caught.append(error)

    thread = threading.Thread(target=run, name="tracking-check", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise UnavailableError(f"{place.uri} cannot be reached: no answer within {limit_s:g} s")
    for error in caught:
        raise as_ours(place.uri, error) if not isinstance(error, TrackingError) else error
