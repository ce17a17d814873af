"""A tracker that writes each call straight to an MLflow store.

One parent run a sweep and one child a trial, never deeper. Runs are found by their tags before they are made, so that a
restart goes on with its own. Uses MLflow's client alone (`client` opens it), never its process-wide active run. Calls
block; `spool` puts them behind a queue. MLflow takes about a second to import, so it is imported where it is used.
"""

from __future__ import annotations

import logging
import math
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.errors import TrackingError
from orchestrator.protocol.metrics import HEADLINE
from orchestrator.protocol.reports import Row
from orchestrator.tracking.base import (
    NOTE_TAG,
    Dataset,
    Links,
    ParameterValue,
    RunStatus,
    expand_params,
)
from orchestrator.tracking.client import door, open_client
from orchestrator.tracking.location import TrackingLocation, ui_command, ui_url
from orchestrator.tracking.mlflow_entities import log_dataset, register_encoder
from orchestrator.tracking.views import shared_view, shared_view_tag

logger = logging.getLogger(__name__)

SWEEP_TAG = "orchestrator.sweep_id"
TRIAL_TAG = "orchestrator.trial_id"
KIND_TAG = "orchestrator.kind"
NOT_FINITE_TAG = "orchestrator.not_finite"
_PARENT_TAG = "mlflow.parentRunId"
_METRICS_PER_BATCH, _PARAMS_PER_BATCH = 1000, 100
_TAG_CHARACTERS, _PARAM_CHARACTERS = 5000, 6000
_REFUSED_CHARACTERS = re.compile(r"[^\w./\- :]")
EXPERIMENT_NOTE = """Mask sweeps of I-JEPA: one parent run a sweep, one child a trial (a geometry under one
seed).

Filter by tag `orchestrator.kind = 'trial'`, select the runs and press **Compare**, or follow the links in the
note of a sweep's run. Steps are images seen; `cost/device_hours` is what the run had cost by then.
`accuracy` is the sweep's ranking metric again, so that plots start with it; read it beside
`baseline/untrained/*` and `baseline/pixels/*`. `masks.target_scale.mid` is the middle of the pair
`masks.target_scale`. Parameters of a trial are what the sweep varied; the rest is on the parent. Which
differences are more than noise is said in the parent's `report/`.
"""


class MlflowTracker:
    """Writes a sweep to an MLflow tracking store, one blocking call at a time."""

    def __init__(self, place: TrackingLocation, experiment: str, *, headline: str | None = None) -> None:
        self._place, self._experiment, self._headline = place, experiment, headline
        self._sweep_id = ""
        self._client: Any = None
        self._experiment_id = ""
        self._run_ids: dict[str | None, str] = {}
        self._params: dict[str | None, dict[str, str]] = {}
        self._steps: dict[str | None, dict[str, set[int]]] = {}
        self._view_shared = False
        self._unread: set[tuple[str | None, str]] = set()
        self._not_finite: dict[str | None, dict[str, str]] = {}

    @classmethod
    def find_sweep(cls, place: TrackingLocation, experiment: str, sweep_id: str) -> MlflowTracker | None:
        """The tracker of a sweep that the store knows; None when it does not, and nothing is made.

        Raises:
            TrackingError: The store refuses, or cannot be reached.
        """
        if place.database is not None and not place.database.exists():
            return None
        tracker = cls(place, experiment)
        with door(place.uri):
            client = open_client(place)
            found = client.get_experiment_by_name(experiment)
            if found is None or found.lifecycle_stage == "deleted":
                return None
            tracker._client, tracker._experiment_id = client, str(found.experiment_id)
        tracker.select_sweep(sweep_id)
        return tracker if None in tracker._run_ids else None

    def select_sweep(self, sweep_id: str) -> None:
        """Go on with a sweep that was started before, without touching it."""
        with door(self._place.uri):
            self._open()
            if sweep_id != self._sweep_id:
                self._sweep_id = sweep_id
                self._find_runs()

    def start_sweep(
        self,
        sweep_id: str,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        *,
        time_ms: int | None = None,
    ) -> None:
        """Open the sweep's run, or find it."""
        self.select_sweep(sweep_id)
        with door(self._place.uri):
            self._start(None, name, params, {KIND_TAG: "sweep", **tags}, time_ms)

    def start_trial(
        self,
        trial_id: str,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        *,
        time_ms: int | None = None,
    ) -> None:
        """Open a trial's run under the sweep's, or find it."""
        own = {KIND_TAG: "trial", TRIAL_TAG: trial_id, _PARENT_TAG: self._run_id(None)}
        with door(self._place.uri):
            self._start(trial_id, name, params, {**own, **tags}, time_ms)

    def log_rows(self, trial_id: str | None, rows: Sequence[Row]) -> None:
        """Record metrics in batches; a (step, name) that the run has is passed over.

        MLflow itself takes the same step twice when the timestamps differ, so the known steps of a run that
        an earlier process wrote are read once. It keeps infinity as the largest float, which would bend
        every plot: infinity is sent as NaN and named in a tag.
        """
        run_id = self._run_id(trial_id)
        with door(self._place.uri):
            metrics = self._fresh_metrics(trial_id, rows)
            for start in range(0, len(metrics), _METRICS_PER_BATCH):
                batch = metrics[start : start + _METRICS_PER_BATCH]
                self._client.log_batch(run_id, metrics=batch, synchronous=True)
                for metric in batch:
                    self._steps[trial_id][metric.key].add(metric.step)
        self._note_not_finite(trial_id, rows)

    def log_artifact(self, trial_id: str | None, path: str, data: bytes) -> None:
        """Store a file under a relative path of the run."""
        run_id, place = self._run_id(trial_id), PurePosixPath(path)
        if place.is_absolute() or ".." in place.parts or not place.name:
            raise TrackingError(f"artifact path {path!r} must be relative, without `..`")
        folder = None if place.parent == PurePosixPath(".") else str(place.parent)
        with tempfile.TemporaryDirectory() as directory, door(self._place.uri):
            local = Path(directory) / place.name
            local.write_bytes(data)
            self._client.log_artifact(run_id, str(local), folder)

    def set_tags(self, trial_id: str | None, tags: Mapping[str, str]) -> None:
        """Set tags; values over 5000 characters are cut."""
        from mlflow.entities import RunTag

        run_id = self._run_id(trial_id)
        entities = [RunTag(key, _cut(value, _TAG_CHARACTERS)) for key, value in tags.items()]
        with door(self._place.uri):
            for start in range(0, len(entities), _PARAMS_PER_BATCH):
                batch = entities[start : start + _PARAMS_PER_BATCH]
                self._client.log_batch(run_id, tags=batch, synchronous=True)

    def log_dataset(self, trial_id: str | None, dataset: Dataset) -> None:
        """Record the images as an MLflow data set, which is found by name and digest."""
        run_id = self._run_id(trial_id)
        with door(self._place.uri):
            log_dataset(self._client, run_id, dataset)

    def register_model(self, trial_id: str, name: str, folder: str, tags: Mapping[str, str]) -> None:
        """Register the encoder logged under a folder of a trial's run as a version of a model, once."""
        run_id = self._run_id(trial_id)
        with door(self._place.uri):
            register_encoder(self._client, run_id, name, folder, tags)

    def finish_trial(self, trial_id: str, status: RunStatus, *, time_ms: int | None = None) -> None:
        """Close a trial's run."""
        run_id = self._run_id(trial_id)
        with door(self._place.uri):
            self._client.set_terminated(run_id, str(status), time_ms or _now_ms())

    def finish_sweep(self, status: RunStatus, *, time_ms: int | None = None) -> None:
        """Close the sweep's run."""
        run_id = self._run_id(None)
        with door(self._place.uri):
            self._client.set_terminated(run_id, str(status), time_ms or _now_ms())

    def links(self) -> Links:
        """Ids, pages and the command that opens them."""
        command = None if self._place.remote else tuple(ui_command(self._place.uri))
        return Links(
            tracking_uri=self._place.uri,
            experiment=self._experiment,
            sweep_id=self._sweep_id,
            experiment_id=self._experiment_id,
            sweep_run_id=self._run_ids.get(None, ""),
            trial_run_ids={key: value for key, value in self._run_ids.items() if key is not None},
            base_url=ui_url(self._place.uri),
            ui_command=command,
        )

    def flush(self, timeout_s: float) -> bool:
        """Nothing is ever pending."""
        return True

    def close(self, timeout_s: float = 30.0) -> None:
        """Nothing to let go."""

    def reachable(self) -> bool:
        """Whether the store answers at all."""
        try:
            with door(self._place.uri):
                self._open()
                self._client.get_experiment(self._experiment_id)
        except TrackingError:
            return False
        return True

    def _open(self) -> None:
        """Connect, and find or make the experiment; a new SQLite file takes about two seconds."""
        if self._client is None:
            client = open_client(self._place)
            self._experiment_id = _find_experiment(client, self._experiment, self._place)
            self._client = client

    def _find_runs(self) -> None:
        self._run_ids, self._params, self._steps, self._not_finite = {}, {}, {}, {}
        self._view_shared = False
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                filter_string=f"tags.`{SWEEP_TAG}` = '{self._sweep_id}'",
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for run in page:
                key = run.data.tags.get(TRIAL_TAG)
                if key not in self._run_ids:
                    self._run_ids[key] = run.info.run_id
                    self._params[key] = dict(run.data.params)
                    self._steps[key] = {name: set() for name in run.data.metrics}
                    self._unread.update((key, name) for name in run.data.metrics)
            token = page.token
            if not token:
                return

    def _start(
        self,
        key: str | None,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        time_ms: int | None,
    ) -> None:
        own = {SWEEP_TAG: self._sweep_id, "mlflow.source.name": "orchestrator", "mlflow.source.type": "LOCAL"}
        all_tags = {name: _cut(value, _TAG_CHARACTERS) for name, value in {**own, **tags}.items()}
        if key in self._run_ids:
            self._client.update_run(self._run_ids[key], status=str(RunStatus.RUNNING))
            self.set_tags(key, tags)
        else:
            run = self._client.create_run(
                self._experiment_id, start_time=time_ms or _now_ms(), tags=all_tags, run_name=name
            )
            self._run_ids[key], self._params[key], self._steps[key] = run.info.run_id, {}, {}
        texts = expand_params(params)
        self._log_params(key, texts)
        if key is not None and not self._view_shared:
            self._view_shared = True
            view = shared_view(self._sweep_id, texts)
            self._client.set_experiment_tag(self._experiment_id, shared_view_tag(self._sweep_id), view)

    def _log_params(self, key: str | None, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        known = self._params[key]
        fresh = {name: _cut(value, _PARAM_CHARACTERS) for name, value in params.items() if name not in known}
        changed = [
            f"{name} {known[name]} (now {value})"
            for name, value in params.items()
            if name in known and known[name] != _cut(value, _PARAM_CHARACTERS)
        ]
        if changed:
            what = "the sweep" if key is None else f"trial {key}"
            logger.warning(
                "MLflow keeps the parameters with which %s started: %s; the journal and the report have the new ones",
                what,
                ", ".join(changed),
            )
        entities = [Param(name, value) for name, value in fresh.items()]
        for start in range(0, len(entities), _PARAMS_PER_BATCH):
            batch = entities[start : start + _PARAMS_PER_BATCH]
            self._client.log_batch(self._run_ids[key], params=batch, synchronous=True)
        known.update(fresh)

    def _fresh_metrics(self, trial_id: str | None, rows: Sequence[Row]) -> list[Any]:
        from mlflow.entities import Metric

        fresh: dict[tuple[str, int], Any] = {}
        for row in rows:
            for key, value in self._with_headline(row.metrics).items():
                name, number = _metric_name(key), float(value)
                if row.images not in self._known_steps(trial_id, name):
                    number = number if math.isfinite(number) else math.nan
                    fresh.setdefault((name, row.images), Metric(name, number, row.timestamp_ms, row.images))
        return list(fresh.values())

    def _with_headline(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """The ranking metric once more, first: MLflow's comparison opens on the first metric."""
        if self._headline is None or self._headline not in metrics:
            return metrics
        return {HEADLINE: metrics[self._headline], **metrics}

    def _known_steps(self, trial_id: str | None, name: str) -> set[int]:
        steps = self._steps[trial_id].setdefault(name, set())
        if (trial_id, name) in self._unread:
            history = self._client.get_metric_history(self._run_ids[trial_id], name)
            steps.update(metric.step for metric in history)
            self._unread.discard((trial_id, name))
        return steps

    def _note_not_finite(self, trial_id: str | None, rows: Sequence[Row]) -> None:
        noted = self._not_finite.setdefault(trial_id, {})
        before = len(noted)
        for row in rows:
            for key, value in row.metrics.items():
                if not math.isfinite(value):
                    noted.setdefault(key, f"{key}={value} at {row.images} images")
        if len(noted) > before:
            self.set_tags(trial_id, {NOT_FINITE_TAG: "; ".join(noted.values())})

    def _run_id(self, trial_id: str | None) -> str:
        if trial_id not in self._run_ids:
            what = "the sweep" if trial_id is None else f"trial {trial_id!r}"
            raise TrackingError(f"no run of {what} was started in experiment {self._experiment!r}")
        return self._run_ids[trial_id]


def find_origin(place: TrackingLocation, run_id: str) -> tuple[str, str | None] | None:
    """The sweep and the trial (None for the sweep itself) behind an MLflow run; None when it is not one of ours.

    Raises:
        TrackingError: The store refuses, or cannot be reached.
    """
    if place.database is not None and not place.database.exists():
        return None  # opening it would make it
    from mlflow.exceptions import MlflowException

    with door(place.uri):
        try:
            tags = open_client(place).get_run(run_id).data.tags
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return (tags[SWEEP_TAG], tags.get(TRIAL_TAG)) if SWEEP_TAG in tags else None


def check_writable(place: TrackingLocation) -> None:
    """Make a run with one metric and delete it.

    Raises:
        TrackingError: The store refuses it.
    """
    with door(place.uri):
        client = open_client(place)
        run = client.create_run(_find_experiment(client, "orchestrator-doctor", place))
        client.log_metric(run.info.run_id, "doctor", 1.0)
        client.delete_run(run.info.run_id)


def _find_experiment(client: Any, name: str, place: TrackingLocation) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # The kind makes the web page open on the runs, not on a choice between kinds.
        tags = {NOTE_TAG: EXPERIMENT_NOTE, "mlflow.experimentKind": "custom_model_development"}
        try:
            return str(client.create_experiment(name, place.artifact_location(name), tags))
        except MlflowException as error:  # another process was faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _metric_name(key: str) -> str:
    return _REFUSED_CHARACTERS.sub("_", key)[:250]


def _cut(value: str, limit: int) -> str:
    return value if len(value) <= limit else value[: limit - 1] + "…"


def _now_ms() -> int:
    return int(time.time() * 1000)
