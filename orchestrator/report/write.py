"""Writing the report: beside the sweep's checkpoints, and to its MLflow run.

Reads the journal and writes the files. `log_preview` and `log_report` are called by a running sweep,
`load_sweep` and `write_report` by `orchestrator report` afterwards; both read the same journal.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from orchestrator.config import parse_config
from orchestrator.config.models import RunConfig
from orchestrator.errors import OrchestratorError, TrackingError
from orchestrator.protocol.metrics import CPU_CORE_HOURS, GPU_HOURS
from orchestrator.protocol.reports import Row
from orchestrator.report.page import PageContent, figures, render_page
from orchestrator.report.statistics import taken_text
from orchestrator.report.words import (
    MASKS,
    MODEL_FOLDER,
    Summary,
    model_files,
    recommend,
    recommended_checkpoint,
    summarize,
)
from orchestrator.storage import Store, open_store
from orchestrator.sweep.core import SweepRecord, fold_events
from orchestrator.sweep.journal import Runs, read_events
from orchestrator.text import command_text, json_able, setting_words
from orchestrator.tracking import NOTE_TAG, Links, Tracker, find_tracker
from orchestrator.tracking.base import parameter_text

if TYPE_CHECKING:
    from orchestrator.sweep.run import SweepStart  # it brings Ray, which a report does not need
    from orchestrator.tracking.mlflow import MlflowTracker

logger = logging.getLogger(__name__)

_PREVIEW_IMAGES = 6
_MAX_PREVIEWS = 16
_MASKS = "masks"
_PICTURES_OF_TRIALS = "pictures.json"
_LONGER = ("--set", "train.images=...")


def load_sweep(runs: Runs | str, sweep_id: str) -> tuple[RunConfig, SweepRecord, str]:
    """A sweep's configuration, record and URI, from its journal; `storage` is where it was found.

    Raises:
        NotFoundError: There is no such sweep.
    """
    runs = Runs(uri=runs) if isinstance(runs, str) else runs
    uri = runs.sweep_uri(sweep_id)
    record = fold_events(read_events(runs.sweep_store(sweep_id)))
    if not record.sweep_id:
        raise runs.missing(sweep_id)
    config = parse_config(record.config_text, source=f"{uri}/journal")
    return runs.placed(config, record.folder), record, uri


def log_preview(start: SweepStart) -> None:
    """Audit the geometries of a sweep and draw what the first ones mask; failing at it is not worth a sweep."""
    try:
        files = _mask_files(start)
    except Exception:
        logger.warning("the masks are not audited and drawn in this sweep's report", exc_info=True)
        return
    store = open_store(start.run_uri, start.config.storage)
    for name, data in files.items():
        store.write(f"report/{_MASKS}/{name}", data)
        start.tracker.log_artifact(None, f"{_MASKS}/{name}", data)


def log_report(record: SweepRecord, tracker: Tracker, uri: str, *, register: bool = True) -> None:
    """Write the report and put it on the sweep's MLflow run, with the verdict as its note.

    `register` also registers the recommended encoder as the newest version of the sweep's model, its `best`.
    """
    config = parse_config(record.config_text, source=f"{uri}/journal")
    if not tracker.links().problem:
        tracker.flush(60.0)  # the links name runs that the store must have made first
    summary = summarize(config, record)
    store = open_store(uri, config.storage)
    for name, data in _files(config, record, summary, store, tracker.links()).items():
        store.write(f"report/{name}", data)
        tracker.log_artifact(None, f"report/{name}", data)
    tracker.set_tags(None, {NOTE_TAG: summary.markdown()})
    _log_outcome(record, summary, tracker)
    if register:
        _register(config, summary, tracker, uri)


def write_report(config: RunConfig, record: SweepRecord, uri: str) -> Summary:
    """Write the report of a sweep again, as `report/report.html` and its siblings, and put it on its MLflow run.

    A store that does not know the sweep, or does not answer, leaves the page without links and is warned of.
    """
    tracker = _tracker_of(config, record, uri)
    links = None if tracker is None else tracker.links()
    summary = summarize(config, record)
    store = open_store(uri, config.storage)
    for name, data in _files(config, record, summary, store, links).items():
        store.write(f"report/{name}", data)
        if tracker is not None:
            tracker.log_artifact(None, f"report/{name}", data)
    if tracker is not None:
        tracker.set_tags(None, {NOTE_TAG: summary.markdown()})
    return summary


def runs_root(uri: str) -> str:
    """The folder of MLflow's default store, from one sweep's."""
    return str(Runs(uri=uri.rstrip("/").rpartition("/")[0]).local_folder)


def _tracker_of(config: RunConfig, record: SweepRecord, uri: str) -> MlflowTracker | None:
    try:
        return find_tracker(
            config.tracking, runs_root(uri), config.tracking.experiment or config.name, record.sweep_id
        )
    except TrackingError as error:
        logger.warning("the report has no links to MLflow, and is not put there: %s", error)
        return None


def _register(config: RunConfig, summary: Summary, tracker: Tracker, uri: str) -> None:
    """Log the recommended encoder on its trial's run and register it; a sweep without a gain has none."""
    if summary.verdict.outcome in ("none", "no_gain"):
        return
    choice = recommend(summary)
    try:
        taken = recommended_checkpoint(config, choice, uri)
        files = {} if taken is None else model_files(config, choice, taken)
    except OrchestratorError:
        logger.warning("the best encoder is not registered in MLflow", exc_info=True)
        return
    for name, data in files.items():
        tracker.log_artifact(choice.trial.trial_id, name, data)
    if taken is not None:
        tags = {
            "orchestrator.sweep_id": summary.sweep_id,
            "orchestrator.outcome": choice.outcome,
            "orchestrator.geometry": choice.result.name,
            "orchestrator.accuracy": f"{choice.trial.value:.4g}",
            "orchestrator.reason": choice.reason,
            "orchestrator.checkpoint": taken_text(choice.trial.probed, taken),
        }
        tracker.register_model(choice.trial.trial_id, f"{config.name}-encoder", MODEL_FOLDER, tags)


def _files(
    config: RunConfig, record: SweepRecord, summary: Summary, store: Store, links: Links | None
) -> dict[str, bytes]:
    """The report's files by name."""
    drawn = figures(summary, links)
    content = PageContent(
        summary=summary,
        figures={name: drawing.svg for name, drawing in drawn.items()},
        mask_pictures=_mask_pictures(summary, store),
        config_text=record.config_text,
        environment=record.environment,
        data=record.data,
        notes=record.notes,
        links=links,
        commands=_commands(summary, config, store.uri, in_mlflow=links is not None and links.has_runs),
    )
    texts = {
        "report.html": render_page(content),
        "summary.md": summary.markdown(),
        "summary.txt": summary.text() + "\n",
        "summary.json": json.dumps(summary.to_json(), indent=1),
        "trials.csv": summary.csv(),
    }
    files = {name: text.encode() for name, text in texts.items()}
    return files | {f"{name}.png": drawing.png for name, drawing in drawn.items()}


def _commands(summary: Summary, config: RunConfig, uri: str, *, in_mlflow: bool) -> list[str]:
    """The exact commands that repeat the sweep, look at it, and go on from it."""
    sweep_id = summary.sweep_id
    runs = Runs(uri=uri.rstrip("/").rpartition("/")[0], endpoint_url=config.storage.endpoint_url)
    file, fetched = f"{uri}/config.yaml", ""
    if runs.is_bucket:  # a command reads a local file
        file, fetched = "config.yaml", f"; config.yaml is {uri}/config.yaml"
    place = setting_words("storage.uri", runs.uri)
    lines = [
        f"{command_text('sweep', file, *place)}    # the same sweep again{fetched}",
        f"{runs.command('report', sweep_id)}    # this page again, from the journal",
        *(
            [f"{command_text('ui', '--runs', runs_root(uri))}    # MLflow, to look closer"]
            if in_mlflow
            else []
        ),
    ]
    if summary.verdict.best is None:
        return lines
    choice = recommend(summary)
    if len(choice.trial.schedule) > 1:  # no one configuration trains it again
        return lines
    lines += [
        f"{runs.command('reproduce', f'{sweep_id}/{choice.trial.trial_id}')}    # one trial again, and compare",
        f"{runs.command('train', '--from-best', sweep_id, then=_LONGER)}    # the long run",
    ]
    is_shown = summary.verdict.outcome != "no_gain"
    if is_shown and summary.findings is not None and summary.findings.suggestions:
        point = summary.findings.suggestions[0].point
        settings = [
            word for key, value in point.items() for word in ("--set", f"{key}={parameter_text(value)}")
        ]
        lines.append(f"{command_text('train', file, *place, *settings)}    # what to try next")
    return lines


def _log_outcome(record: SweepRecord, summary: Summary, tracker: Tracker) -> None:
    """Ranks as tags of the trials; the sweep's costs and best accuracy as its metrics."""
    for result in summary.verdict.ranking:
        tags = {"orchestrator.rank": str(result.rank), "orchestrator.tied": str(result.tied).lower()}
        for trial_id in result.trial_ids:
            tracker.set_tags(trial_id, tags)
    metrics = {GPU_HOURS: summary.hours.gpu, CPU_CORE_HOURS: summary.hours.cpu_core}
    best = summary.verdict.best
    if best is not None:
        metrics[summary.metric] = best.mean
    images = sum(trial.images for trial in summary.trials)
    time_ms = record.ended_ms or record.started_ms
    tracker.log_rows(None, [Row(images=images, timestamp_ms=time_ms, metrics=metrics)])


def _mask_files(start: SweepStart) -> dict[str, bytes]:
    """The audit as page and JSON, a picture of each of the first geometries, and which trial has which picture."""
    # Here, since these bring samplers and data, which a report does not need.
    from orchestrator.report.page import mask_sweep, render_audit
    from orchestrator.sweep.foresight import audit_sweep

    audit = audit_sweep(start.config, start.plan)
    if not audit.geometries:  # no method of the sweep reads the masks
        return {}
    images = mask_sweep.images_from(start.config, start.shards, _PREVIEW_IMAGES)
    pictures = mask_sweep.previews(audit, images, most=_MAX_PREVIEWS)
    names = {
        trial_id: mask_sweep.picture_name(index, geometry)
        for index, geometry in enumerate(audit.geometries)
        for trial_id in geometry.trial_ids
    }
    return {
        "audit.html": render_audit(start.config.name, audit).encode(),
        "coverage.png": mask_sweep.coverage_picture(audit, most=_MAX_PREVIEWS),
        "audit.json": json.dumps(json_able(audit.to_json()), indent=1).encode(),
        _PICTURES_OF_TRIALS: json.dumps(names, indent=1).encode(),
        **{f"{name}.png": data for name, data in pictures.items()},
    }


def _mask_pictures(summary: Summary, store: Store) -> dict[str, bytes]:
    """Pictures of the best and the worst geometry that were drawn when the sweep started."""
    ranking, place = summary.verdict.ranking, f"report/{_MASKS}/{_PICTURES_OF_TRIALS}"
    if len(ranking) < 2 or summary.terms != MASKS or not store.exists(place):
        return {}
    try:
        names = dict(json.loads(store.read(place)))
    except ValueError:  # damaged; the page goes without pictures
        logger.warning("%s/%s is damaged: the report shows no masks", store.uri, place)
        return {}
    pictures = {}
    for title, result in (("highest", ranking[0]), ("lowest", ranking[-1])):
        key = f"report/{_MASKS}/{names.get(result.trial_ids[0])}.png"
        if store.exists(key):
            pictures[f"{title}: {result.name}"] = store.read(key)
    return pictures
