"""What training costs, as metrics of every run: operations, utilisation, seconds by phase, memory.

Called by the loop's meter when it reports. Images a second and the data-wait share are the meter's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from jepa_core.accounting import model_flops_utilisation, take_peak_memory_bytes
from jepa_core.flops import ModelDims, flops_per_image
from jepa_core.objectives import IJepa, counted_flops_per_image
from jepa_core.phases import PHASES, PhaseTimer
from jepa_core.sharding import has_shards
from jepa_core.step import TrainState
from orchestrator.config.models import RunConfig
from orchestrator.protocol.metrics import (
    CONTEXT_PATCHES,
    GIGAFLOP_PER_IMAGE,
    GIGAFLOP_PER_S,
    MFU,
    PEAK_MEMORY_BYTES,
    TARGET_PATCHES,
    phase_s,
)
from orchestrator.train.distributed import Rank


class StepCosts:
    """Figures of the steps between two reports, for one rank."""

    def __init__(self, state: TrainState, config: RunConfig, rank: Rank) -> None:
        self.config, self.rank = config, rank
        objective = state.objective
        self.dims = (
            ModelDims.of(objective.context_encoder, objective.predictor)
            if isinstance(objective, IJepa)
            else None
        )
        self.counted: float | None = None
        if self.dims is None and not has_shards(objective):
            self.counted = counted_flops_per_image(objective, config.masks)
        self.timer = PhaseTimer(rank.device)
        self.timer.attach(objective)
        self._later: dict[str, float] = {}

    def keep_for_next(self, name: str, seconds: float) -> None:
        """Add to what is known only after a report was sent, such as the seconds of its checkpoints."""
        self._later[name] = self._later.get(name, 0.0) + seconds

    def discard(self) -> None:
        """Forget what was timed since the last report."""
        self.timer.drain()

    def take(self, means: Mapping[str, float], *, num_steps: int, images_per_s: float) -> dict[str, float]:
        """The figures, given the steps' mean metrics, and start anew.

        Phases are seconds a step on this rank; `images_per_s` is of all ranks together.
        """
        seconds = self.timer.drain()
        out = {phase_s(name): seconds.get(name, 0.0) / num_steps for name in PHASES}
        out[PEAK_MEMORY_BYTES] = take_peak_memory_bytes(self.rank.device)
        out |= self._later
        self._later = {}
        flops = self._flops_per_image(means)
        return out if flops is None else out | self._operations(flops, images_per_s / self.rank.world_size)

    def _flops_per_image(self, means: Mapping[str, float]) -> float | None:
        """Operations of the masks that were drawn; None where they are not known."""
        if self.dims is None or CONTEXT_PATCHES not in means:
            return self.counted
        return flops_per_image(
            self.dims,
            context_patches=means[CONTEXT_PATCHES],
            target_patches=means[TARGET_PATCHES],
            num_target_blocks=self.config.masks.num_target_blocks,
            num_context_blocks=self.config.masks.num_context_blocks,
        ).total

    def _operations(self, flops: float, images_per_s: float) -> dict[str, float]:
        out = {
            GIGAFLOP_PER_IMAGE: flops / 1e9,
            GIGAFLOP_PER_S: flops * images_per_s / 1e9,
        }
        share = model_flops_utilisation(flops, images_per_s, self.rank.device, self.rank.precision)
        return out if share is None else out | {MFU: share}
