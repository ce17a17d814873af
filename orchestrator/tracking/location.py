"""Where a sweep's MLflow store, artifacts and web page are: URIs and command lines, computed without MLflow.

An SQLite file beside the runs is the default, read and written without a server. Artifacts then lie in a
folder beside it; a remote server keeps its own. SQLAlchemy, which opens the file for MLflow, decodes `%` in an
address and ends it at `?`: `sqlite_uri` and `sqlite_path` are the two ways between a path and an address, and
nothing else takes one apart. Called by the tracker, `orchestrator ui` and `orchestrator doctor`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from orchestrator.config.models import TrackingConfig
from orchestrator.errors import TrackingError

DEFAULT_UI_PORT = 5000
_LOCAL_RUNS = Path("runs")
_SQLITE = "sqlite:///"
_SERVERS = ("http://", "https://", "databricks", "uc")

ENVIRONMENT: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Quiet, private and quick to give up: the spool retries, so a call need not."""


@dataclass(frozen=True, kw_only=True)
class TrackingLocation:
    """A tracking URI, and the artifact root of new experiments (None leaves it to the server)."""

    uri: str
    artifact_root: str | None

    @property
    def remote(self) -> bool:
        """Whether a server answers, in place of a database opened by this process."""
        return self.uri.startswith(_SERVERS)

    @property
    def database(self) -> Path | None:
        """The SQLite file; None for a server."""
        return sqlite_path(self.uri)

    def artifact_location(self, experiment: str) -> str | None:
        """Where a new experiment keeps its artifacts."""
        return None if self.artifact_root is None else f"{self.artifact_root}/{quote(experiment, safe='')}"


def find_location(config: TrackingConfig, runs_uri: str) -> TrackingLocation:
    """The tracking store of a configuration.

    A folder as tracking URI means an SQLite file in it. Runs in a bucket keep their default store in the
    local folder `runs`, as SQLite needs a file system.

    Raises:
        TrackingError: The folder's name cannot be written as an address.
    """
    runs = _local_path(runs_uri)
    if config.uri is None:
        return _sqlite_location((runs or _LOCAL_RUNS).resolve() / "mlflow.db")
    folder = _local_path(config.uri)
    if folder is not None:
        return _sqlite_location(folder.resolve() / "mlflow.db")
    uri = _lower_scheme(config.uri)
    database = sqlite_path(uri)
    if database is not None:
        return _sqlite_location(database.resolve())
    if uri.startswith(_SERVERS):
        return TrackingLocation(uri=uri.rstrip("/"), artifact_root=None)
    root = runs_uri.rstrip("/") if runs is None else runs.resolve().as_uri()
    return TrackingLocation(uri=uri, artifact_root=f"{root}/mlartifacts")


def spool_folder(runs_uri: str, sweep_id: str) -> Path:
    """Where the calls of a sweep wait for MLflow: beside local runs; in the local folder `runs` for a bucket's."""
    runs = _local_path(runs_uri)
    return (runs or _LOCAL_RUNS).expanduser().resolve() / ".spool" / sweep_id


def sqlite_uri(database: Path) -> str:
    """The address of an SQLite file as SQLAlchemy reads it.

    Raises:
        TrackingError: The path holds bytes that are not UTF-8.
    """
    path = str(database)
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise TrackingError(
            f"{shown}: MLflow's database cannot lie here, as the name holds bytes that are not UTF-8; rename the "
            "folder, or set tracking.uri to another one"
        ) from None
    for character in "%?#":
        path = path.replace(character, quote(character))
    return f"{_SQLITE}{path}"


def opened_uri(uri: str) -> str:
    """An address as MLflow is given it.

    MLflow makes the folder of an address that starts with `sqlite:///` without decoding it, so that one with an
    encoded letter would leave an empty folder of a wrong name. Under the driver's full name it leaves that to us.
    """
    return uri.replace(_SQLITE, "sqlite+pysqlite:///", 1) if uri.startswith(_SQLITE) and "%" in uri else uri


def sqlite_path(uri: str) -> Path | None:
    """The file behind an SQLite address; None for any other address."""
    return Path(unquote(uri.removeprefix(_SQLITE))) if uri.startswith(_SQLITE) else None


def _sqlite_location(database: Path) -> TrackingLocation:
    root = (database.parent / "mlartifacts").as_uri()
    return TrackingLocation(uri=sqlite_uri(database), artifact_root=root)


def _lower_scheme(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme.lower()}{separator}{rest}" if separator else uri


def _local_path(uri: str) -> Path | None:
    if uri.lower().startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri or uri in ("databricks", "uc") else Path(uri)


def ui_command(tracking_uri: str, *, port: int = DEFAULT_UI_PORT) -> list[str]:
    """The command line of an MLflow web page over a database, on the loopback address alone.

    Run it with `ui_environment()` in its own process group. A remote store has a page of its own.

    Raises:
        ValueError: The store is remote.
    """
    if TrackingLocation(uri=tracking_uri, artifact_root=None).remote:
        raise ValueError(f"{tracking_uri} is a server; open it in a browser")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", opened_uri(tracking_uri)]
    database = sqlite_path(tracking_uri)
    if database is not None:
        root = (database.parent / "mlartifacts").as_uri()
        command += ["--default-artifact-root", root, "--no-serve-artifacts"]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


def ui_environment() -> dict[str, str]:
    """This process's environment with telemetry and MLflow's job runner off.

    The job runner costs eight processes, 1.8 GB and 25 s of start, runs nothing that a sweep needs, and has
    a history of remote execution faults.
    """
    quiet = {"PYTHONWARNINGS": "ignore"}  # of MLflow's own dependencies; they say nothing to its user
    return {**os.environ, **ENVIRONMENT, **quiet, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def ui_url(tracking_uri: str, *, port: int = DEFAULT_UI_PORT) -> str:
    """The page to open in a browser."""
    remote = TrackingLocation(uri=tracking_uri, artifact_root=None).remote
    return tracking_uri.rstrip("/") if remote else f"http://127.0.0.1:{port}"
