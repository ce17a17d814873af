"""Which run a person means: `SWEEP`, `SWEEP/TRIAL` (an id or a number), or an MLflow run id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.models import RunConfig, TrackingConfig
from orchestrator.errors import ConfigError, NotFoundError
from orchestrator.protocol.writing import plain_fields
from orchestrator.report.statistics import (
    Geometry,
    MatchedResult,
    compare,
    group_geometries,
    grouped_sentences,
    trial_summaries,
)
from orchestrator.report.words import recommend, summarize
from orchestrator.report.write import load_sweep
from orchestrator.sweep.core import SweepRecord, TrialRecord
from orchestrator.sweep.journal import Runs
from orchestrator.text import align
from orchestrator.tracking import find_origin

_RUN_ID = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundRun:
    """A sweep, and one of its trials when one was meant."""

    config: RunConfig
    record: SweepRecord
    uri: str
    trial: TrialRecord | None

    def the_trial(self) -> TrialRecord:
        """The trial that was meant, or the only one there is.

        Raises:
            NotFoundError: The sweep has several trials and none was named.
        """
        if self.trial is not None:
            return self.trial
        trials = self.record.in_order()
        if len(trials) == 1:
            return trials[0]
        raise NotFoundError(
            f"{self.record.sweep_id} has {len(trials)} trials; name one as {self.record.sweep_id}/TRIAL, for example "
            f"{self.record.sweep_id}/{trials[0].trial_id if trials else '000'}"
        )


def find_run(text: str, runs: Runs | str) -> FoundRun:
    """The run behind a name.

    Raises:
        NotFoundError: There is none; the message says what there is.
    """
    runs = Runs(uri=runs) if isinstance(runs, str) else runs
    sweep_id, _, trial_name = text.partition("/")
    if _RUN_ID.match(text):
        sweep_id, trial_name = _of_mlflow(text, runs)
    config, record, uri = load_sweep(runs, sweep_id)
    trial = _trial_named(record, trial_name) if trial_name else None
    return FoundRun(config=config, record=record, uri=uri, trial=trial)


def _of_mlflow(run_id: str, runs: Runs) -> tuple[str, str]:
    local = str(runs.local_folder)
    found = find_origin(TrackingConfig(), local, run_id)
    if found is None:
        raise NotFoundError(
            f"no MLflow run {run_id} of ours in the store of {local}; name the run as SWEEP/TRIAL instead"
        )
    return found[0], found[1] or ""


def _trial_named(record: SweepRecord, name: str) -> TrialRecord:
    if (found := record.trial_named(name)) is not None:
        return found
    trials = record.in_order()
    known = ", ".join(trial.trial_id for trial in trials[:8]) + (", ..." if len(trials) > 8 else "")
    raise NotFoundError(f"sweep {record.sweep_id} has no trial {name!r}; it has {known}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Some geometries beside each other, and every pair's result at equal compute."""

    metric: str
    geometries: tuple[Geometry, ...]
    results: tuple[MatchedResult, ...]

    def text(self) -> str:
        """A table and sentences."""
        head = ["geometry", "seeds", self.metric, "images", "device hours"]
        rows = [
            [
                geometry.name,
                str(len(geometry.trials)),
                f"{geometry.mean:.1f}",
                f"{max(trial.images for trial in geometry.trials):,}",
                f"{geometry.share.counted:.3f}",
            ]
            for geometry in self.geometries
        ]
        return "\n".join(
            [align([head, *rows]), "", *(f"- {each}" for each in grouped_sentences(self.results))]
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary, without NaN."""
        rows = [{**plain_fields(each), "sentence": each.sentence()} for each in self.results]
        clean = [{k: None if isinstance(v, float) and v != v else v for k, v in row.items()} for row in rows]
        geometries = [
            {
                "name": each.name,
                "point": each.point.to_json(),
                "mean": each.mean,
                "trial_ids": [trial.trial_id for trial in each.trials],
                **each.share.to_json(),
            }
            for each in self.geometries
        ]
        return {"metric": self.metric, "geometries": geometries, "results": clean}


def compare_runs(names: Sequence[str], runs: Runs | str) -> Comparison:
    """Compare the geometries that names stand for, with every seed that each of them ran under.

    A trial stands for its geometry; a sweep for its only one, or for the one that it recommends; a single sweep alone
    is compared within itself. The noise is pooled over all geometries of the sweeps involved.

    Raises:
        NotFoundError: A run is not there, or did not finish.
        ConfigError: The runs were ranked by other metrics, or trained on other data.
    """
    found = [find_run(name, runs) for name in names]
    _check_comparable(found)
    sweeps = {each.record.sweep_id: each for each in found}
    named = len(sweeps) > 1
    geometries = {sweep_id: _geometries(each, named=named) for sweep_id, each in sweeps.items()}
    pool = [geometry for group in geometries.values() for geometry in group]
    if len(found) == 1 and found[0].trial is None:
        chosen = pool
    else:
        chosen = list({id(g): g for each in found for g in [_chosen(each, geometries)]}.values())
    if len(chosen) < 2:
        raise NotFoundError("these names stand for one geometry: there is nothing to compare; name another")
    chosen.sort(key=lambda geometry: -geometry.mean)
    metric = found[0].config.sweep.metric
    results = compare(chosen, metric, noise_from=pool, against_best=len(found) == 1)
    return Comparison(metric=metric, geometries=tuple(chosen), results=tuple(results))


def _geometries(run: FoundRun, *, named: bool) -> list[Geometry]:
    found = group_geometries(trial_summaries(run.config, run.record))
    if not named:
        return found
    return [
        Geometry(name=f"{run.record.sweep_id}: {each.name}", point=each.point, trials=each.trials)
        for each in found
    ]


def _chosen(run: FoundRun, geometries: dict[str, list[Geometry]]) -> Geometry:
    group = geometries[run.record.sweep_id]
    if run.trial is not None:
        point = run.trial.point
    elif len(group) == 1:
        return group[0]
    else:
        point = recommend(summarize(run.config, run.record)).result.point
    for geometry in group:
        if geometry.point == point:
            return geometry
    what = run.record.sweep_id if run.trial is None else f"{run.record.sweep_id}/{run.trial.trial_id}"
    state = "" if run.trial is None else f" (it is {run.trial.state})"
    raise NotFoundError(f"{what} has no finished trial to compare{state}")


def _check_comparable(found: Sequence[FoundRun]) -> None:
    metrics = sorted({each.config.sweep.metric for each in found})
    if len(metrics) > 1:
        raise ConfigError(f"runs ranked by different metrics cannot be compared: {', '.join(metrics)}")
    digests = sorted({str(each.record.data.get("digest", "")) for each in found})
    if len(digests) > 1:
        raise ConfigError(
            f"runs on different data cannot be compared: their shards have the digests {', '.join(digests)}"
        )
