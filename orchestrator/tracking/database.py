"""Whether the database of a tracking store can be opened and written, found out before MLflow tries it for minutes."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from orchestrator.errors import TrackingError
from orchestrator.tracking.base import UnusableError
from orchestrator.tracking.faults import as_ours
from orchestrator.tracking.location import TrackingLocation

_LOCK_S = 3.0


def check_database(place: TrackingLocation) -> None:
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
