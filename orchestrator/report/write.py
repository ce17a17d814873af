"""Writing the report: beside the sweep's checkpoints, and to its MLflow run.

The only module of the room that touches the world. `log_preview` and `log_report` are called by a running sweep,
`load_sweep` and `write_report` by `orchestrator report` afterwards; both read the same journal.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import parse_config
from orchestrator.config.models import RunConfig, StorageConfig
from orchestrator.errors import NotFoundError
from orchestrator.report.page import PageContent, render_page
from orchestrator.report.plots import figures
from orchestrator.report.summary import Summary, summarize
from orchestrator.report.trials import point_key, point_text
from orchestrator.storage import Store, open_store
from orchestrator.sweep.journal import read_events
from orchestrator.sweep.record import SweepRecord, fold
from orchestrator.tracking import Links, MetricRow, Tracker

if TYPE_CHECKING:
    from orchestrator.sweep.runner import SweepStart  # it brings Ray, which a report does not need

logger = logging.getLogger(__name__)

_PREVIEW_IMAGES = 6
_MAX_PREVIEWS = 16
_MASKS = "report/masks"
_NOTE_TAG = "mlflow.note.content"


def load_sweep(runs: str, sweep_id: str) -> tuple[RunConfig, SweepRecord, str]:
    """A sweep's configuration, record and URI, from its journal.

    Raises:
        NotFoundError: There is no such sweep.
    """
    root = runs if "://" in runs else str(Path(runs).expanduser().resolve())
    uri = f"{root.rstrip('/')}/{sweep_id}"
    events = read_events(open_store(uri, StorageConfig()))
    if not events:
        raise NotFoundError(f"no sweep {sweep_id!r} in {root}: there is no journal at {uri}")
    record = fold(events)
    return parse_config(record.config_text, source=f"{uri}/journal"), record, uri


def log_preview(start: SweepStart) -> None:
    """Draw what the first geometries of a sweep mask; a picture that fails is not worth a sweep."""
    try:
        pictures = _previews(start)
    except Exception:
        logger.warning("no mask pictures could be drawn", exc_info=True)
        return
    store = open_store(start.run_uri, start.config.storage)
    for name, data in pictures.items():
        store.write(f"{_MASKS}/{name}.png", data)
        start.tracker.log_artifact(None, f"masks/{name}.png", data)


def log_report(record: SweepRecord, tracker: Tracker, uri: str) -> None:
    """Write the report and put it on the sweep's MLflow run, with the verdict as its note."""
    config = parse_config(record.config_text, source=f"{uri}/journal")
    tracker.flush(60.0)  # the links name runs that the store must have made first
    summary = summarize(config, record)
    store = open_store(uri, config.storage)
    for name, data in _files(config, record, summary, store, tracker.links()).items():
        store.write(f"report/{name}", data)
        tracker.log_artifact(None, f"report/{name}", data)
    tracker.set_tags(None, {_NOTE_TAG: summary.markdown()})
    _log_outcome(record, summary, tracker)


def write_report(config: RunConfig, record: SweepRecord, uri: str) -> str:
    """Write the report of a sweep again; returns where the page is."""
    store = open_store(uri, config.storage)
    for name, data in _files(config, record, summarize(config, record), store, None).items():
        store.write(f"report/{name}", data)
    return f"{uri}/report/report.html"


def _files(
    config: RunConfig, record: SweepRecord, summary: Summary, store: Store, links: Links | None
) -> dict[str, bytes]:
    """The report's files by name."""
    drawn = figures(summary)
    content = PageContent(
        summary=summary,
        figures={name: svg for name, (_, svg) in drawn.items()},
        mask_pictures=_mask_pictures(summary, store),
        config_text=record.config_text,
        environment=record.environment,
        data=record.data,
        notes=record.notes,
        links=links,
        commands=_commands(config, record, store.uri),
    )
    texts = {
        "report.html": render_page(content),
        "summary.md": summary.markdown(),
        "summary.txt": summary.text() + "\n",
        "summary.json": json.dumps(summary.to_json(), indent=1),
        "trials.csv": summary.csv(),
    }
    files = {name: text.encode() for name, text in texts.items()}
    return files | {f"{name}.png": png for name, (png, _) in drawn.items()}


def _commands(config: RunConfig, record: SweepRecord, uri: str) -> list[str]:
    return [
        f"orchestrator sweep {uri}/config.yaml    # the same sweep again",
        f"orchestrator report {record.sweep_id}    # this page again, from the journal",
        "orchestrator ui    # MLflow, to look closer",
    ]


def _log_outcome(record: SweepRecord, summary: Summary, tracker: Tracker) -> None:
    """Ranks as tags of the trials; the sweep's costs and best accuracy as its metrics."""
    for result in summary.verdict.ranking:
        tags = {"orchestrator.rank": str(result.rank), "orchestrator.tied": str(result.tied).lower()}
        for trial_id in result.trial_ids:
            tracker.set_tags(trial_id, tags)
    metrics = {"cost/gpu_hours": summary.gpu_hours, "cost/cpu_core_hours": summary.cpu_core_hours}
    best = summary.verdict.best
    if best is not None:
        metrics[summary.metric] = best.mean
    step = sum(trial.images for trial in summary.trials)
    time_ms = record.ended_ms or record.started_ms
    tracker.log_rows(None, [MetricRow(step=step, timestamp_ms=time_ms, metrics=metrics)])


def _previews(start: SweepStart) -> dict[str, bytes]:
    """One picture for each of the first distinct geometries, by a name that sorts in their order."""
    from jepa_core.masks import PatchGrid  # samplers and data are not needed to write a report
    from orchestrator.report.masks_picture import preview

    images = _preview_images(start)
    base = start.config
    configs = {point_key(trial.point): (trial.point, trial.config) for trial in start.plan.trials}
    pictures: dict[str, bytes] = {}
    for index, (point, config) in enumerate(list(configs.values())[:_MAX_PREVIEWS] or [({}, base)]):
        side = config.encoder.image_size_px // config.encoder.patch_size_px
        grid = PatchGrid(rows=side, columns=side)
        title = point_text(point)
        pictures[f"{index:03d}-{_slug(title)}"] = preview(
            config.masks, grid, images, title=title, seed=config.train.seed
        )
    return pictures


def _preview_images(start: SweepStart) -> NDArray[np.uint8]:
    from orchestrator.data import load_images

    config = start.config
    loaded = load_images(
        start.shards,
        config.data.test_split,
        _PREVIEW_IMAGES,
        image_size_px=config.encoder.image_size_px,
        threads=1,
    )
    images: NDArray[np.uint8] = loaded.images_uint8_NCHW.permute(0, 2, 3, 1).numpy()
    return images


def _mask_pictures(summary: Summary, store: Store) -> dict[str, bytes]:
    """Pictures of the best and the worst geometry that were drawn when the sweep started."""
    ranking = summary.verdict.ranking
    wanted = {"highest": ranking[0].name, "lowest": ranking[-1].name} if len(ranking) > 1 else {}
    keys = {
        info.key.rpartition("/")[2].removesuffix(".png")[4:]: info.key for info in store.list(f"{_MASKS}/")
    }
    return {
        f"{place}: {name}": store.read(keys[_slug(name)])
        for place, name in wanted.items()
        if _slug(name) in keys
    }


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)[:100].strip("-.")
