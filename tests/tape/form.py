"""The form in which values are compared and stored: plain JSON, rounded, flat where only changes are kept."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

DIGITS = 12
"""Significant digits that are compared: the last ones of a double differ between machines."""

Flat = dict[str, Any]


def canonical(value: Any, *, digits: int = DIGITS) -> Any:
    """Plain JSON: text keys, lists, rounded numbers; what is no number is a word."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (dict, Mapping)):
        return {str(key): canonical(item, digits=digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item, digits=digits) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else str(value)
    return value


def flatten(value: Any, path: str = "") -> Flat:
    """Every leaf by its path; an empty dictionary or list is a leaf."""
    if value is None or isinstance(value, (str, int, float)):
        return {path: value}
    if isinstance(value, dict) and value:
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and value:
        items = enumerate(value)
    else:
        return {path: value}
    found: Flat = {}
    for key, item in items:
        found.update(flatten(item, f"{path}|{key}" if path else str(key)))
    return found


def changes(before: Flat, now: Flat) -> dict[str, Any]:
    """What became of the leaves: new values, and the paths that are gone."""
    missing = object()
    new = {path: value for path, value in now.items() if not _same(before.get(path, missing), value)}
    gone = [path for path in before if path not in now]
    return {**({"new": new} if new else {}), **({"gone": gone} if gone else {})}


def _same(before: Any, now: Any) -> bool:
    return type(before) is type(now) and bool(before == now)


def difference(was: Any, now: Any) -> list[str]:
    """The leaves in which two values differ, a line each; none where they are the same."""
    first, second = flatten(was), flatten(now)
    paths = [*first, *(path for path in second if path not in first)]
    missing = object()
    return [
        f"{path or 'the whole'}: the tape has {_shown(first, path)}, now {_shown(second, path)}"
        for path in paths
        if not _same(first.get(path, missing), second.get(path, missing))
    ]


def _shown(values: Flat, path: str) -> str:
    return json.dumps(values[path]) if path in values else "nothing"


def write_lines(path: Path, lines: Iterable[Any]) -> bool:
    """Write JSON lines, compressed; returns whether anything differs from what was there."""
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    if path.exists() and gzip.decompress(path.read_bytes()).decode() == text:
        return False
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    return True


def read_lines(path: Path) -> Iterator[Any]:
    """What `write_lines` wrote."""
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        yield json.loads(line)
