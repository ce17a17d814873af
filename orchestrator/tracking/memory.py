"""A tracker that keeps everything in memory, under the same rules as the real ones: for tests and notebooks.

It ships, so that nobody mocks a tracker. `available = False` plays an outage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import TrackingError
from orchestrator.protocol.reports import Row
from orchestrator.tracking.base import (
    Dataset,
    Links,
    ParameterValue,
    RunStatus,
    UnavailableError,
    expand_params,
)


@dataclass
class MemoryRun:
    """One run: `metrics` maps name -> step -> (value, timestamp in milliseconds)."""

    name: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[int, tuple[float, int]]] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    datasets: list[Dataset] = field(default_factory=list)
    status: RunStatus = RunStatus.RUNNING
    started_ms: int | None = None
    ended_ms: int | None = None


class MemoryTracker:
    """Keeps runs in `runs`, keyed by trial id; the sweep's own run has the key None."""

    def __init__(self) -> None:
        self.runs: dict[str | None, MemoryRun] = {}
        self.sweep_id = ""
        self.models: dict[str, dict[str, dict[str, str]]] = {}
        """Model name -> trial -> the tags of its version."""
        self.available = True
        self.calls = 0

    def start_sweep(
        self,
        sweep_id: str,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        *,
        time_ms: int | None = None,
    ) -> None:
        """Open the sweep's run."""
        self._check()
        self.sweep_id = sweep_id
        self._start(None, name, params, tags, time_ms)

    def start_trial(
        self,
        trial_id: str,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        *,
        time_ms: int | None = None,
    ) -> None:
        """Open a trial's run."""
        self._check()
        self._start(trial_id, name, params, tags, time_ms)

    def log_rows(self, trial_id: str | None, rows: Sequence[Row]) -> None:
        """Record metrics; the first value of a (trial, step, name) stands."""
        run = self._run(trial_id)
        for row in rows:
            for key, value in row.metrics.items():
                run.metrics.setdefault(key, {}).setdefault(row.images, (float(value), row.timestamp_ms))

    def log_artifact(self, trial_id: str | None, path: str, data: bytes) -> None:
        """Keep a file's bytes."""
        self._run(trial_id).artifacts[path] = data

    def set_tags(self, trial_id: str | None, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._run(trial_id).tags.update(tags)

    def log_dataset(self, trial_id: str | None, dataset: Dataset) -> None:
        """Keep a data set once."""
        run = self._run(trial_id)
        if dataset not in run.datasets:
            run.datasets.append(dataset)

    def register_model(self, trial_id: str, name: str, folder: str, tags: Mapping[str, str]) -> None:
        """Keep the tags of a model's version."""
        if not any(path.startswith(f"{folder}/") for path in self._run(trial_id).artifacts):
            raise TrackingError(f"nothing was logged under {folder!r} of {trial_id!r}")
        self.models.setdefault(name, {})[trial_id] = dict(tags)

    def finish_trial(self, trial_id: str, status: RunStatus, *, time_ms: int | None = None) -> None:
        """Close a trial's run."""
        run = self._run(trial_id)
        run.status, run.ended_ms = status, time_ms

    def finish_sweep(self, status: RunStatus, *, time_ms: int | None = None) -> None:
        """Close the sweep's run."""
        run = self._run(None)
        run.status, run.ended_ms = status, time_ms

    def links(self) -> Links:
        """Ids are the trial ids themselves."""
        trials = {key: key for key in self.runs if key is not None}
        return Links(tracking_uri="memory:", experiment="memory", trial_run_ids=trials)

    def flush(self, timeout_s: float) -> bool:
        """Nothing is ever pending."""
        return True

    def close(self, timeout_s: float = 30.0) -> None:
        """Nothing to let go."""

    def _start(
        self,
        key: str | None,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        time_ms: int | None,
    ) -> None:
        run = self.runs.setdefault(key, MemoryRun(name=name, started_ms=time_ms))
        run.params = {**expand_params(params), **run.params}
        run.tags.update(tags)
        run.status, run.ended_ms = RunStatus.RUNNING, None

    def _check(self) -> None:
        if not self.available:
            raise UnavailableError("the in-memory tracker plays an outage")
        self.calls += 1

    def _run(self, trial_id: str | None) -> MemoryRun:
        self._check()
        if trial_id not in self.runs:
            raise TrackingError(f"no run was started for {'the sweep' if trial_id is None else trial_id!r}")
        return self.runs[trial_id]
