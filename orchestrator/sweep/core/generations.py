"""Population based training: who goes on from whose weights, and under which settings. Pure, read off the record.

A generation ends when every living member has reached its images. The lowest then take over the checkpoint of a random
one of as many highest (exploit), with settings of its own that lie near the donor's (explore); all others go on as they
were. Draws are a function of (search seed, generation, member) and ranks of recorded values, so a generation that is
decided again comes out the same. Called by the coordinator, which journals what comes out before anybody goes on.

Source: Jaderberg et al., "Population Based Training of Neural Networks" (arXiv 1711.09846), section 3, with truncation
selection.
Deviates: generations are synchronous, so that a decision does not depend on how fast a member was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.config import axis_value
from orchestrator.config.models import (
    Axis,
    Centered,
    CenteredRatio,
    Choice,
    IntUniform,
    LogUniform,
    RunConfig,
    Uniform,
)
from orchestrator.config.space import SIGNIFICANT_DIGITS, center_and_size, choice_index
from orchestrator.errors import ConfigError
from orchestrator.protocol.events import GenerationDecided, WeightsTaken
from orchestrator.protocol.point import Point
from orchestrator.sweep.core.record import SweepRecord, TrialRecord
from orchestrator.sweep.core.rungs import generation_ends
from orchestrator.sweep.space import config_at, point_name


def waits(config: RunConfig, record: SweepRecord, trial: TrialRecord) -> bool:
    """Whether a member has reached the end of a generation that is not decided yet."""
    return not trial.done and _current_end(config, record) in trial.rungs


def is_decided(record: SweepRecord, images: int) -> bool:
    """Whether the generation that ends at these images is decided."""
    return any(each.images == images for each in record.generations)


def next_generation(config: RunConfig, record: SweepRecord) -> GenerationDecided | None:
    """The decision that is due; None while some living member is still on its way, and when there is none."""
    end = _current_end(config, record)
    living = [trial for trial in record.in_order() if not trial.done]
    if end is None or not living or any(end not in trial.rungs for trial in living):
        return None
    return decide_generation(config, living, number=len(record.generations) + 1, images=end)


def decide_generation(
    config: RunConfig, living: Sequence[TrialRecord], *, number: int, images: int
) -> GenerationDecided:
    """Rank the living members at the end of a generation and pair the lowest with the highest.

    Of equal values the member that was planned first ranks higher. One whose value is missing neither takes over nor is
    taken from, and nobody takes over from one that is no better.
    """
    assert config.sweep.pbt is not None
    values = {trial.trial_id: trial.rungs[images] for trial in living}
    ranked = sorted(
        (trial for trial in living if math.isfinite(values[trial.trial_id])),
        key=lambda trial: (-values[trial.trial_id], trial.index),
    )
    count = min(max(1, int(config.sweep.pbt.replaced_fraction * len(ranked))), len(ranked) // 2)
    takeovers = []
    for member in ranked[len(ranked) - count :]:
        generator = np.random.default_rng([config.sweep.search_seed, number, member.index])
        donor = ranked[int(generator.integers(count))]
        if values[donor.trial_id] > values[member.trial_id]:
            settings = explore(config, donor.settings, generator)
            takeovers.append(WeightsTaken(trial_id=member.trial_id, parent=donor.trial_id, settings=settings))
    return GenerationDecided(
        generation=number,
        images=images,
        ranking=tuple((trial.trial_id, values[trial.trial_id]) for trial in ranked),
        takeovers=tuple(takeovers),
        reason=_reason(config, living, takeovers, number=number, images=images),
    )


def explore(config: RunConfig, settings: Point, generator: np.random.Generator) -> Point:
    """Settings near a donor's; the donor's own where those would not be valid together."""
    pbt = config.sweep.pbt
    assert pbt is not None
    found: dict[str, Any] = {}
    for key, axis in config.sweep.space.items():
        is_new, fractions = generator.random() < pbt.resample_probability, generator.random(2).tolist()
        factor = pbt.factors[int(generator.integers(len(pbt.factors)))]
        found[key] = (
            axis_value(axis, *fractions) if is_new else changed(axis, settings[key], factor, fractions[0])
        )
    try:
        config_at(config, Point(found), 0)
    except ConfigError:
        return settings
    return Point(found)


def changed(axis: Axis, value: Any, factor: float, fraction: float) -> Any:
    """A value times a factor within its axis' bounds; of a pair its centre, at the same width or spread.

    One of `choices` moves to a neighbour, the one before where `fraction`, from 0 to 1, is below a half.
    """
    if isinstance(axis, Choice):
        return _neighbour(axis, value, -1 if fraction < 0.5 else 1)
    if isinstance(axis, Centered):
        center, width = center_and_size(axis, value)
        center = _clamped(center * factor, axis.center)
        return _rounded(center - width / 2), _rounded(center + width / 2)
    if isinstance(axis, CenteredRatio):
        center, spread = center_and_size(axis, value)
        center = _clamped(center * factor, axis.center_ratio)
        return _rounded(center / spread), _rounded(center * spread)
    if isinstance(axis, IntUniform):
        step = math.copysign(max(1, abs(round(value * factor) - value)), factor - 1)
        return int(_clamped(value + step, axis.int_uniform))
    assert isinstance(axis, (Uniform, LogUniform))
    return _clamped(_rounded(value * factor), axis.uniform if isinstance(axis, Uniform) else axis.log_uniform)


def _neighbour(axis: Choice, value: Any, step: int) -> Any:
    """The choice beside a value; the one on the other side at an end of the list."""
    place = choice_index(axis, value)
    if not 0 <= place + step < len(axis.choices):
        step = -step
    return axis.choices[min(max(place + step, 0), len(axis.choices) - 1)]


def _clamped(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _current_end(config: RunConfig, record: SweepRecord) -> int | None:
    """Where the generation that is not decided yet ends; None when the rest is training to the end."""
    ends = generation_ends(config.sweep.pbt, config.train.images)
    return next((end for end in ends if not is_decided(record, end)), None)


def _reason(
    config: RunConfig,
    living: Sequence[TrialRecord],
    takeovers: Sequence[WeightsTaken],
    *,
    number: int,
    images: int,
) -> str:
    indices = {trial.trial_id: trial.index for trial in living}
    parts = [
        f"{indices[each.trial_id]:03d} goes on from {indices[each.parent]:03d} "
        f"({point_name(config, each.settings)})"
        for each in takeovers
    ]
    return f"generation {number} at {images:,} images: {'; '.join(parts) or 'every member goes on as it was'}"
