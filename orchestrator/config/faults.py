"""From pydantic's errors and our own rules to faults in plain words.

Owns the wording, the attribution to a key and the remedy. Leaves out where a key was written (`load` adds
file, line and column). A `Problem` names its key by path; one problem a key and rule, whatever pydantic's
unions say.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from orchestrator.config.fields import nearest_key, section_types, settings, variants_of
from orchestrator.config.models import AXIS_KINDS
from orchestrator.config.yaml12 import KeyPath

REQUIRED = "is required"

_PLAIN = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "dataclass_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "finite_number": "must be a finite number",
    "missing": REQUIRED,
}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}
_WORD_RULE = "must be 1 to 100 letters, digits, `.`, `_` or `-`, starting with a letter or digit"
_BOOLEAN_WORDS = {"on": "true", "yes": "true", "y": "true", "off": "false", "no": "false", "n": "false"}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A broken rule at a path; `is_key` says that the key itself is at fault and not its value."""

    path: KeyPath
    rule: str
    remedy: str = ""
    is_key: bool = False


def problem(path: KeyPath, message: str) -> Problem:
    """A problem from a `rule; remedy` message."""
    rule, _, remedy = message.partition("; ")
    return Problem(path=path, rule=rule, remedy=remedy)


def key_text(path: KeyPath) -> str:
    """The dotted key of a path; list positions in brackets."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text[:200]


def key_path(key: str) -> KeyPath:
    """The path of a dotted key; below `sweep.space` the axis' own dotted key is one part."""
    parts = key.split(".")
    if parts[:2] == ["sweep", "space"] and len(parts) > 2:
        size = 2 if len(parts) > 3 and parts[2] in section_types() else 1
        return ("sweep", "space", ".".join(parts[2 : 2 + size]), *parts[2 + size :])
    return tuple(parts)


def problems_of(errors: Sequence[ErrorDetails], data: Any) -> list[Problem]:
    """One problem a key, in pydantic's order; the branches of a union become one rule."""
    grouped: dict[tuple[KeyPath, bool], list[ErrorDetails]] = {}
    for error in errors:
        path = path_in_data(error, data)
        grouped.setdefault((path, error["type"] in _UNKNOWN), []).append(error)
    return [_problem_of(path, group, _value_at(data, path)) for (path, _), group in grouped.items()]


def named_field(message: str, section: str) -> str:
    """The field of a section that a message names first, or an empty string."""
    fields = {row.name for row in settings().values() if row.section == section}
    return next((word for word in re.findall(r"[a-z][a-z0-9_]*", message) if word in fields), "")


def path_in_data(error: ErrorDetails, data: Any) -> KeyPath:
    """The part of a location that exists in the data; pydantic adds the branches of unions to it."""
    path: list[str | int] = []
    here = data
    parts = error["loc"]
    if parts[:2] == ("sweep", "space") and len(parts) > 3 and parts[3] in AXIS_KINDS:
        parts = (*parts[:3], *parts[4:])  # the axis' kind, which is also the name of one of its keys
    for part in parts:
        inside = isinstance(here, dict) and part in here
        if not inside and not (isinstance(here, list) and isinstance(part, int) and part < len(here)):
            continue
        path.append(part)
        here = here[part]
    if error["type"] == "missing" and isinstance(error["loc"][-1], str):
        path.append(error["loc"][-1])
    return tuple(path)


def _value_at(data: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            data = data[part]
        except (LookupError, TypeError):
            return None
    return data


def _problem_of(path: KeyPath, group: Sequence[ErrorDetails], value: Any) -> Problem:
    error = group[0]
    if error["type"] in _UNKNOWN:
        return _of_another_variant(path, error) or _unknown_key(path)
    if len(path) == 1 and error["type"].startswith("union_tag") and variants_of(str(path[0])):
        return _unknown_variant(str(path[0]), value)
    if error["type"] == "value_error":
        return _value_error(path, str(error["ctx"]["error"]))
    if error["type"] == "union_tag_not_found":
        return Problem(
            path=path, rule=f"must hold exactly one of {', '.join(AXIS_KINDS)}", remedy=_axis_remedy(value)
        )
    rules = list(dict.fromkeys(_rule(item, value) for item in group if _relevant(item, group)))
    if "must be a number" in rules and "must be a whole number" in rules:
        rules.remove("must be a whole number")
    rule = rules[0] + "".join(f", or {other.removeprefix('must be ')}" for other in rules[1:])
    return Problem(path=path, rule=rule, remedy=_remedy(group, value))


def _relevant(error: ErrorDetails, group: Sequence[ErrorDetails]) -> bool:
    """A bound that is broken says more than the other branches of the union, whose type did not match."""
    has_bound = any(item["type"] in _BOUNDS for item in group)
    return error["type"] in _BOUNDS or not has_bound


def _rule(error: ErrorDetails, value: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return (
            f"{words} {context[name]:g}" if isinstance(context[name], float) else f"{words} {context[name]}"
        )
    if kind == "literal_error":
        return f"must be one of {str(context['expected']).replace(' or ', ', ')}"
    if kind == "string_pattern_mismatch":
        return (
            _WORD_RULE if "A-Za-z" in str(context["pattern"]) else "must be 1 to 200 characters without `/`"
        )
    if kind in ("too_long", "too_short") or (kind == "missing" and isinstance(error["loc"][-1], int)):
        return _length_rule(error, value)
    return _PLAIN.get(kind, error["msg"][:1].lower() + error["msg"][1:])


def _length_rule(error: ErrorDetails, value: Any) -> str:
    context, given = error.get("ctx", {}), len(value) if hasattr(value, "__len__") else 0
    if error["type"] == "too_short":
        return f"must hold at least {context['min_length']} values, not {given}"
    if error["type"] == "too_long":
        return f"must hold at most {context['max_length']} values, not {given}"
    return f"must hold more than {given} values" if given != 1 else "must hold more than 1 value"


def _value_error(path: KeyPath, message: str) -> Problem:
    """A rule of ours, or of a core dataclass, whose field is the one the message names."""
    if len(path) == 1 and path[0] in section_types():
        field = named_field(message, str(path[0]))
        return problem((*path, field) if field else path, message)
    return problem(path, message)


def _of_another_variant(path: KeyPath, error: ErrorDetails) -> Problem | None:
    """A key that another name of its section has, such as `objective.mask_fraction` under I-JEPA."""
    found = settings().get(key_text(path))
    if found is None or not found.variants or len(error["loc"]) < 2:
        return None
    owners = ", ".join(name for name, _ in found.variants)
    section = str(path[0])
    return Problem(
        path=path,
        rule=f"is not a setting of {section}.name {error['loc'][1]}",
        remedy=f"it belongs to {owners}",
        is_key=True,
    )


def _unknown_variant(section: str, value: Any) -> Problem:
    names = list(variants_of(section))
    if not isinstance(value, dict):
        return Problem(path=(section,), rule=_PLAIN["dict_type"])
    near = difflib.get_close_matches(str(value.get("name"))[:50], names, n=1)
    return Problem(
        path=(section, "name"),
        rule=f"must be one of {', '.join(repr(name) for name in names)}",
        remedy=f"did you mean `{near[0]}`?" if near else "",
    )


def _unknown_key(path: KeyPath) -> Problem:
    near = nearest_key(key_text(path))
    section, valid = path[:-1], ""
    if not near and len(section) == 1:
        valid = ", ".join(row.name for row in settings().values() if row.section == section[0])
    remedy = f"did you mean `{near}`?" if near else f"valid keys: {valid}" if valid else ""
    return Problem(path=path, rule="is not a known key", remedy=remedy, is_key=True)


def _axis_remedy(value: Any) -> str:
    if isinstance(value, list):
        return "write `choices: [...]` to list values"
    for key in value if isinstance(value, dict) else ():
        near = difflib.get_close_matches(str(key)[:50], AXIS_KINDS, n=1)
        if near and key not in AXIS_KINDS:
            return f"did you mean `{near[0]}`?"
    return ""


def _remedy(group: Iterable[ErrorDetails], value: Any) -> str:
    kinds = {error["type"] for error in group}
    if isinstance(value, str):
        options = [str(item["ctx"]["expected"]) for item in group if item["type"] == "literal_error"]
        near = difflib.get_close_matches(value[:50], re.findall(r"'([^']+)'", " ".join(options)), n=1)
        if near:
            return f"did you mean `{near[0]}`?"
        return _text_remedy(kinds, value)
    if "string_type" in kinds and isinstance(value, (bool, int, float)):
        return "quote it"
    if isinstance(value, bool):
        return ""
    return "write a list, such as [1, 2]" if "tuple_type" in kinds else ""


def _text_remedy(kinds: set[str], value: str) -> str:
    plain = value.replace("_", "").replace(",", "").strip()
    if kinds & {"int_type", "float_type"} and re.fullmatch(
        r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", plain
    ):
        return f"write {plain} without quotes, `_` or `,`"
    if "bool_type" in kinds:
        return f"write {_BOOLEAN_WORDS.get(value.lower(), 'true or false')}"
    return "write a list, such as [1, 2]" if "tuple_type" in kinds else ""
