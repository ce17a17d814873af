"""Whether a tracking store will take what a sweep sends, found out in seconds and without a trace.

`doctor` and the start of every command that trains ask `check_place`, and each opening of a database goes through
`check_database`, since MLflow itself tries a hopeless one for minutes. A new SQLite file is not made, a server is
asked to refuse a run: nothing is left behind. MLflow is imported only where there is something to open.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestrator.errors import TrackingError
from orchestrator.tracking.base import UnavailableError, UnusableError
from orchestrator.tracking.faults import CREDENTIALS, NO_SERVER, as_ours
from orchestrator.tracking.places import TrackingPlace

_ANSWER_S = 5.0
_LIMIT_S = 15.0
_LOCK_S = 3.0
_OLDEST_SERVER = (2, 4)
"""The first with data sets on runs."""
_COMES_BACK = frozenset({408, 425, 429})
_REFUSED = frozenset({401, 403, 407})


def check_place(place: TrackingPlace) -> str:
    """Why a store does not answer now; empty when it does, and for an SQLite file that is yet to be made.

    Raises:
        TrackingError: Waiting will not help: an address, an account, a driver, a folder or a version is wrong.
    """
    try:
        if place.remote:
            _within(_LIMIT_S, place, lambda: _check_server(place))
            return ""
        check_database(place)
        if place.database is None or place.database.exists():
            from orchestrator.tracking import mlflow  # it takes seconds to import

            _within(_LIMIT_S, place, lambda: mlflow.check_reachable(place))
    except UnusableError:
        raise
    except UnavailableError as error:
        return str(error)
    return ""


def check_database(place: TrackingPlace) -> None:
    """Whether the database of a place can be opened and written; does nothing where a server stands before it.

    Raises:
        TrackingError: It cannot; the kind says whether it may come back.
    """
    if place.remote:
        return
    try:
        if place.database is None:
            _connect(place.uri)
        else:
            _try_folder(place.database.parent)
            _try_file(place.database)
    except TrackingError:
        raise
    except Exception as error:
        raise as_ours(place.uri, error) from error


def _try_folder(folder: Path) -> None:
    """Write a nameless file where the database and its journal will lie, or into the nearest folder above."""
    while not folder.exists() and not folder.is_symlink():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder.resolve(strict=True)) as file:
            file.write(b"probe")
    except FileNotFoundError as error:  # a broken link, or a folder of a kind in which nothing can be made
        raise UnusableError(
            f"{folder}: nothing can be written here; set tracking.uri to another place"
        ) from error


def _try_file(database: Path) -> None:
    if not database.exists():
        if database.is_symlink():
            raise UnusableError(f"{database}: a link to a file that is not there; remove it or mend it")
        return
    if not database.is_file():
        raise UnusableError(f"{database}: must be a file, and is a folder; set tracking.uri to another place")
    with closing(sqlite3.connect(database, timeout=_LOCK_S, isolation_level=None)) as connection:
        connection.execute("PRAGMA schema_version").fetchone()  # reads the header
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _connect(uri: str) -> None:
    """Log in to a database by its driver."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _check_server(place: TrackingPlace) -> None:
    """Read, and have a run refused that no experiment can hold: the answer tells who may write."""
    from orchestrator.tracking import mlflow

    if not place.uri.startswith(("http://", "https://")):
        mlflow.check_reachable(place)
        return
    version = mlflow.ask_server(place, "GET", "/version", timeout_s=_ANSWER_S)
    check_readable(place)
    body = {"experiment_id": "orchestrator-doctor"}
    written = mlflow.ask_server(place, "POST", "/api/2.0/mlflow/runs/create", timeout_s=_ANSWER_S, json=body)
    if written.status_code not in (400, 404):  # it must refuse this, but as a server that would take a run
        judge_answer(place.uri, "writing", written)
    _judge_version(place.uri, version)


def check_readable(place: TrackingPlace) -> None:
    """Have a server list an experiment, for the status of its answer, which MLflow's own errors may lack.

    Raises:
        TrackingError: It does not; the kind says whether it may later.
    """
    from orchestrator.tracking import mlflow

    answer = mlflow.ask_server(
        place, "GET", "/api/2.0/mlflow/experiments/search", timeout_s=_ANSWER_S, params={"max_results": 1}
    )
    judge_answer(place.uri, "reading", answer)


def judge_answer(uri: str, what: str, answer: Any) -> None:
    """Tell an MLflow server's answer (`requests.Response`) from one that will never do.

    Raises:
        TrackingError: It will not do; `UnavailableError` alone where it may later.
    """
    status = answer.status_code
    said = " ".join(answer.text.split())[:120]
    if status in _REFUSED:
        raise UnusableError(f"{uri} refuses {what} to this account (HTTP {status}); {CREDENTIALS}")
    if status >= 500 or status in _COMES_BACK:
        raise UnavailableError(f"{uri} cannot serve now (HTTP {status}: {said})")
    if status != 200:
        raise UnusableError(f"{uri} answers HTTP {status} to {what} ({said}): {NO_SERVER}")
    if not answer.text.lstrip().startswith("{"):
        raise UnusableError(f"{uri} answers with a page or text and no data ({said}): {NO_SERVER}")


def _judge_version(uri: str, answer: Any) -> None:
    found = re.match(r"(\d+)\.(\d+)", answer.text.strip()) if answer.status_code == 200 else None
    if found is not None and (int(found[1]), int(found[2])) < _OLDEST_SERVER:
        oldest = ".".join(map(str, _OLDEST_SERVER))
        raise UnusableError(
            f"{uri} is MLflow {answer.text.strip()[:20]}, which is too old; update it to {oldest} or newer"
        )


def _within(limit_s: float, place: TrackingPlace, action: Callable[[], None]) -> None:
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
