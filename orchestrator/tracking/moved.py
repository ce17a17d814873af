"""An SQLite store that was copied or moved with its folder: its artifacts are beside it, not where they were.

MLflow keeps absolute addresses of artifacts. In a copy they lead into the original, which would then be written to.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.tracking.location import TrackingLocation

logger = logging.getLogger(__name__)

_ARTIFACTS = "/mlartifacts"
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_folder(place: TrackingLocation) -> None:
    """Let the addresses of a copied or moved store's artifacts lead to its own folder.

    A folder elsewhere that was chosen for artifacts is left as it is: one that is there, with no store beside it.
    """
    database = place.database
    if database is None or place.artifact_root is None or not database.is_file():
        return
    try:
        with closing(sqlite3.connect(database, timeout=10.0)) as connection, connection:
            for root in _foreign_roots(connection, place.artifact_root):
                if _was_left(root):
                    _replace(connection, root, place.artifact_root)
                    logger.info(
                        "%s: artifacts of %s are now those of %s", database, root, place.artifact_root
                    )
    except sqlite3.Error as err:  # MLflow opens it next and tells what is wrong with it
        logger.info("%s: cannot look for moved artifacts (%s)", database, err)


def _foreign_roots(connection: sqlite3.Connection, own: str) -> set[str]:
    rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
    locations = {str(location) for (location,) in rows if location is not None}
    return {
        f"{before}{_ARTIFACTS}"
        for location in locations
        for before, found, _ in [location.rpartition(f"{_ARTIFACTS}/")]
        if found and location.startswith("file:") and f"{before}{_ARTIFACTS}" != own
    }


def _was_left(root: str) -> bool:
    """Whether a folder of artifacts is gone, or belongs to the store that this one is a copy of."""
    folder = Path(unquote(urlsplit(root).path))
    return not folder.is_dir() or (folder.parent / "mlflow.db").exists()


def _replace(connection: sqlite3.Connection, old: str, new: str) -> None:
    there = {(table, column) for table, column in _COLUMNS if column in _columns(connection, table)}
    for table, column in sorted(there):
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
            (new, len(old) + 1, len(old) + 1, f"{old}/"),
        )


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")}
