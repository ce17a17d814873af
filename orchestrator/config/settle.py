"""Validating plain data until what is left is sound, so that one fault does not hide the next.

Owns the rounds of validation by pydantic and the taking out of what is faulty. Leaves out wording (`faults`),
the rules between sections (`rules`) and places in a file (`load`).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config.faults import REQUIRED, Problem, path_in_data, problems_of
from orchestrator.config.fields import variants_of
from orchestrator.config.models import RunConfig
from orchestrator.config.uris import NOT_TEXT, NOT_TEXT_REMEDY, is_text
from orchestrator.config.yaml12 import KeyPath


def settle(data: Any, known: Sequence[Problem]) -> tuple[RunConfig, list[Problem]]:
    """Validate, take out what is faulty, and again until the rest is sound.

    Once something faulty is out, a problem is believed only where a value was given and nothing was taken
    out of it, since defaults now stand in. Each round removes something, and an empty mapping is sound.
    """
    problems: list[Problem] = []
    while True:
        try:
            return RunConfig.model_validate_json(json.dumps(data), strict=True), problems
        except ValidationError as error:
            errors = error.errors(include_url=False)
        whole = _with_whole_numbers(errors, data)
        if whole is not None:
            data = whole
            continue
        found = problems_of(errors, data)
        earlier = [*known, *problems]
        problems += [bad for bad in found if not earlier or _is_independent(bad, data, earlier)]
        pruned = without(data, found)
        data = pruned if pruned != data else {}


def _is_independent(bad: Problem, data: Any, earlier: Sequence[Problem]) -> bool:
    """Whether a problem is about a value that was given and of which nothing was taken out."""
    is_touched = any(other.path[: len(bad.path)] == bad.path for other in earlier)
    return not is_touched and (is_set(data, bad.path) or bad.rule == REQUIRED)


def is_set(data: Any, path: KeyPath) -> bool:
    """Whether the data holds a value at a path."""
    for part in path:
        try:
            data = data[part]
        except (LookupError, TypeError):
            return False
    return True


def _with_whole_numbers(errors: Sequence[ErrorDetails], data: Any) -> Any | None:
    """The data with `1e6` turned into 1000000 where only that fits; None when nothing was turned."""
    turned = None
    for error in errors:
        value = error["input"]
        is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        if error["type"] not in ("int_type", "int_from_float") or not is_whole:
            continue
        turned = copy.deepcopy(data) if turned is None else turned
        path = path_in_data(error, turned)
        parent = turned
        for part in path[:-1]:
            parent = parent[part]
        parent[path[-1]] = int(value)
    return turned


def without(data: Any, problems: Sequence[Problem]) -> Any:
    """The data without the settings that problems are about; a list goes whole.

    So does a section whose `name`, which decides its settings, is at fault.
    """
    kept = copy.deepcopy(data)
    for bad in problems:
        here, holder, name = kept, None, ""
        names_variant = bad.path[1:] == ("name",) and variants_of(str(bad.path[0]))
        for part in bad.path[:1] if names_variant else bad.path:
            if not isinstance(here, dict) or part not in here:
                break
            here, holder, name = here[part], here, str(part)
        if holder is not None:
            del holder[name]
    return kept


def unwritable(value: Any, path: KeyPath) -> list[Problem]:
    """What no file of settings can hold, wherever it is: numbers that are not finite, names that are no text."""
    if isinstance(value, dict):
        return [bad for name, item in value.items() for bad in unwritable(item, (*path, name))]
    if isinstance(value, list):
        return [bad for index, item in enumerate(value) for bad in unwritable(item, (*path, index))]
    if isinstance(value, float) and not math.isfinite(value):
        return [Problem(path=path, rule="must be a finite number")]
    if isinstance(value, str) and not is_text(value):
        return [Problem(path=path, rule=NOT_TEXT, remedy=NOT_TEXT_REMEDY)]
    return []


def validate_section(section: str, data: dict[str, Any]) -> tuple[Any, list[Problem]]:
    """One section alone: its settings, or None and the problems of a single round."""
    try:
        return _adapter(section).validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    whole = _with_whole_numbers(errors, data)
    if whole is not None:
        return validate_section(section, whole)
    located: list[ErrorDetails] = [{**error, "loc": (section, *error["loc"])} for error in errors]
    return None, problems_of(located, {section: data})


@cache
def _adapter(section: str) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(RunConfig, include_extras=True)[section])
