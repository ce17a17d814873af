"""FLOPs per image of a sweep's trials, counted from the patches that their masks really kept."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

from jepa_core.flops import ModelDims, flops_per_image
from jepa_core.masks import audit_geometry
from orchestrator.config import reads_masks
from orchestrator.config.models import RunConfig
from orchestrator.errors import OrchestratorError
from orchestrator.protocol.metrics import (
    CONTEXT_PADDING_FRACTION,
    CONTEXT_PATCHES,
    GIGAFLOP_PER_IMAGE,
    TARGET_PADDING_FRACTION,
    TARGET_PATCHES,
)
from orchestrator.protocol.point import Point
from orchestrator.sweep.core import TrialRecord
from orchestrator.sweep.foresight import ModelCosts, model_dims
from orchestrator.sweep.space import config_at


class FlopsCounter:
    """Counts for one sweep; the dimensions of a model are read off once for each encoder and predictor."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self._dims: dict[Hashable, ModelDims | None] = {}

    def per_image(self, point: Point, metrics: Mapping[str, float]) -> float:
        """FLOPs of one image's training step at a point; NaN where neither they nor the patches were measured."""
        if GIGAFLOP_PER_IMAGE in metrics:
            return 1e9 * metrics[GIGAFLOP_PER_IMAGE]
        context, target = metrics.get(CONTEXT_PATCHES), metrics.get(TARGET_PATCHES)
        if context is None or target is None:
            return math.nan
        run = self._run_at(point)
        dims = None if run is None else self._dims_of(run)
        if run is None or dims is None:
            return math.nan
        return flops_per_image(
            dims,
            context_patches=context / (1 - metrics.get(CONTEXT_PADDING_FRACTION, 0.0)),
            target_patches=target / (1 - metrics.get(TARGET_PADDING_FRACTION, 0.0)),
            num_target_blocks=run.masks.num_target_blocks,
            num_context_blocks=run.masks.num_context_blocks,
        ).total

    def spent(self, trial: TrialRecord) -> dict[int, float]:
        """FLOPs of a trial's training by images seen, each stretch under the settings that it was trained under.

        Only where a report tells them; a report tells of the images since the one before.
        """
        spent, last = dict[int, float](), 0
        for images, metrics in sorted(trial.history.items()):
            each = self.per_image(trial.settings_before(images), metrics)
            if images > last and math.isfinite(each):
                spent[images] = spent.get(last, 0.0) + (images - last) * each
                last = images
        return spent

    def _run_at(self, point: Point) -> RunConfig | None:
        try:
            return config_at(self.config, point)
        except OrchestratorError:  # a point of an older version: nothing to count with
            return None

    def _dims_of(self, run: RunConfig) -> ModelDims | None:
        key = (run.encoder, run.predictor, run.objective)
        if key not in self._dims:
            self._dims[key] = _model_dims(run)
        return self._dims[key]


def _model_dims(run: RunConfig) -> ModelDims | None:
    """The dimensions that decide the cost of a step; None for other methods, and for models that cannot be built."""
    if not reads_masks(run):
        return None
    try:
        return model_dims(run)
    except (ValueError, RuntimeError):
        return None


def training_flops_per_image(run: RunConfig) -> float:
    """FLOPs of one image's training step, with the patches that an audit of the masks predicts; 0 when not known."""
    costs = ModelCosts()
    try:
        if not reads_masks(run):
            return costs.of_method(run)
        return costs.of_masks(run, audit_geometry(run.masks, run.encoder.grid, num_samples=256)).total
    except (ValueError, RuntimeError):  # no such model, or masks that cannot be sampled
        return 0.0
