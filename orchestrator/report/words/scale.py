"""The long run of a winner: what it changes against the sweep, what that means, and what it will cost.

Pure but for building the model's shape. Every note is about this pair of configurations; nothing general is said.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.config.models import RunConfig
from orchestrator.report.statistics import REALISED, TrialSummary, mask_figures, training_flops_per_image
from orchestrator.report.words.sentences import figure_text
from orchestrator.text import counted

_MOVED_FRACTION, _MOVED_RATIO = 0.01, 0.05


@dataclass(frozen=True, kw_only=True)
class ScalePlan:
    """The long run against the trial it scales up: the ratio of its compute, its cost, and what to know."""

    sweep_id: str
    trial_id: str
    images_ratio: float
    flops_ratio: float
    device_hours: float
    """At the pace of the trial, FLOP for FLOP; NaN when the trial's was not measured."""
    unit: str
    notes: tuple[str, ...]

    def text(self) -> str:
        """As lines for a person."""
        lines = [f"the long run of {self.sweep_id}/{self.trial_id}:"]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary, without NaN."""
        data = asdict(self)
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in data.items()}


def plan_scale(small: RunConfig, large: RunConfig, trial: TrialSummary, sweep_id: str) -> ScalePlan:
    """Compare a trial's configuration with the long run's."""
    images = large.train.images / small.train.images
    before, after = training_flops_per_image(small), training_flops_per_image(large)
    flops = images * after / before if before and after else math.nan
    unit = "GPU hours" if trial.share.has_gpus else "CPU core hours"
    hours = trial.share.counted * flops if trial.share.counted > 0 else math.nan
    notes = [
        *_start_notes(large, trial),
        *_compute_notes(small, large, images, flops),
        *_cost_notes(hours, unit),
        *_mask_notes(small, large),
        *_recipe_notes(small, large),
    ]
    return ScalePlan(
        sweep_id=sweep_id,
        trial_id=trial.trial_id,
        images_ratio=images,
        flops_ratio=flops,
        device_hours=hours,
        unit=unit,
        notes=tuple(notes),
    )


def _start_notes(large: RunConfig, trial: TrialSummary) -> list[str]:
    """What is taken over, and what the trial's curve says of training on."""
    begins = "untrained" if large.train.init_from is None else f"with {large.train.init_from}"
    notes = [
        f"Settings are taken over and no weights: it begins {begins}. The trial's best checkpoint: "
        f"{trial.probed.best_text()}."
    ]
    if peak := trial.probed.peak_text():
        notes.append(
            f"The trial's curve {peak}: more images may not help by themselves. Probe the long run often "
            "(probe.every_images); its best checkpoint is kept."
        )
    return notes


def _compute_notes(small: RunConfig, large: RunConfig, images: float, flops: float) -> list[str]:
    sees = "as many as the trial" if images == 1 else f"{images:.3g} times the trial's {small.train.images:,}"
    notes = [f"It sees {counted(large.train.images, 'image')}, {sees}."]
    if math.isfinite(flops) and flops != 1:
        notes.append(f"It takes {flops:.3g} times the trial's floating-point operations.")
    if images <= 1 and small.encoder == large.encoder:
        notes.append(
            "Nothing is scaled up: set train.images, encoder.name or encoder.image_size_px with --set."
        )
    return notes


def _cost_notes(hours: float, unit: str) -> list[str]:
    if not math.isfinite(hours):
        return []
    return [
        f"At the trial's pace, operation for operation, it costs about {hours:.3g} {unit}; a larger model usually "
        "does better than that on a GPU that the small one did not fill."
    ]


def _mask_notes(small: RunConfig, large: RunConfig) -> list[str]:
    """What the same mask settings come to on the other patch grid."""
    figures = [
        mask_figures(
            run.masks, run.encoder.grid, batch_size=run.train.batch_size // run.train.num_workers or 1
        )
        for run in (small, large)
    ]
    grids = [run.encoder.grid for run in (small, large)]
    if grids[0] == grids[1]:
        return ["The patch grid is the same, and so are the masks."]
    moved = []
    for name in REALISED:
        old, new = figures[0][name], figures[1][name]
        limit = _MOVED_RATIO * old if "ratio" in name else _MOVED_FRACTION
        if abs(old - new) > limit:
            moved.append(f"{name} {figure_text(old)} becomes {figure_text(new)}")
    shape = f"{grids[0].rows}x{grids[0].columns} patches become {grids[1].rows}x{grids[1].columns}"
    if not moved:
        return [f"{shape}; the masks cover the same fractions, in finer steps."]
    return [f"{shape}, and the same settings mask otherwise: {'; '.join(moved)}."]


def _recipe_notes(small: RunConfig, large: RunConfig) -> list[str]:
    """What does not carry over by itself."""
    notes = []
    if large.encoder != small.encoder:
        notes.append(
            "The ranking was found with a smaller encoder; that it holds for this one is an assumption that a sweep of "
            "two or three geometries at this size would test."
        )
        notes.append(f"The learning rate ({large.optimizer.learning_rate:g}) was not tuned for this encoder.")
    if large.train.images != small.train.images:
        notes.append(
            "The schedules span the whole run: warm-up, decay and momentum stretch with it. Longer training can favour "
            "harder masks than a short sweep does."
        )
    if large.train.batch_size != small.train.batch_size:
        notes.append(
            f"The batch size goes from {small.train.batch_size} to {large.train.batch_size}; the learning rate stays "
            f"{large.optimizer.learning_rate:g} and is not scaled with it."
        )
    if large.masks.sampler == "reference":
        notes.append(
            "The reference sampler cuts contexts to each device's batch: another batch, other contexts."
        )
    return notes
