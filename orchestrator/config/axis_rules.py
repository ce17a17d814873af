"""Rules of conditional and tied axes: what an axis waits for is there, and what else it sets can be set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.config.faults import Problem, problem
from orchestrator.config.models import Axis, Choice, Times
from orchestrator.config.space import axis_order, axis_value, tied_value
from orchestrator.config.yaml12 import KeyPath
from orchestrator.protocol.point import value_key


def axis_values(axis: Axis) -> tuple[Any, ...]:
    """What an axis is checked at: every choice, or the middle and the ends of a range."""
    if isinstance(axis, Choice):
        return axis.choices
    return tuple(
        dict.fromkeys(axis_value(axis, at, second) for second in (0.5, 0.0, 1.0) for at in (0.5, 0.0, 1.0))
    )


def check_conditions(space: Mapping[str, Axis]) -> list[Problem]:
    """Every axis that another waits for is in the space, is a list of choices, and has the values that are named."""
    found: list[Problem] = []
    for key, axis in space.items():
        for parent, values in axis.when.items():
            path: KeyPath = ("sweep", "space", key, "when", parent)
            other = space.get(parent)
            if other is None:
                message = (
                    "is not an axis of sweep.space, so it never changes; add it there, or drop the condition"
                )
                found.append(_of_key(path, message))
            elif not isinstance(other, Choice):
                message = (
                    f"is a range, which takes no value exactly; list its `choices`, or drop {key}'s condition"
                )
                found.append(_of_key(path, message))
            else:
                found += _check_values(path, other, values)
    if not found:
        found += _check_circles(space)
    return found


def _check_values(path: KeyPath, parent: Choice, values: tuple[Any, ...]) -> list[Problem]:
    known = [value_key(choice) for choice in parent.choices]
    missing = [value for value in values if value_key(value) not in known]
    if not missing:
        return []
    rule = f"{value_key(missing[0])} is none of that axis' choices; they are {', '.join(known[:10])}"
    return [problem(path, rule)]


def _check_circles(space: Mapping[str, Axis]) -> list[Problem]:
    """No axis waits, through others, for itself."""
    placed: list[str] = []
    for key in axis_order(space):
        if any(parent not in placed for parent in space[key].when):
            waiting = [other for other in space if other not in placed]
            message = f"waits for itself, among {', '.join(waiting)}; one of them must not have a condition"
            return [problem(("sweep", "space", key, "when"), message)]
        placed.append(key)
    return []


def check_ties(space: Mapping[str, Axis]) -> list[Problem]:
    """No key is set twice, and every tie fits its axis."""
    found: list[Problem] = []
    owners: dict[str, str] = {}
    for key, axis in space.items():
        for other, tie in axis.also.items():
            path: KeyPath = ("sweep", "space", key, "also", other)
            if other in space:
                found.append(_of_key(path, "is an axis itself; a key is either searched or tied"))
            elif owners.setdefault(other, key) != key:
                found.append(_of_key(path, f"is tied to {owners[other]} too; a key follows one axis"))
            elif isinstance(tie, tuple) and not isinstance(axis, Choice):
                found.append(problem(path, "is a list, but its axis is a range; use `same` or `times`"))
            elif isinstance(tie, tuple) and isinstance(axis, Choice) and len(tie) != len(axis.choices):
                message = f"must hold one value for each of the {len(axis.choices)} choices, not {len(tie)}"
                found.append(problem(path, message))
            elif isinstance(tie, Times) and not _has_multiples(axis, tie):
                found.append(problem(path, "multiplies what is no number; use `same` or a list of values"))
    return found


def _has_multiples(axis: Axis, tie: Times) -> bool:
    try:
        for value in axis_values(axis):
            tied_value(axis, tie, value)
    except ValueError:
        return False
    return True


def _of_key(path: KeyPath, message: str) -> Problem:
    bad = problem(path, message)
    return Problem(path=path, rule=bad.rule, remedy=bad.remedy, is_key=True)
