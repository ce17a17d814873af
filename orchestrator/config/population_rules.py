"""Rules of `sweep.pbt`: what a population begins with, which settings may change in mid-training, what it excludes."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.faults import Problem, key_path, problem
from orchestrator.config.models import PROPOSING, Choice, RunConfig
from orchestrator.config.space import grid_size
from orchestrator.config.yaml12 import KeyPath

_CHANGEABLE = (
    "masks.",
    "ema.",
    "data.crop_scale",
    "data.crop_aspect_ratio",
    "optimizer.learning_rate",
    "optimizer.start_learning_rate",
    "optimizer.final_learning_rate",
    "optimizer.weight_decay",
    "optimizer.final_weight_decay",
    "optimizer.gradient_clip_norm",
)
"""Settings that every step reads anew and that no tensor of a checkpoint has its shape or its meaning from."""


def check_population(config: RunConfig, faulty: Sequence[KeyPath]) -> list[Problem]:
    """Every rule of population based training that a configuration with sound sections breaks."""
    if config.sweep.pbt is None or any(path[:2] == ("sweep", "pbt") for path in faulty):
        return []
    is_sound = not any(path[:1] == ("sweep",) for path in faulty)
    return [*_check_exclusive(config), *(_check_axes(config) if is_sound else []), *_check_length(config)]


def _check_exclusive(config: RunConfig) -> list[Problem]:
    """What decides about trials in another way cannot stand beside a population."""
    sweep, found = config.sweep, []
    if sweep.asha is not None:
        message = "cannot stand beside sweep.pbt: one stops the worst, the other has them go on; remove one"
        found.append(problem(("sweep", "asha"), message))
    if sweep.seeds == "auto" or len(sweep.seeds) > 1:
        message = (
            "must be one seed under sweep.pbt, whose members share initial weights and data order; run the "
            "sweep again under another to see its noise"
        )
        found.append(problem(("sweep", "seeds"), message))
    if sweep.search in PROPOSING:
        message = f"must be grid, random or sobol under sweep.pbt, not {sweep.search}: members begin together"
        found.append(problem(("sweep", "search"), message))
    if sweep.points:
        message = "cannot stand beside sweep.pbt, which changes settings along the axes of sweep.space"
        found.append(problem(("sweep", "points"), message))
    return found


def _check_axes(config: RunConfig) -> list[Problem]:
    """Every axis may change in mid-training, on its own, and there is a population to rank."""
    sweep, found = config.sweep, []
    for key, axis in sweep.space.items():
        path: KeyPath = ("sweep", "space", key)
        if not key.startswith(_CHANGEABLE):
            message = (
                "cannot change in mid-training, so not under sweep.pbt; its axes are of masks.* and ema.*, the "
                "crop, the rates and weight decays of optimizer.*, or optimizer.gradient_clip_norm"
            )
            bad = problem(path, message)
            found.append(Problem(path=path, rule=bad.rule, remedy=bad.remedy, is_key=True))
        elif axis.when or axis.also:
            found.append(
                problem(path, "cannot have `when` or `also` under sweep.pbt: members change each axis alone")
            )
    is_listed = all(isinstance(axis, Choice) for axis in sweep.space.values())
    size = grid_size(sweep) if sweep.search == "grid" and is_listed else sweep.num_trials
    if not found and not sweep.points and size is not None and min(size, sweep.num_trials or size) < 2:
        message = "needs a population of two members or more; give sweep.space more points, or raise sweep.num_trials"
        found.append(problem(("sweep", "pbt"), message))
    return found


def _check_length(config: RunConfig) -> list[Problem]:
    """A generation ends before training does."""
    every, images = config.sweep.pbt.every_images if config.sweep.pbt else 0, config.train.images
    if every < images:
        return []
    message = f"must be below train.images ({images}), or no generation ends before training does"
    return [problem(key_path("sweep.pbt.every_images"), message)]
