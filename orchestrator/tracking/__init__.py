"""Room: where metrics, parameters and artifacts of a sweep go. See docs/architecture.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.models import TrackingConfig
from orchestrator.protocol.metrics import RANKING
from orchestrator.tracking.base import (
    NOTE_TAG,
    Dataset,
    Delivery,
    Links,
    RunStatus,
    Tracker,
    UnavailableError,
)
from orchestrator.tracking.checks import check_location
from orchestrator.tracking.client import check_reachable
from orchestrator.tracking.location import (
    TrackingLocation,
    find_location,
    spool_folder,
    ui_command,
    ui_environment,
    ui_url,
)
from orchestrator.tracking.memory import MemoryTracker
from orchestrator.tracking.spool import Destination, SpooledTracker, read_delivery

if TYPE_CHECKING:
    from orchestrator.tracking.mlflow import MlflowTracker

__all__ = [
    "NOTE_TAG",
    "Dataset",
    "Delivery",
    "Links",
    "MemoryTracker",
    "RunStatus",
    "SpooledTracker",
    "Tracker",
    "UnavailableError",
    "check_location",
    "check_reachable",
    "check_writable",
    "find_location",
    "find_origin",
    "find_tracker",
    "open_tracker",
    "read_delivery",
    "spool_folder",
    "ui_command",
    "ui_environment",
    "ui_url",
]


def open_tracker(
    config: TrackingConfig,
    runs_uri: str,
    experiment: str,
    spool_dir: Path,
    *,
    headline: str | None = RANKING,
) -> SpooledTracker:
    """The tracker of a sweep: MLflow behind a spool on local disk.

    Returns at once; MLflow is imported and its store opened by the delivering thread. What an earlier
    process left in `spool_dir` is delivered first. `headline` is the ranking metric, recorded once more
    as `accuracy` so that MLflow's plots start with it.

    Raises:
        TrackingError: Another process is delivering this spool.
    """
    place = find_location(config, runs_uri)

    def make_destination() -> Destination:
        from orchestrator.tracking.mlflow import MlflowTracker

        return MlflowTracker(place, experiment, headline=headline)

    command = None if place.remote else tuple(ui_command(place.uri))
    links = Links(
        tracking_uri=place.uri, experiment=experiment, base_url=ui_url(place.uri), ui_command=command
    )
    return SpooledTracker(make_destination, spool_dir, links=links)


def find_tracker(
    config: TrackingConfig, runs_uri: str, experiment: str, sweep_id: str
) -> MlflowTracker | None:
    """The tracker of a sweep that ran before, without a spool; None when the store does not know it.

    Raises:
        TrackingError: The store refuses, or cannot be reached.
    """
    from orchestrator.tracking import mlflow  # it takes seconds to import

    return mlflow.MlflowTracker.find_sweep(find_location(config, runs_uri), experiment, sweep_id)


def find_origin(config: TrackingConfig, runs_uri: str, run_id: str) -> tuple[str, str | None] | None:
    """The sweep and the trial behind an MLflow run id; None when it is not one of ours.

    Raises:
        TrackingError: The store refuses, or cannot be reached.
    """
    from orchestrator.tracking import mlflow

    return mlflow.find_origin(find_location(config, runs_uri), run_id)


def check_writable(place: TrackingLocation) -> None:
    """Make a run in the experiment `orchestrator-doctor` and delete it again.

    Raises:
        TrackingError: The store refuses it.
    """
    from orchestrator.tracking import mlflow

    mlflow.check_writable(place)
