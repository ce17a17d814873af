"""`probe`: the wider evaluation of a trial, a checkpoint or a timm model."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import emit, json_option, runs_option, set_option
from orchestrator.cli.streams import outlive_reader

if TYPE_CHECKING:
    from orchestrator.config import RunConfig
    from orchestrator.report.lookup import FoundRun
    from orchestrator.sweep.journal import Runs
    from orchestrator.train.evaluate import FeatureModel, ProbeReport
    from orchestrator.train.loop import Checkpoint

_CHECKPOINT = re.compile(
    r"(?P<runs>.+)/(?P<sweep>[^/]+)/trials/(?P<trial>[^/]+)/checkpoints/(?P<name>(best/)?step-\d{10})/?"
)


@app.command()
@click.argument("target")
@click.argument("file", type=click.Path(dir_okay=False, exists=True), required=False)
@set_option("Override a dotted key, e.g. --set probe.train_images=20000. May be given again.")
@click.option(
    "--evaluations",
    default="linear,knn,low-shot,regression",
    show_default=True,
    help="Comma-separated: linear, knn, low-shot, regression, attentive, fine-tune; or all.",
)
@click.option(
    "--weights", type=click.Path(dir_okay=False, exists=True), help="Safetensors file for timm:NAME."
)
@click.option("--pretrained", is_flag=True, help="Let timm fetch its own weights for timm:NAME.")
@click.option("--log/--no-log", default=True, help="Put the figures on the trial's MLflow run.")
@runs_option
@json_option
def probe(
    target: str,
    file: str | None,
    overrides: tuple[str, ...],
    evaluations: str,
    weights: str | None,
    pretrained: bool,
    log: bool,
    runs: Runs,
    as_json: bool,
) -> None:
    """Evaluate TARGET on labelled images: linear, k-NN, low-shot, regression, attentive, fine-tuning.

    TARGET is SWEEP/TRIAL (its newest checkpoint), an MLflow run id, a checkpoint's folder
    (.../checkpoints/step-NNNNNNNNNN, .../checkpoints/best/step-NNNNNNNNNN) or timm:NAME. The images are the run's own,
    or for timm:NAME those of FILE (the embedded scenes without one). Heads are chosen on a validation part of the
    training images. Features are cached, so that a second evaluation of one encoder is quick.
    """
    from orchestrator.data import prepare_data
    from orchestrator.data.pack import open_cache
    from orchestrator.train.evaluate import run_evaluations

    wanted = _evaluations(evaluations)
    outlive_reader()
    if target.startswith("timm:"):
        found = None
        config, model = _timm(target, file, overrides, weights, pretrained)
        images = 0
    else:
        found, config, model, images = _trained(target, runs, overrides)
    report = run_evaluations(
        model,
        prepare_data(config, progress=_note),
        config,
        target=target,
        evaluations=wanted,
        cache=open_cache(config.data).folder / "features",
        progress=_note,
    )
    if report is None:
        raise click.UsageError("the images carry no labels; there is nothing to probe")
    if found is not None and log:
        _log_report(found, report, images)
    emit(as_json, report.to_json(), _text(report))


def _evaluations(text: str) -> tuple[str, ...]:
    from orchestrator.train.evaluate import EVALUATIONS

    names = EVALUATIONS if text == "all" else tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in EVALUATIONS]
    if unknown:
        raise click.UsageError(f"no evaluation {unknown[0]!r}; there are {', '.join(EVALUATIONS)}, and all")
    return names


def _timm(
    target: str, file: str | None, overrides: tuple[str, ...], weights: str | None, pretrained: bool
) -> tuple[RunConfig, FeatureModel]:
    from orchestrator.config import default_config, load_config
    from orchestrator.train.evaluate import open_timm

    config = default_config(overrides) if file is None else load_config(file, overrides)
    return config, open_timm(target.removeprefix("timm:"), weights, pretrained=pretrained)


def _trained(
    target: str, runs: Runs, overrides: tuple[str, ...]
) -> tuple[FoundRun, RunConfig, FeatureModel, int]:
    from orchestrator.config import dump, parse_config
    from orchestrator.errors import CheckpointError
    from orchestrator.protocol.jobs import checkpoints_uri
    from orchestrator.report.lookup import find_run
    from orchestrator.report.words import trial_config
    from orchestrator.storage import open_store
    from orchestrator.train.loop import load_checkpoint, load_latest

    place = _CHECKPOINT.fullmatch(target)
    if place:
        target, runs = f"{place['sweep']}/{place['trial']}", replace(runs, uri=place["runs"])
    found = find_run(target, runs)
    trial = found.the_trial()
    config = trial_config(found.config, trial.point, trial.seed)
    store = open_store(checkpoints_uri(found.uri, trial.trial_id), config.storage)
    checkpoint = load_checkpoint(store, place["name"]) if place else load_latest(store)
    if checkpoint is None:
        raise CheckpointError(f"{store.uri}: there is no checkpoint to probe")
    model = _own_model(config, checkpoint)
    if overrides:
        config = parse_config(dump(config), source=target, overrides=overrides)
    return found, config, model, checkpoint.step * config.train.batch_size


def _own_model(config: RunConfig, checkpoint: Checkpoint) -> FeatureModel:
    from jepa_core.encoder import build_encoder
    from orchestrator.tracking.encoder_model import encoder_weights
    from orchestrator.train.evaluate import OwnModel, ranked_encoder, weights_digest

    encoder = build_encoder(config.encoder)
    encoder.load_state_dict(encoder_weights(checkpoint.tensors, ranked_encoder(config)), strict=True)
    digest = weights_digest(encoder, "ours")
    return OwnModel(encoder=encoder.eval(), mean=config.data.mean, std=config.data.std, digest=digest)


def _log_report(found: FoundRun, report: ProbeReport, images: int) -> None:
    from orchestrator.errors import TrackingError
    from orchestrator.protocol.metrics import evaluation_s, high_of, low_of
    from orchestrator.protocol.reports import Row
    from orchestrator.report.write import runs_root
    from orchestrator.tracking import find_tracker

    metrics = {
        name: value
        for figure in report.figures
        for name, value in (
            (figure.metric, figure.value),
            (low_of(figure.metric), figure.interval.low),
            (high_of(figure.metric), figure.interval.high),
        )
    }
    metrics |= {evaluation_s(name): seconds for name, seconds in report.seconds.items()}
    try:
        experiment = found.config.tracking.experiment or found.config.name
        tracker = find_tracker(found.config.tracking, runs_root(found.uri), experiment, found.record.sweep_id)
        if tracker is not None:
            row = Row(images=images, timestamp_ms=time.time_ns() // 1_000_000, metrics=metrics)
            tracker.log_rows(found.the_trial().trial_id, [row])
    except TrackingError as err:  # the figures are not lost: they are printed
        _note(f"not recorded in MLflow: {err}")


def _text(report: ProbeReport) -> str:
    from orchestrator.text import align

    interval = report.figures[0].interval.name if report.figures else "interval"
    rows: list[list[str]] = [["evaluation", "label", "value", interval, "of"]]
    rows += [
        [
            figure.evaluation,
            figure.label,
            f"{format(figure.value, _form(figure.unit))} {figure.unit}".rstrip(),
            figure.interval.bounds(_form(figure.unit)),
            figure.detail,
        ]
        for figure in report.figures
    ]
    lines = [
        f"{report.target}: {report.num_test:,} test images, fitted on {report.num_train:,}",
        "",
        align(rows),
    ]
    lines += [f"failed: {name}: {reason}" for name, reason in report.failed.items()]
    return "\n".join(lines)


def _form(unit: str) -> str:
    return ".1f" if unit == "%" else ".2f"


def _note(text: Any) -> None:
    click.echo(str(text), err=True)
