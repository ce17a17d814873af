"""When a run reports, probes, checkpoints and reaches a rung: a pure function of its configuration.

Everything is counted in optimiser steps; `images seen` after step s is `s * batch_size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.config.models import RunConfig


@dataclass(frozen=True, kw_only=True)
class Stop:
    """What is done after the optimiser step number `step` (the first step is 1; 0 is before training)."""

    step: int
    probe: bool = False
    checkpoint: bool = False
    rung: int | None = None
    final: bool = False


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The stops of one run, in order."""

    total_steps: int
    batch_size: int
    stops: tuple[Stop, ...]

    def images_at(self, step: int) -> int:
        """Images seen after `step` steps."""
        return step * self.batch_size

    def stops_after(self, step: int) -> dict[int, Stop]:
        """The stops still ahead of a run that has finished `step` steps, by step."""
        return {stop.step: stop for stop in self.stops if stop.step > step}

    def stop_at(self, step: int) -> Stop | None:
        """The stop at exactly this step, if there is one."""
        return next((stop for stop in self.stops if stop.step == step), None)


def plan_run(config: RunConfig, rungs_images: Sequence[int] = ()) -> RunPlan:
    """Lay out the stops of a run.

    Rungs and probes are rounded up to a whole step; every rung and the end probe and checkpoint.
    """
    train = config.train
    total_steps = max(1, train.images // train.batch_size)

    def every(images: int | None) -> set[int]:
        stride = 0 if images is None else max(1, -(-images // train.batch_size))
        return set(range(stride, total_steps, stride)) if stride else set()

    rungs = {min(total_steps, -(-images // train.batch_size)): images for images in rungs_images}
    rungs.pop(total_steps, None)
    probes = every(config.probe.every_images) | set(rungs) | {total_steps}
    checkpoints = every(train.checkpoint_every_images) | set(rungs) | {total_steps}
    steps = sorted(every(train.report_every_images) | probes | checkpoints)
    stops = tuple(
        Stop(
            step=step,
            probe=step in probes,
            checkpoint=step in checkpoints,
            rung=rungs.get(step),
            final=step == total_steps,
        )
        for step in steps
    )
    return RunPlan(total_steps=total_steps, batch_size=train.batch_size, stops=stops)
