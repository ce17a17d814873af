"""Rules of a sweep's listed points: which keys they set, and that each point is valid as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.faults import Problem, problem
from orchestrator.config.models import ListedPoint, RunConfig
from orchestrator.config.rules import RULES, touches
from orchestrator.config.sweep_rules import at_point, check_searched_key
from orchestrator.config.yaml12 import KeyPath
from orchestrator.protocol.point import Point


def check_points(config: RunConfig, faulty: Sequence[KeyPath]) -> list[Problem]:
    """Every rule that the listed points of a configuration with sound sections break."""
    sweep = config.sweep
    if not sweep.points or any(path[:2] == ("sweep", "points") for path in faulty):
        return []
    found = []
    if sweep.space:
        message = "cannot stand beside sweep.space; list every point, or search the space"
        found.append(problem(("sweep", "points"), message))
    if sweep.search != "grid":
        message = f"must be grid where sweep.points are listed, not {sweep.search}; nothing is searched"
        found.append(problem(("sweep", "search"), message))
    names: dict[str, int] = {}
    contents: dict[str, str] = {}
    for index, point in enumerate(sweep.points):
        place: KeyPath = ("sweep", "points", index)
        if names.setdefault(point.name, index) != index:
            message = f"is the name of point {names[point.name]} too; rename one"
            found.append(problem((*place, "name"), message))
        there, problems = _at_listed(config, point, place, faulty)
        found += problems
        content = there.model_dump_json(exclude={"sweep"})
        if not problems and contents.setdefault(content, point.name) != point.name:
            message = f"comes to the same configuration as {contents[content]!r}; remove one"
            found.append(problem((*place, "set") if point.set else place, message))
    return found


def _at_listed(
    config: RunConfig, point: ListedPoint, place: KeyPath, faulty: Sequence[KeyPath]
) -> tuple[RunConfig, list[Problem]]:
    """The configuration at a point, and what is wrong with it."""
    place = (*place, "set")
    bad_keys = [bad for key in point.set if (bad := check_searched_key(key, (*place, key)))]
    if bad_keys or not point.set:
        return config, bad_keys
    there, found = at_point(config, Point(point.set))
    if not found:
        keys = frozenset(point.set)
        for rule in RULES:
            if rule.reads & keys and not any(touches(path, rule.reads) for path in faulty):
                found += rule.check(there)
    return there, [_placed(bad, point, place) for bad in found]


def _placed(bad: Problem, point: ListedPoint, place: KeyPath) -> Problem:
    """A problem of a point at the key that it is about, or at the first where it is about another."""
    named = ".".join(str(part) for part in bad.path[:2])
    if named in point.set:
        return Problem(path=(*place, named), rule=bad.rule, remedy=bad.remedy)
    return Problem(path=(*place, next(iter(point.set))), rule=f"{named} {bad.rule}", remedy=bad.remedy)
