"""Where a sweep's MLflow store, artifacts and web page are: URIs and command lines, computed without MLflow.

An SQLite file beside the runs is the default, read and written without a server. Artifacts then lie in a
folder beside it; a remote server keeps its own. Called by the tracker, `orchestrator ui` and `orchestrator
doctor`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from orchestrator.config.models import TrackingConfig

DEFAULT_UI_PORT = 5000
_LOCAL_RUNS = Path("runs")

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
class TrackingPlace:
    """A tracking URI, and the artifact root of new experiments (None leaves it to the server)."""

    uri: str
    artifact_root: str | None

    @property
    def remote(self) -> bool:
        """Whether a server answers, in place of a database opened by this process."""
        return self.uri.startswith(("http://", "https://", "databricks", "uc"))

    def artifact_location(self, experiment: str) -> str | None:
        """Where a new experiment keeps its artifacts."""
        return None if self.artifact_root is None else f"{self.artifact_root}/{quote(experiment, safe='')}"


def find_place(config: TrackingConfig, runs_uri: str) -> TrackingPlace:
    """The tracking store of a configuration.

    A folder as tracking URI means an SQLite file in it. Runs in a bucket keep their default store in the
    local folder `runs`, as SQLite needs a file system.
    """
    runs = _local_path(runs_uri)
    if config.uri is None:
        return _sqlite_place((runs or _LOCAL_RUNS).resolve() / "mlflow.db")
    folder = _local_path(config.uri)
    if folder is not None:
        return _sqlite_place(folder.resolve() / "mlflow.db")
    if config.uri.startswith("sqlite:///"):
        return _sqlite_place(Path(config.uri.removeprefix("sqlite:///")).resolve())
    if config.uri.startswith(("http://", "https://", "databricks", "uc")):
        return TrackingPlace(uri=config.uri.rstrip("/"), artifact_root=None)
    root = runs_uri.rstrip("/") if runs is None else runs.resolve().as_uri()
    return TrackingPlace(uri=config.uri, artifact_root=f"{root}/mlartifacts")


def _sqlite_place(database: Path) -> TrackingPlace:
    root = (database.parent / "mlartifacts").as_uri()
    return TrackingPlace(uri=f"sqlite:///{database}", artifact_root=root)


def _local_path(uri: str) -> Path | None:
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri or uri in ("databricks", "uc") else Path(uri)


def ui_command(tracking_uri: str, *, port: int = DEFAULT_UI_PORT) -> list[str]:
    """The command line of an MLflow web page over a database, on the loopback address alone.

    Run it with `ui_environment()` in its own process group. A remote store has a page of its own.

    Raises:
        ValueError: The store is remote.
    """
    if TrackingPlace(uri=tracking_uri, artifact_root=None).remote:
        raise ValueError(f"{tracking_uri} is a server; open it in a browser")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
    if tracking_uri.startswith("sqlite:///"):
        folder = Path(tracking_uri.removeprefix("sqlite:///")).parent
        command += ["--default-artifact-root", (folder / "mlartifacts").as_uri(), "--no-serve-artifacts"]
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
    remote = TrackingPlace(uri=tracking_uri, artifact_root=None).remote
    return tracking_uri.rstrip("/") if remote else f"http://127.0.0.1:{port}"
