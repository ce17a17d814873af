"""The table of every setting: dotted key, type, default and documentation.

Owns the walk over the pydantic sections and the core's dataclasses. Leaves out validation (`load`, `rules`)
and presentation (`schema`). A dotted key is a section and a field (`masks.target_scale`), or `name`.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import operator
import textwrap
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from orchestrator.config.models import RunConfig

RETIRED: dict[str, tuple[str, dict[bool, Any]]] = {
    "objective.normalize_targets": ("objective.target_norm", {True: "layer", False: "none"})
}
"""Switches of earlier versions: the key that took the place of each, and its values by the old ones."""

_DOCSTRINGS: dict[type[Any], Mapping[str, str]] = {}
"""What was read of each class; reading its source costs milliseconds, and only the reference asks for it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field as the configuration reference shows it. `annotation` is its Python type."""

    key: str
    section: str
    name: str
    annotation: Any
    default: Any
    owners: tuple[type[Any], ...]
    """The classes that define it, one for each variant of its section."""
    bounds: tuple[str, ...] = ()
    is_required: bool = False
    variants: tuple[tuple[str, Any], ...] = ()
    """For a section whose `name` decides its settings: the names that have this one, each with its default."""

    @property
    def type_text(self) -> str:
        """The type in plain words."""
        return describe_type(self.annotation)

    @property
    def documentation(self) -> str:
        """What its owners say of it, read from their source when it is asked for."""
        texts = (attribute_docstrings(kind).get(self.name, "") for kind in self.owners)
        return " Or: ".join(dict.fromkeys(text for text in texts if text))


@cache
def section_types() -> dict[str, type[Any]]:
    """Section name -> the model or dataclass that defines it."""
    hints = {name: info.annotation for name, info in RunConfig.model_fields.items()}
    kinds = {name: next(iter(variants_of(name).values()), kind) for name, kind in hints.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and _is_section(kind)}


@cache
def variants_of(section: str) -> dict[str, type[Any]]:
    """The models of a section whose `name` decides its settings, by that name; empty for a plain section."""
    hint = get_type_hints(RunConfig).get(section)
    if get_origin(hint) not in (Union, types.UnionType):
        return {}
    kinds = [kind for kind in get_args(hint) if isinstance(kind, type) and _is_section(kind)]
    return {str(get_args(get_type_hints(kind)["name"])[0]): kind for kind in kinds}


def with_values(section: str, data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A section's data with changes; another `name` starts from that name's defaults, nothing is carried over."""
    variants = variants_of(section)
    first = next(iter(variants), None)
    switches = bool(variants) and changes.get("name", data.get("name", first)) != data.get("name", first)
    return {**({} if switches else data), **changes}


@cache
def settings() -> dict[str, Setting]:
    """Every setting by dotted key, in file order."""
    table: dict[str, Setting] = {}
    sections = section_types()
    for name in RunConfig.model_fields:
        if variants_of(name):
            rows = _merged_rows(name)
        else:
            rows = rows_of(sections[name], name) if name in sections else [_pydantic_row(RunConfig, "", name)]
        table.update({row.key: row for row in rows})
    return table


def section_doc(section: str) -> str:
    """The docstring of a section's class, or of each of its variants."""
    variants = variants_of(section)
    if not variants:
        return inspect.cleandoc(section_types()[section].__doc__ or "")
    about = [f"- `{name}`: {inspect.cleandoc(kind.__doc__ or '')}" for name, kind in variants.items()]
    return f"`{section}.name` decides which settings there are.\n\n" + "\n".join(about)


def _merged_rows(section: str) -> list[Setting]:
    """The settings of all variants of a section, one row a key."""
    rows: dict[str, list[tuple[str, Setting]]] = {}
    for name, kind in variants_of(section).items():
        for row in rows_of(kind, section):
            rows.setdefault(row.key, []).append((name, row))
    return [_merged(shared) for shared in rows.values()]


def _merged(shared: list[tuple[str, Setting]]) -> Setting:
    first = shared[0][1]
    annotations = list(dict.fromkeys(row.annotation for _, row in shared))
    if first.name == "name":
        return dataclasses.replace(first, annotation=Literal[tuple(name for name, _ in shared)])
    return dataclasses.replace(
        first,
        annotation=functools.reduce(operator.or_, annotations),
        owners=tuple(owner for _, row in shared for owner in row.owners),
        variants=tuple((name, row.default) for name, row in shared),
    )


def describe_type(annotation: Any) -> str:
    """A type in the words of the configuration reference."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(describe_type(argument) for argument in arguments)
    if origin in (list, tuple):
        return _describe_list(arguments)
    if origin is dict:
        return "mapping"
    words = {int: "integer", float: "number", str: "text", bool: "true | false", type(None): "null"}
    if annotation in words:
        return words[annotation]
    if hasattr(annotation, "__metadata__"):
        return describe_type(arguments[0])
    return "mapping" if isinstance(annotation, type) and _is_section(annotation) else "any value"


def nearest_key(unknown: str) -> str:
    """The valid dotted key closest to an unknown one, or that took its place, or an empty string."""
    if unknown in RETIRED:
        return RETIRED[unknown][0]
    section, _, name = unknown.rpartition(".")
    siblings = [setting.name for setting in settings().values() if setting.section == section]
    siblings = siblings if section else list(RunConfig.model_fields)
    local = difflib.get_close_matches(name[:100], siblings, n=1, cutoff=0.75)
    if local:
        return f"{section}.{local[0]}" if section else local[0]
    elsewhere = [key for key, setting in settings().items() if setting.name == name]
    if elsewhere:
        return elsewhere[0]
    close = difflib.get_close_matches(unknown[:100], list(settings()), n=1, cutoff=0.75)
    weak = difflib.get_close_matches(name[:100], siblings, n=1, cutoff=0.5)
    return close[0] if close else f"{section}.{weak[0]}".lstrip(".") if weak else ""


def _describe_list(arguments: tuple[Any, ...]) -> str:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"list of {describe_type(arguments[0])}"
    if len(set(arguments)) == 1 and len(arguments) > 1:
        return f"list of {len(arguments)} {describe_type(arguments[0])}s"
    return "list of " + ", ".join(describe_type(argument) for argument in arguments)


def _is_section(kind: type[Any]) -> bool:
    return dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel)


def rows_of(kind: type[Any], section: str) -> list[Setting]:
    """The settings of a model or dataclass, keyed below a section."""
    if issubclass(kind, BaseModel):
        return [_pydantic_row(kind, section, name) for name in kind.model_fields]
    hints = get_type_hints(kind)
    return [
        Setting(
            key=f"{section}.{field.name}",
            section=section,
            name=field.name,
            annotation=hints[field.name],
            default=field.default,
            owners=(kind,),
        )
        for field in dataclasses.fields(kind)
    ]


def _pydantic_row(kind: type[BaseModel], section: str, name: str) -> Setting:
    info = kind.model_fields[name]
    default = info.get_default(call_default_factory=True)
    return Setting(
        key=f"{section}.{name}" if section else name,
        section=section,
        name=name,
        annotation=info.annotation,
        default=None if default is PydanticUndefined else default,
        owners=(kind,),
        is_required=info.is_required(),
        bounds=tuple(words for item in info.metadata if (words := _bound(item))),
    )


def _bound(constraint: Any) -> str:
    words = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
    for attribute, phrase in words.items():
        if getattr(constraint, attribute, None) is not None:
            return f"{phrase} {getattr(constraint, attribute)}"
    return ""


def attribute_docstrings(kind: type[Any]) -> Mapping[str, str]:
    """What is written under the fields of a class and of its bases by field name; empty without their source."""
    if kind not in _DOCSTRINGS:
        owners = [base for base in reversed(kind.__mro__) if base is not BaseModel and _is_section(base)]
        _DOCSTRINGS[kind] = {name: text for base in owners for name, text in _read_docstrings(base).items()}
    return _DOCSTRINGS[kind]


def _read_docstrings(kind: type[Any]) -> Mapping[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found: dict[str, str] = {}
    for statement, following in itertools.pairwise(body):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[statement.target.id] = " ".join(str(following.value.value).split())
    return found
