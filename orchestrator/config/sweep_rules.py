"""Rules of the search: which keys, which kinds of axis, and that what the axes give is valid.

A grid is checked point by point before anything starts, but only over the axes that a rule reads. A range is
checked at its ends and its middle, with the other axes at their middles; whether a drawn point is valid as a
whole is known when it is drawn (`apply_overrides`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, get_args, get_origin

from jepa_core.settings import IJepaSettings
from orchestrator.config.axis_rules import axis_values, check_conditions, check_ties
from orchestrator.config.faults import Problem, key_path, problem
from orchestrator.config.fields import nearest_key, settings, with_values
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
from orchestrator.config.rules import RULES, touches
from orchestrator.config.settle import validate_section
from orchestrator.config.space import build_point, choice_index, grid_size
from orchestrator.config.yaml12 import KeyPath
from orchestrator.protocol.point import Point, value_key

MAX_GRID_POINTS = 10_000
MAX_COMBINATIONS = 512
MAX_POINTS_NAMED = 5

_WHOLE_SECTIONS = ("encoder", "predictor", "masks", "objective", "optimizer", "ema")
_SINGLE_KEYS = (
    "data.crop_scale",
    "data.crop_aspect_ratio",
    "train.images",
    "train.batch_size",
    "train.precision",
)
_ELSEWHERE = {
    "train.seed": ("is not an axis", "list the seeds in `sweep.seeds`"),
    "train.num_workers": (
        "is not an axis",
        "the worker groups of a sweep are all of one size; set it outside the space, and run a sweep for each size",
    ),
}
_IDLE_SECTIONS = {
    "mae": ("masks", "predictor", "ema"),
    "cae": ("masks", "predictor", "ema"),
    "vicreg": ("masks", "predictor", "ema"),
    "data2vec": ("masks", "predictor"),
    "data2vec2": ("masks", "predictor"),
    "dino": ("masks", "predictor"),
}
"""Sections that a method does not read; a method that is not here reads all."""
Values = Mapping[str, Sequence[Any]]


def is_sweepable(key: str) -> bool:
    """Whether a setting may be an axis: what a model is and how it learns, not how it is judged."""
    return key in settings() and (settings()[key].section in _WHOLE_SECTIONS or key in _SINGLE_KEYS)


def has_teacher(config: RunConfig) -> bool:
    """Whether a configuration's method has a target encoder that follows the trained one by `ema`."""
    return "ema" not in _IDLE_SECTIONS.get(config.objective.name, ())


def reads_masks(config: RunConfig) -> bool:
    """Whether a configuration's method hides what `masks` says; the others draw what their own settings say."""
    return isinstance(config.objective, IJepaSettings)


def check_space_keys(keys: Sequence[str]) -> list[Problem]:
    """The keys of a search space exist and may be searched."""
    return [bad for key in keys if (bad := check_searched_key(key, ("sweep", "space", key)))]


def check_search(config: RunConfig, faulty: Sequence[KeyPath]) -> list[Problem]:
    """Every rule of the search that a configuration with sound sections breaks."""
    sweep = config.sweep
    is_grid = sweep.search == "grid"
    found = [*_check_counts(config, faulty), *_check_idle(config, faulty)]
    axes = {key: axis for key, axis in sweep.space.items() if is_sweepable(key)}
    structural = _check_structure(config)
    if structural:
        return [*found, *structural]  # which points there are is not known
    unfit = {key: bad for key, axis in axes.items() if (bad := _check_kind(key, axis, is_grid=is_grid))}
    values = {key: axis_values(axis) for key, axis in axes.items() if key not in unfit}
    found += [*unfit.values(), *_check_sections(config, values, is_grid=is_grid)]
    if found and not is_grid:
        return found  # a section has refused an end of a range: what the rules say of it is no news
    unsound = [*faulty, *(key_path(key) for key in unfit)]
    found += _check_rules_at_points(config, values, unsound, is_grid=is_grid)
    return found


def check_searched_key(key: str, path: KeyPath) -> Problem | None:
    """A key that a sweep varies exists and may be searched; `path` is where it is written."""
    if key not in settings():
        near = nearest_key(key)
        remedy = (
            f"did you mean `{near}`?" if near else "an axis is a dotted key, such as `masks.target_scale`"
        )
        return Problem(path=path, rule="is not a known key", remedy=remedy, is_key=True)
    if is_sweepable(key):
        return None
    if key in _ELSEWHERE:
        rule, remedy = _ELSEWHERE[key]
        return Problem(path=path, rule=rule, remedy=remedy, is_key=True)
    remedy = f"an axis is a key of {', '.join(_WHOLE_SECTIONS)}, or {', '.join(_SINGLE_KEYS)}"
    return Problem(path=path, rule="cannot be searched", remedy=remedy, is_key=True)


def _check_counts(config: RunConfig, faulty: Sequence[KeyPath]) -> list[Problem]:
    sweep = config.sweep
    if sweep.search != "grid":
        if sweep.num_trials is None and ("sweep", "num_trials") not in faulty:
            message = f"is required when sweep.search is {sweep.search}; say how many points to draw"
            return [problem(("sweep", "num_trials"), message)]
        if not sweep.space and not any(path[:2] == ("sweep", "space") for path in faulty):
            return [problem(("sweep", "space"), f"must hold an axis when sweep.search is {sweep.search}")]
        return []
    if _check_structure(config):
        return []
    choices = {key: axis for key, axis in sweep.space.items() if isinstance(axis, Choice)}
    size = grid_size(sweep.model_copy(update={"space": choices}))
    if min(size, sweep.num_trials or size) <= MAX_GRID_POINTS:
        return []
    message = (
        f"must make at most {MAX_GRID_POINTS} points, not {size}; set sweep.num_trials or search: random"
    )
    return [problem(("sweep", "space"), message)]


def _check_idle(config: RunConfig, faulty: Sequence[KeyPath]) -> list[Problem]:
    """Every axis is read by a method of the sweep."""
    if any(path[:1] in ((), ("objective",)) for path in faulty):
        return []
    names = axis_values(config.sweep.space.get("objective.name", Choice(choices=(config.objective.name,))))
    idle = set.intersection(*(set(_IDLE_SECTIONS.get(str(name), ())) for name in names))
    methods = ", ".join(str(name) for name in names)
    return [
        Problem(
            path=("sweep", "space", key),
            rule=f"does nothing as an axis: {methods} {'reads' if len(names) == 1 else 'read'} no {section}.* settings",
            remedy="remove it",
            is_key=True,
        )
        for key in config.sweep.space
        if (section := key.partition(".")[0]) in idle
    ]


def _check_kind(key: str, axis: Axis, *, is_grid: bool) -> Problem | None:
    """A range fits the type of its setting, and a grid has none."""
    path: KeyPath = ("sweep", "space", key)
    if isinstance(axis, Choice):
        return None
    if is_grid:
        return problem(
            path,
            "must be `choices` in a grid; list the values, or set sweep.search to random, sobol, optuna or gp",
        )
    if isinstance(axis, (Centered, CenteredRatio)) != _is_pair(key):
        if _is_pair(key):
            return problem(path, f"{key} is a pair; use `center` and `width`, or `center_ratio` and `spread`")
        return problem(path, f"{key} is not a pair; use `uniform`, `log_uniform`, `int_uniform` or `choices`")
    types = _types(settings()[key].annotation)
    if isinstance(axis, (Uniform, LogUniform)) and float not in types:
        return problem(path, f"{key} does not take fractions; use `int_uniform` or `choices`")
    if isinstance(axis, IntUniform) and not types & {int, float}:
        return problem(path, f"{key} is not a number; use `choices`")
    return None


def _is_pair(key: str) -> bool:
    annotation = settings()[key].annotation
    return (
        get_origin(annotation) is tuple
        and len(get_args(annotation)) == 2
        and Ellipsis not in get_args(annotation)
    )


def _types(annotation: Any) -> set[Any]:
    """The plain types of an annotation: itself, or the branches of a union."""
    return {annotation, *get_args(annotation)}


def _check_structure(config: RunConfig) -> list[Problem]:
    """What axes wait for is there, and what they set beside their own key may be searched."""
    space = config.sweep.space
    unknown = [
        bad
        for key, axis in space.items()
        for other in axis.also
        if (bad := check_searched_key(other, ("sweep", "space", key, "also", other)))
    ]
    return [*unknown, *check_conditions(space), *check_ties(space)]


def _check_sections(config: RunConfig, values: Values, *, is_grid: bool) -> list[Problem]:
    """What each section says to the values of its own axes."""
    found: list[Problem] = []
    space = config.sweep.space
    for section in dict.fromkeys(settings()[key].section for own in values for key in _sets(space, own)):
        axes = {
            key: options
            for key, options in values.items()
            if any(settings()[each].section == section for each in _sets(space, key))
        }
        axes = _with_parents(space, axes, values)
        for point, bad in _check_points(space, axes, partial(_section_problems, config), is_grid=is_grid):
            if bad.path[0] != section:
                continue  # of an axis that another one waits for: said where that one's section is checked
            others = [key for key in point if key.rpartition(".")[2] in bad.rule]
            found.append(_placed(bad, point, config.sweep.space, others))
    return found


def _check_rules_at_points(
    config: RunConfig, values: Values, unsound: Sequence[KeyPath], *, is_grid: bool
) -> list[Problem]:
    """The rules between sections: on a grid over the product of the axes that each reads, else an axis at a time."""
    found: list[Problem] = []
    for item in RULES:
        space = config.sweep.space
        axes = {key: options for key, options in values.items() if item.reads.intersection(_sets(space, key))}
        axes = _with_parents(space, axes, values)
        if not axes or any(touches(path, item.reads) for path in unsound):
            continue
        for point, bad in _check_points(
            space, axes, partial(_rule_problems, config, item.check), is_grid=is_grid
        ):
            found.append(_placed(bad, point, config.sweep.space, list(point)))
    return found


def _sets(space: Mapping[str, Axis], key: str) -> tuple[str, ...]:
    """The keys that an axis sets: its own, and those that are tied to it."""
    return (key, *space[key].also)


def _with_parents(space: Mapping[str, Axis], axes: Values, values: Values) -> dict[str, Sequence[Any]]:
    """Axes with those that they wait for, which decide whether they exist."""
    found, left = dict(axes), list(axes)
    while left:
        for parent in space[left.pop()].when:
            if parent in values and parent not in found:
                found[parent] = values[parent]
                left.append(parent)
    return found


def _check_points(
    space: Mapping[str, Axis],
    values: Values,
    check: Callable[[Point], list[Problem]],
    *,
    is_grid: bool,
) -> list[tuple[Point, Problem]]:
    """Points with what is wrong at them, one for each value and rule, and a few at most."""
    found: dict[str, tuple[Point, Problem]] = {}
    for point in _points(space, values, is_grid=is_grid):
        for bad in check(point):
            at = point.get(".".join(str(part) for part in bad.path[:2]))
            found.setdefault(f"{bad.path}{at!r}{bad.rule}", (point, bad))
        if len(found) >= MAX_POINTS_NAMED:
            break
    return list(found.values())


def _points(space: Mapping[str, Axis], values: Values, *, is_grid: bool) -> Iterator[Point]:
    first = {key: options[0] for key, options in values.items()}
    for key, options in values.items():
        for option in options:
            yield _point(space, {**first, **_conditions(space, key), key: option})
    if is_grid and len(values) > 1:
        for combination in itertools.islice(itertools.product(*values.values()), MAX_COMBINATIONS):
            yield _point(space, dict(zip(values, combination, strict=True)))


def _point(space: Mapping[str, Axis], drawn: Mapping[str, Any]) -> Point:
    """The point of values for some of the axes, which hold all that they wait for."""
    return build_point({key: space[key] for key in drawn}, lambda key, _: drawn[key])


def _conditions(space: Mapping[str, Axis], key: str) -> dict[str, Any]:
    """Values of other axes at which an axis exists."""
    found: dict[str, Any] = {}
    for parent, given in space[key].when.items():
        found |= {**_conditions(space, parent), parent: given[0]}
    return found


def _placed(bad: Problem, point: Point, axes: Mapping[str, Axis], involved: Sequence[str]) -> Problem:
    """A problem of a point at the axis it is about, with the values of the other axes that are involved."""
    named = ".".join(str(part) for part in bad.path[:2])
    key = named if named in point else next(iter(point))
    owner = next((own for own, axis in axes.items() if key in axis.also), key)
    axis = axes[owner]
    path: KeyPath = ("sweep", "space", owner)
    if owner != key:
        path = (*path, "also", key)
    elif isinstance(axis, Choice):
        path = (*path, "choices", choice_index(axis, point[key]))
    others = [name for name in (point if named not in point else involved) if name != key]
    given = ", ".join(f"{name} = {value_key(point[name])}" for name in others)
    about = "" if named in point else f"{named} "
    return Problem(
        path=path, rule=f"with {given}: {about}{bad.rule}" if given else about + bad.rule, remedy=bad.remedy
    )


def _section_problems(config: RunConfig, point: Point) -> list[Problem]:
    """What the sections of a point's keys say to it."""
    return at_point(config, point)[1]


def at_point(config: RunConfig, point: Point) -> tuple[RunConfig, list[Problem]]:
    """The configuration at a point, section by section, and the problems of its sections."""
    problems: list[Problem] = []
    sections: dict[str, Any] = {}
    dumped = json.loads(config.model_dump_json(include={settings()[key].section for key in point}))
    for section in dumped:
        changes = {
            str(key_path(key)[1]): value for key, value in point.items() if settings()[key].section == section
        }
        data = with_values(section, dumped[section], changes)
        sections[section], found = validate_section(section, data)
        problems += found
    return (config if problems else config.model_copy(update=sections)), problems


def _rule_problems(
    config: RunConfig, check: Callable[[RunConfig], list[Problem]], point: Point
) -> list[Problem]:
    there, problems = at_point(config, point)
    return [] if problems else check(there)
