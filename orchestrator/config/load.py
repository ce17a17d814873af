"""The doors of the configuration: a file, overrides or a point of the search in, a checked `RunConfig` out.

Owns the order of checks and the collection of every fault at once. Leaves out parsing (`yaml12`), wording
(`faults`) and the rules (`models` and the core for one section, `rules` between sections). Called by the CLI
and by `sweep`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.config import yaml12
from orchestrator.config.faults import Problem, key_path, key_text
from orchestrator.config.fields import RETIRED, section_types, settings, variants_of, with_values
from orchestrator.config.models import RunConfig
from orchestrator.config.point_rules import check_points
from orchestrator.config.population_rules import check_population
from orchestrator.config.rules import check_run
from orchestrator.config.settle import is_set, settle, unwritable, without
from orchestrator.config.space import searched_keys
from orchestrator.config.sweep_rules import check_search as check_search_rules
from orchestrator.config.sweep_rules import check_space_keys
from orchestrator.config.uris import NOT_TEXT, NOT_TEXT_REMEDY, is_text, mask_secrets
from orchestrator.config.yaml12 import Document, KeyPath, Place
from orchestrator.errors import ConfigError, Fault
from orchestrator.protocol.point import frozen

MAX_TEXT_CHARACTERS = 400
MAX_GIVEN_CHARACTERS = 100
MAX_KEY_PARTS = 8
MAX_FAULTS = 100
_log = logging.getLogger(__name__)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a sweep file, apply `key=value` overrides in order and check everything.

    Raises:
        ConfigError: With every fault of the file and the overrides.
    """
    document = yaml12.parse(yaml12.read_text(path), str(path))
    return _checked(document, overrides)


def parse_config(text: str | bytes, *, source: str = "<text>", overrides: Sequence[str] = ()) -> RunConfig:
    """Like `load_config`, from YAML text; bytes must be UTF-8.

    Raises:
        ConfigError: With every fault of the text and the overrides.
    """
    decoded = text if isinstance(text, str) else yaml12.decode(text, source)
    return _checked(yaml12.parse(decoded, source), overrides)


def default_config(overrides: Sequence[str] = ()) -> RunConfig:
    """The defaults with `key=value` overrides.

    Raises:
        ConfigError: With every fault of the overrides.
    """
    return _checked(Document(data={}), overrides)


def apply_overrides(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Set dotted keys to Python values and check the result.

    The rules of the search space are left out when only its own keys and `train.seed` are set: a point of a
    search that has been checked cannot break them, and a sweep applies thousands.

    Raises:
        ConfigError: With every fault.
    """
    document = Document(data=_switched(to_data(config), values))
    place = Place(source="override")
    problems = [
        bad for key, value in values.items() for bad in _assign(document, key_path(key), _plain(value), place)
    ]
    searched = searched_keys(config.sweep)
    is_point = all(key == "train.seed" or key in searched for key in values)
    return _validate(document, problems, check_search=not is_point)


def _switched(data: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The data without the settings of a variant that the values replace with another, by its `name`."""
    for section in section_types():
        if f"{section}.name" in values and variants_of(section):
            data[section] = with_values(section, data[section], {"name": values[f"{section}.name"]})
    return data


def to_data(config: RunConfig) -> dict[str, Any]:
    """Plain data (dicts, lists and scalars) that loads back to an equal configuration."""
    data: dict[str, Any] = json.loads(config.model_dump_json())
    return data


def dump(config: RunConfig) -> str:
    """YAML text with every setting, that loads back to an equal configuration."""
    return yaml12.dump(to_data(config))


def flatten(config: RunConfig) -> dict[str, Any]:
    """Every setting under its dotted key: scalars, None, and tuples for lists; the search space by axis."""
    return dict(_leaves(config.model_dump(), ""))


def _leaves(value: Any, key: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(key, frozen(value))]
    pairs = [_leaves(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()]
    return [pair for group in pairs for pair in group]


def _plain(value: Any) -> Any:
    """Tuples become lists and scalars of NumPy or torch become Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.item() if hasattr(value, "item") else str(value)


def _checked(document: Document, overrides: Sequence[str]) -> RunConfig:
    """Normalise a parsed document, apply the overrides and validate."""
    if document.data is None:
        raise ConfigError(
            [_fault(document, Problem(path=(), rule="holds no settings", remedy="write at least `{}`"))]
        )
    if not isinstance(document.data, dict):
        raise ConfigError([_fault(document, Problem(path=(), rule="must be a mapping of keys"))])
    for name in section_types():
        if name in document.data and document.data[name] is None:
            document.data[name] = {}
    problems = [bad for text in overrides for bad in _override(document, text)]
    _replace_retired(document)
    return _validate(document, problems, check_search=True)


def _replace_retired(document: Document) -> None:
    """Read keys of earlier versions as those that took their place, and say so; beside those they are unknown."""
    for key, (successor, values) in RETIRED.items():
        path, newer = key_path(key), key_path(successor)
        if not is_set(document.data, path) or is_set(document.data, newer):
            continue
        section = document.data[path[0]]
        if not isinstance(section[path[1]], bool):
            continue
        value = values[section.pop(path[1])]
        place = document.values.get(path, Place(source=""))
        where = f" ({place.source}:{place.line})" if place.line else ""
        _log.warning("%s%s is read as `%s: %s`, which took its place", key, where, successor, value)
        _assign(document, newer, value, Place(source=place.source, line=place.line, column=place.column))


def _override(document: Document, text: str) -> list[Problem]:
    """Apply one `key=value`; the value is YAML."""
    key, equals, value_text = text.partition("=")
    key = key.strip()
    if not equals or not key:
        document.values[(text,)] = Place(source="--set", text=text)
        return [Problem(path=(text,), rule="must be key=value")]
    path = key_path(key)
    if not is_text(value_text):  # YAML would complain of a character and not of a name
        _note(document, path, Place(source="--set", text=value_text))
        return [Problem(path=path, rule=NOT_TEXT, remedy=NOT_TEXT_REMEDY)]
    try:
        value = yaml12.parse(value_text, "--set").data
    except ConfigError as error:
        _note(document, path, Place(source="--set", text=value_text))
        return [Problem(path=path, rule=fault.rule, remedy=fault.remedy) for fault in error.faults]
    return _assign(document, path, value, Place(source="--set", text=value_text))


def _assign(document: Document, path: KeyPath, value: Any, place: Place) -> list[Problem]:
    """Set a value in the data and note where it comes from."""
    _note(document, path, place)
    if len(path) > MAX_KEY_PARTS:
        return [Problem(path=path, rule="is not a known key", is_key=True)]
    here = document.data
    for depth, part in enumerate(path[:-1]):
        child = here.get(str(part))
        if child is None:
            child = here[str(part)] = {}
            document.keys.setdefault(path[: depth + 1], place)
        if not isinstance(child, dict):
            return [Problem(path=path, rule=f"has no keys below `{part}`", is_key=True)]
        here = child
    here[str(path[-1])] = value
    return []


def _note(document: Document, path: KeyPath, place: Place) -> None:
    for places in (document.keys, document.values):
        for stale in [old for old in places if old[: len(path)] == path]:
            del places[stale]
        places[path] = place


def _validate(document: Document, problems: Sequence[Problem], *, check_search: bool) -> RunConfig:
    """Validate the sections, then the rules between them as far as what they read is sound."""
    found = [*problems, *unwritable(document.data, ())]
    data = without(document.data, [bad for bad in found if is_set(document.data, bad.path)])
    config, more = settle(data, found)
    found += more
    faulty = [bad.path for bad in found]
    searched = _unwritten(config, document) if check_search else frozenset()
    if check_search:
        found += check_space_keys(list(_space(document.data)))
        found += check_search_rules(config, faulty)
        found += check_points(config, faulty)
        found += check_population(config, faulty)
    found += [_of_base(bad, config) for bad in check_run(config, faulty, leave_out=searched)]
    if not found:
        return config
    unique = list({(bad.path, bad.rule): bad for bad in found}.values())
    faults = sorted((_fault(document, bad) for bad in unique), key=_order)
    raise ConfigError(faults[:MAX_FAULTS])


def _unwritten(config: RunConfig, document: Document) -> frozenset[str]:
    """Searched keys whose base value nobody chose: no trial uses it, and it may not fit what the axes are for.

    One that was written is checked as any other. A default counts as not chosen also where it stands in a file, since
    a sweep keeps its whole configuration with all defaults written out.
    """
    return frozenset(
        key
        for key in searched_keys(config.sweep)
        if key not in settings()
        or not is_set(document.data, key_path(key))
        or flatten(config).get(key) == frozen(settings()[key].default)
    )


def _of_base(bad: Problem, config: RunConfig) -> Problem:
    """Says of a broken base value that its axis, which replaces it in the sweep, does not excuse it."""
    if key_text(bad.path) not in searched_keys(config.sweep):
        return bad
    remedy = "its axis replaces it in the sweep, but `orchestrator train` uses it: correct it or leave it out"
    return replace(bad, remedy="; ".join(part for part in (bad.remedy, remedy) if part))


def _space(data: Any) -> dict[str, Any]:
    """The search space as written, sound or not."""
    for name in ("sweep", "space"):
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _fault(document: Document, bad: Problem) -> Fault:
    """Add the place and the value as written; what was not written is placed at the key around it."""
    places = document.keys if bad.is_key else document.values
    place, given = places.get(bad.path), ""
    if place is not None and not bad.is_key:
        given = _given(document, bad.path, place)
    for size in range(len(bad.path) - 1, 0, -1):
        place = place or document.keys.get(bad.path[:size])
    place = place or document.values.get((), Place(source=""))
    return Fault(
        key=_printable(key_text(bad.path)),
        rule=_printable(bad.rule),
        given=given,
        source=place.source,
        line=place.line,
        column=place.column,
        remedy=_printable(bad.remedy),
    )


def _given(document: Document, path: KeyPath, place: Place) -> str:
    if place.text:
        return _printable(place.text)[:MAX_GIVEN_CHARACTERS]
    value = document.data
    for part in path:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return ""
    return "" if path == () else _printable(json.dumps(value, ensure_ascii=False))[:MAX_GIVEN_CHARACTERS]


def _printable(text: str) -> str:
    """One bounded line without secrets."""
    line = " ".join(mask_secrets(text[:2000]).split())
    line = line.encode("utf-8", "backslashreplace").decode("utf-8")
    return line if len(line) <= MAX_TEXT_CHARACTERS else line[: MAX_TEXT_CHARACTERS - 3] + "..."


def _order(fault: Fault) -> tuple[str, int, int]:
    return fault.source, fault.line or 0, fault.column or 0
