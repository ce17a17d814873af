"""`export`: a trained encoder for timm, transformers or ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import emit, json_option, runs_option

if TYPE_CHECKING:
    from orchestrator.sweep.journal import Runs

_LOAD_WITH = {
    "timm": "timm.create_model({timm_name!r}, pretrained=True)",
    "transformers": "transformers.IJepaModel.from_pretrained({folder!r}, add_pooling_layer=False)",
    "onnx": "onnxruntime.InferenceSession({file!r})",
}


@app.command()
@click.argument("run")
@click.option("--to", "kind", type=click.Choice(list(_LOAD_WITH)), required=True, help="Who will load it.")
@click.option(
    "--checkpoint",
    metavar="best|last|NAME",
    help="Checkpoint to export: `best` by sweep.metric since warm-up, `last`, or one by its name. Default: the best, "
    "or the last where no best one is kept.",
)
@click.option(
    "--part",
    type=click.Choice(["target", "context"]),
    help="The target encoder or the context encoder, which is trained. Default: the one that sweep.metric is of.",
)
@click.option("--out", type=click.Path(file_okay=False), help="Folder; exports/SWEEP/TRIAL/KIND otherwise.")
@runs_option
@json_option
def export(
    run: str,
    kind: Any,
    checkpoint: str | None,
    part: Any,
    out: str | None,
    runs: Runs,
    as_json: bool,
) -> None:
    """Write a trial's encoder as a folder that timm, Hugging Face transformers or an ONNX runtime loads.

    RUN is SWEEP/TRIAL (an id or a number), an MLflow run id, or a SWEEP: its best trial by sweep.metric.
    """
    from orchestrator.cli.views import best_so_far
    from orchestrator.errors import NotFoundError
    from orchestrator.export import ExportedEncoder, encoder_of, export_encoder
    from orchestrator.protocol.jobs import checkpoints_uri
    from orchestrator.report.lookup import find_run
    from orchestrator.report.statistics import probe_curve, taken_json, taken_text
    from orchestrator.storage import open_store
    from orchestrator.sweep.space import config_at
    from orchestrator.train.evaluate import ranked_encoder
    from orchestrator.train.loop import take_checkpoint

    source = find_run(run, runs)
    sweep_id, metric = source.record.sweep_id, source.config.sweep.metric
    trial = source.trial or best_so_far(source.record, metric)
    if trial is None:
        raise NotFoundError(f"no trial of {sweep_id} has {metric} yet; name one as {sweep_id}/TRIAL")
    trained = config_at(source.config, trial.point, trial.seed)
    store = open_store(checkpoints_uri(source.uri, trial.trial_id), trained.storage)
    taken, part = take_checkpoint(store, checkpoint), part or ranked_encoder(trained)
    curve = probe_curve(source.config, trial)
    exported = ExportedEncoder(
        encoder=encoder_of(taken.checkpoint.tensors, trained.encoder, part=part),
        settings=trained.encoder,
        mean=trained.data.mean,
        std=trained.data.std,
    )
    folder = Path(out) if out else Path("exports") / sweep_id / trial.trial_id / kind
    files = [str(path) for path in export_encoder(exported, kind, folder)]
    how = _LOAD_WITH[kind].format(
        folder=str(folder), timm_name=f"local-dir:{folder}", file=f"{folder}/model.onnx"
    )
    emit(
        as_json,
        {
            "trial": trial.trial_id,
            "checkpoint": taken.name,
            "taken": taken_json(curve, taken),
            "part": part,
            "files": files,
            "load_with": how,
        },
        f"{trial.trial_id} ({trial.name}), {part} encoder\n"
        f"checkpoint: {taken_text(curve, taken)}\n"
        + "\n".join(f"  {file}" for file in files)
        + f"\nload with: {how}",
    )
