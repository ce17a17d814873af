"""The tracker protocol: what a sweep tells the place that keeps its runs.

Owns the types and the rules every tracker keeps: a call may be repeated without effect, a metric is keyed by
(trial, step, name) and its first value stands, parameters are written once. Leaves out how a store is reached
(`mlflow`), how an outage is bridged (`spool`) and what the numbers mean. Called by the sweep's driver alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from orchestrator.config.uris import mask_secrets
from orchestrator.errors import TrackingError
from orchestrator.protocol.point import middle_of
from orchestrator.protocol.reports import Row

ParameterValue = Any
"""A scalar, a string, None, or a sequence of scalars."""


NOTE_TAG = "mlflow.note.content"
"""The tag whose text MLflow shows, as Markdown, on the page of a run or an experiment."""

_TRAINING_VIEW = "?workflowType=machine_learning"  # MLflow's page starts with its view for language models


class RunStatus(StrEnum):
    """How a run stands; the values are MLflow's."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def terminal(self) -> bool:
        """Whether the run has ended."""
        return self is not RunStatus.RUNNING


class UnavailableError(TrackingError):
    """The tracking store cannot be reached now; the same call may succeed later."""


class UnusableError(UnavailableError):
    """The tracking store takes nothing until somebody changes something: an address, credentials, a driver, a folder.

    What is sent meanwhile is kept, as for every store that is away; a check before the start refuses it.
    """


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The images that a run was trained on: where they are, a digest of their content, and what is known of them."""

    name: str
    uri: str
    digest: str
    profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where a sweep can be looked at.

    Ids are empty until the store has answered. `ui_command` is None for a remote server. `pending` counts
    calls that are spooled and not delivered, `problem` says why the last of them could not be; empty while all is well.
    """

    tracking_uri: str
    experiment: str
    sweep_id: str = ""
    experiment_id: str = ""
    sweep_run_id: str = ""
    trial_run_ids: Mapping[str, str] = field(default_factory=dict)
    base_url: str = ""
    ui_command: tuple[str, ...] | None = None
    pending: int = 0
    problem: str = ""

    @property
    def has_runs(self) -> bool:
        """Whether the store is known to have anything of the sweep."""
        return bool(self.sweep_run_id or self.trial_run_ids)

    @property
    def experiment_url(self) -> str:
        """The experiment's page, or an empty string while it is unknown."""
        return f"{self._experiment_path}{_TRAINING_VIEW}" if self.experiment_id else ""

    @property
    def trials_url(self) -> str:
        """The list of this sweep's trials, best first; an empty string while it is unknown."""
        if not self.experiment_id:
            return ""
        return f"{self._experiment_path}/runs{_TRAINING_VIEW}&viewStateShareKey={quote(self.sweep_id)}"

    @property
    def charts_url(self) -> str:
        """The same trials as charts: accuracy over images, over device hours and over the varied axes."""
        return f"{self.trials_url}&compareRunsMode=CHART" if self.trials_url else ""

    def run_url(self, trial_id: str | None = None) -> str:
        """A trial's page, or the sweep's; an empty string while it is unknown."""
        run_id = self.sweep_run_id if trial_id is None else self.trial_run_ids.get(trial_id, "")
        return f"{self._experiment_path}/runs/{run_id}" if run_id and self.experiment_id else ""

    @property
    def compare_url(self) -> str:
        """The page that compares all trials, or an empty string while there are fewer than two."""
        if len(self.trial_run_ids) < 2 or not self.experiment_id:
            return ""
        runs = json.dumps(list(self.trial_run_ids.values()), separators=(",", ":"))
        experiments = json.dumps([self.experiment_id], separators=(",", ":"))
        return f"{self.base_url}/#/compare-runs?runs={quote(runs)}&experiments={quote(experiments)}"

    @property
    def _experiment_path(self) -> str:
        return f"{self.base_url}/#/experiments/{self.experiment_id}"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of the calls of a sweep: how many wait in `folder` and why, how many were refused for good."""

    folder: Path
    pending: int
    refused: int
    has_delivered: bool
    problem: str = ""


class Tracker(Protocol):
    """One sweep and its trials; `trial_id` None means the sweep itself.

    `time_ms` is when it happened, for calls that are delivered later; None is now. Metrics, tags and
    artifacts of a trial need `start_trial` before them, by this process or an earlier one.
    """

    def start_sweep(
        self,
        sweep_id: str,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        *,
        time_ms: int | None = None,
    ) -> None:
        """Open the sweep's run, or find the one an earlier process opened."""
        ...

    def start_trial(
        self,
        trial_id: str,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        *,
        time_ms: int | None = None,
    ) -> None:
        """Open a trial's run under the sweep's, or find it; it is running afterwards."""
        ...

    def log_rows(self, trial_id: str | None, rows: Sequence[Row]) -> None:
        """Record metrics; images are their steps, and a (trial, step, name) that is known is passed over."""
        ...

    def log_artifact(self, trial_id: str | None, path: str, data: bytes) -> None:
        """Store a file under a relative path; the newest content stands."""
        ...

    def set_tags(self, trial_id: str | None, tags: Mapping[str, str]) -> None:
        """Set tags; the newest value stands."""
        ...

    def log_dataset(self, trial_id: str | None, dataset: Dataset) -> None:
        """Record what a run was trained on; the same content again has no effect."""
        ...

    def register_model(self, trial_id: str, name: str, folder: str, tags: Mapping[str, str]) -> None:
        """Register what was logged under `folder` of a trial as a version of a named model, once.

        The folder holds an encoder as `tracking.encoder_model` writes it.
        """
        ...

    def finish_trial(self, trial_id: str, status: RunStatus, *, time_ms: int | None = None) -> None:
        """Close a trial's run."""
        ...

    def finish_sweep(self, status: RunStatus, *, time_ms: int | None = None) -> None:
        """Close the sweep's run."""
        ...

    def links(self) -> Links:
        """Where to look."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is delivered; returns whether it is."""
        ...

    def close(self, timeout_s: float = 30.0) -> None:
        """Deliver what can be delivered in time and let go; what is left is kept for the next start."""
        ...


def parameter_text(value: ParameterValue) -> str:
    """A parameter as one would write it in YAML, with credentials masked."""
    if isinstance(value, str):
        return mask_secrets(value)
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.12g}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(parameter_text(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return mask_secrets(str(value))


def expand_params(params: Mapping[str, ParameterValue]) -> dict[str, str]:
    """Parameters as text under their dotted names, pairs of numbers with their middle beside them.

    `masks.target_scale: (0.15, 0.2)` also gives `masks.target_scale.mid`, since plots over parameters take
    numbers only: one number an axis, as MLflow's contour plot starts with the first two numeric parameters it
    finds (`protocol.point.middle_of` says which middle).
    """
    expanded: dict[str, str] = {}
    for key, value in params.items():
        expanded[key] = parameter_text(value)
        middle = middle_of(key, value)
        if middle is not None and isinstance(value, (tuple, list)):
            expanded[f"{key}.mid"] = f"{middle:.6g}"
    return expanded
