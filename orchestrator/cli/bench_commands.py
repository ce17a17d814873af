"""`bench step`: what a training step of a configuration's model costs on this device."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import emit, json_option, set_option
from orchestrator.text import counted

if TYPE_CHECKING:
    from jepa_core.measure import StepMeasurement
    from orchestrator.config import RunConfig


@app.group()
def bench() -> None:
    """Measure this machine."""


@bench.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True), required=False)
@set_option("Override a key, e.g. --set encoder.depth=6.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Images of one worker; the file's share otherwise."
)
@click.option("--steps", default=5, show_default=True, type=click.IntRange(min=1), help="Steps that count.")
@click.option("--device", help="`cpu` or `cuda`; a CUDA device where there is one otherwise.")
@json_option
def step(
    file: str | None,
    overrides: tuple[str, ...],
    batch_size: int | None,
    steps: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Run training steps of FILE's model on noise and print where the time goes.

    Without FILE the default configuration is measured: ViT-S/16 at 224 px.
    """
    import torch

    from orchestrator.config import default_config, load_config

    config = default_config(overrides) if file is None else load_config(file, overrides)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = _measure(config, where, batch_size or config.train.batch_size // config.train.num_workers, steps)
    emit(
        as_json,
        {**asdict(found), "images_per_s": found.images_per_s, "mfu": found.utilisation},
        _table(found),
    )


def _measure(config: RunConfig, device: object, batch_size: int, steps: int) -> StepMeasurement:
    import torch

    from jepa_core.masks import build_sampler
    from jepa_core.measure import measure_step
    from orchestrator.errors import OrchestratorError
    from orchestrator.train.distributed import Rank
    from orchestrator.train.initial import new_state
    from orchestrator.train.worker import resolve_precision, threads_per_worker

    assert isinstance(device, torch.device)
    torch.set_num_threads(threads_per_worker(config))
    state = new_state(config, steps + 2, Rank(device=device, precision=resolve_precision(config, device)))
    try:
        sampler = build_sampler(config.masks, state.objective.context_encoder.grid)
        return measure_step(state, sampler, batch_size=batch_size, num_steps=steps)
    except ValueError as err:
        raise OrchestratorError(str(err)) from err


def _table(found: StepMeasurement) -> str:
    parts = {
        "target": found.flops.target_encoder,
        "context": found.flops.context_encoder / 3,
        "predictor": found.flops.predictor / 3,
        "backward": (found.flops.context_encoder + found.flops.predictor) * 2 / 3,
    }
    lines = [f"{found.device}: batch {found.batch_size}, mean of {counted(found.num_steps, 'step')}", ""]
    lines.append(f"{'phase':<12}{'ms':>10}{'share':>8}{'GFLOP/s':>11}")
    rest = found.step_s - sum(found.phases_s.values()) - found.masks_s
    rows = {**found.phases_s, "masks": found.masks_s, "other": max(0.0, rest)}
    for name, seconds in rows.items():
        rate = f"{parts[name] * found.batch_size / seconds / 1e9:>11.1f}" if name in parts and seconds else ""
        lines.append(f"{name:<12}{1000 * seconds:>10.1f}{100 * seconds / found.step_s:>7.1f}%{rate}")
    lines.append(f"{'step':<12}{1000 * found.step_s:>10.1f}{100:>7.1f}%")
    kind = "the maker's peak" if found.peak_is_stated else "this device's own matrix-product rate"
    return "\n".join(
        [
            *lines,
            "",
            f"{found.images_per_s:.1f} images/s, {found.flops.total / 1e9:.2f} GFLOP an image "
            f"({found.context_patches:.1f} context and {found.target_patches:.1f} target patches)",
            f"{100 * found.utilisation:.1f}% of {kind}, {found.peak_flops / 1e9:.0f} GFLOP/s",
            f"peak memory {found.peak_memory_bytes / 2**20:.0f} MiB",
        ]
    )
