"""From a search space to trials: points, their names and ids, their configurations, and what was merged.

A point is one value for every axis; a trial is a point under one run seed. Ids are hashes of both, so that the same
file plans the same trials after a restart, in whatever order they run. A point is validated in `config_at`, the one
place where it becomes a configuration.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jepa_core.geometry.identity import geometry_key
from orchestrator.config import (
    apply_overrides,
    axis_value,
    first_seeds,
    flatten,
    grid_points,
    reads_masks,
    searched_keys,
)
from orchestrator.config.models import PROPOSING, Axis, Choice, ListedPoint, RunConfig
from orchestrator.config.space import build_point, dimensions, second_dimension, space_text
from orchestrator.errors import ConfigError
from orchestrator.protocol.point import Point, frozen


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """One trial to run, of the sweep that `sweep_config` configures."""

    trial_id: str
    index: int
    point: Point
    seed: int
    name: str
    sweep_config: RunConfig

    @functools.cached_property
    def config(self) -> RunConfig:
        """The sweep's configuration at the trial's point and seed; made, and validated, where it is first asked for.

        Raises:
            ConfigError: The point does not keep every rule.
        """
        return config_at(self.sweep_config, self.point, self.seed)

    def is_valid(self) -> bool:
        """Whether the point keeps every rule as a whole, which one that is drawn need not."""
        try:
            config_at(self.sweep_config, self.point, self.seed)
        except ConfigError:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """The trials known before the sweep starts, and what was merged or capped on the way."""

    trials: tuple[TrialPlan, ...]
    notes: tuple[str, ...] = ()


def plan_sweep(config: RunConfig, earlier: Sequence[RunConfig] = ()) -> SweepPlan:
    """The trials of a sweep whose points are known beforehand; none for a search that proposes as it goes.

    `earlier` are the configurations, in order, that a sweep which goes on had before: what was drawn under one stays,
    though an axis has become wider since.
    """
    notes: list[str] = []
    if any(axis.when or axis.also for axis in config.sweep.space.values()):
        notes.append(f"axes: {space_text(config.sweep)}")
    if config.sweep.search in PROPOSING:
        return SweepPlan(trials=(), notes=tuple(notes))
    points = _points(config, earlier)
    points, merged = _merge_equal_geometries(config, points)
    notes += merged
    cap = config.sweep.num_trials
    if cap is not None and len(points) > cap:
        notes.append(f"{len(points)} points, the first {cap} are run (sweep.num_trials)")
        points = points[:cap]
    trials = [
        make_trial(config, point, seed, index)
        for index, (point, seed) in enumerate(
            (point, seed) for point in points for seed in first_seeds(config.sweep)
        )
    ]
    return SweepPlan(trials=tuple(trials), notes=tuple(notes))


def _points(config: RunConfig, earlier: Sequence[RunConfig]) -> list[Point]:
    if config.sweep.points:
        return [full_point(config, point) for point in config.sweep.points]
    if config.sweep.search == "grid":
        return grid_points(config.sweep)
    draw = _sobol_points if config.sweep.search == "sobol" else _random_points
    points: list[Point] = []
    for each in (*earlier, config):
        if (each.sweep.num_trials or 1) > len(points):
            points += draw(each)[len(points) :]
    return points


def full_point(config: RunConfig, point: ListedPoint) -> Point:
    """A listed point with every key that any of them sets, so that all have the same axes.

    A point that names another method is not given the settings of the sweep's own.
    """
    settings = flatten(config)
    if "objective.name" in point.set:
        settings = {key: value for key, value in settings.items() if not key.startswith("objective.")}
    settings |= point.set
    return Point({key: settings[key] for key in searched_keys(config.sweep) if key in settings})


def listed_point(config: RunConfig, point: Point) -> ListedPoint | None:
    """The listed point that this is; None where it comes of a search."""
    if not config.sweep.points:
        return None
    settings = flatten(config)
    for each in config.sweep.points:
        if all(frozen(each.set.get(key, settings.get(key))) == value for key, value in point.items()):
            return each
    return None


def make_trial(config: RunConfig, point: Point, seed: int, index: int) -> TrialPlan:
    """The trial at one point under one seed."""
    basis = f'{{"point": {point.text}, "seed": {seed}}}'
    return TrialPlan(
        trial_id="t" + hashlib.sha256(basis.encode()).hexdigest()[:8],
        index=index,
        point=point,
        seed=seed,
        name=trial_name(config, point, seed),
        sweep_config=config,
    )


def config_at(config: RunConfig, point: Point, seed: int | None = None) -> RunConfig:
    """The configuration at a point of its search space, under the run seed `seed` where one is given.

    Raises:
        ConfigError: The point does not keep every rule.
    """
    return apply_overrides(config, point if seed is None else {**point, "train.seed": seed})


def trial_name(config: RunConfig, point: Point, seed: int) -> str:
    """A readable name: the point's and the seed."""
    return ", ".join([point_name(config, point), f"seed {seed}"] if point else [f"seed {seed}"])


def point_name(config: RunConfig, point: Point) -> str:
    """What a point is called: its listed name, or its words."""
    listed = listed_point(config, point)
    return point.words if listed is None else listed.name


def point_from_units(config: RunConfig, units: Mapping[str, float | int]) -> Point:
    """The point whose dimensions stand at these places: a fraction from 0 to 1, or the index of a choice.

    Axes that do not exist at the point need no place.
    """

    def draw(key: str, axis: Axis) -> object:
        if isinstance(axis, Choice):
            return axis.choices[int(units[key])]
        return axis_value(axis, units[key], units.get(f"{key}.{second_dimension(axis)}", 0.5))

    return build_point(config.sweep.space, draw)


def point_of_fractions(config: RunConfig, fractions: Sequence[float]) -> Point:
    """The point whose dimensions stand at these fractions of their ranges, in the order of `dimensions`."""
    at = dict(zip(dimensions(config.sweep.space), fractions, strict=True))

    def draw(key: str, axis: Axis) -> object:
        return axis_value(axis, at[key], at.get(f"{key}.{second_dimension(axis)}", 0.5))

    return build_point(config.sweep.space, draw)


def _random_points(config: RunConfig) -> list[Point]:
    generator = np.random.default_rng(config.sweep.search_seed)
    draws = generator.random((config.sweep.num_trials or 1, len(dimensions(config.sweep.space))))
    return [point_of_fractions(config, row) for row in draws.tolist()]


def _sobol_points(config: RunConfig) -> list[Point]:
    return even_points(config, config.sweep.num_trials or 1)


def even_points(config: RunConfig, count: int) -> list[Point]:
    """A scrambled Sobol sequence: more even over the space than independent draws, and longer ones continue it."""
    import torch
    from torch.quasirandom import SobolEngine

    seed = config.sweep.search_seed % 2**31
    engine = SobolEngine(len(dimensions(config.sweep.space)), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    draws = engine.draw(count, dtype=torch.float64).clamp(0.0, 1.0)
    return [point_of_fractions(config, row) for row in draws.tolist()]


def _merge_equal_geometries(config: RunConfig, points: Sequence[Point]) -> tuple[list[Point], list[str]]:
    """Drop points that come to the same integer blocks as an earlier one, or read none, and say so."""
    kept: dict[tuple[object, ...], Point] = {}
    notes = []
    for point in points:
        trial_config = config_at(config, point)
        others = Point({key: value for key, value in point.items() if not key.startswith("masks.")})
        reads = reads_masks(trial_config)
        key = (geometry_key(trial_config.masks, trial_config.encoder.grid) if reads else None, others)
        if key in kept:
            same = "masks the same integer blocks as" if reads else "reads no masks, so it is the same run as"
            notes.append(f"merged: {point_name(config, point)} {same} {point_name(config, kept[key])}")
        else:
            kept[key] = point
    return list(kept.values()), notes
