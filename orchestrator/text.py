"""Tables, figures and commands as plain text, and values as JSON, for whatever is printed or written."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


_PLAIN_VALUE = re.compile(r"[\w./~-][\w ./:@~%+=,-]*")


def command_text(*words: str) -> str:
    """A command of ours that can be pasted into a shell, whatever is in its words."""
    return shlex.join(("orchestrator", *words))


def setting_words(key: str, value: str) -> tuple[str, str]:
    """The words that set a key to a text: `--set`, and the text so that YAML reads it as it is."""
    is_plain = (
        _PLAIN_VALUE.fullmatch(value)
        and "/" in value
        and ": " not in value
        and not value.endswith((":", " "))
    )
    return ("--set", f"{key}={value if is_plain else json.dumps(value, ensure_ascii=False)}")


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of plain text, the first being the header: words to the left, figures to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    figures = [all(_is_figure(row[column]) for row in rows[1:]) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, figures, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def with_prefix(value: float, unit: str) -> str:
    """A quantity with three significant digits and a decimal prefix: `84.2 GFLOP`."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """A few names, and how many more there are: `cat, dog and 7 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def counted(count: float, noun: str) -> str:
    """A count with its noun, which ends in `s` unless it is one: `1 image`, `1,200 images`, `0.5 GPUs`."""
    figure = f"{count:,}" if isinstance(count, int) else f"{count:,g}"
    return f"{figure} {noun}" if count == 1 else f"{figure} {noun}s"


def json_able(value: Any) -> Any:
    """The same as JSON knows it: NaN and infinity, for which JSON has no word, become null; what is unknown, text."""
    if isinstance(value, Mapping):
        return {str(key): json_able(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_able(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _is_figure(cell: str) -> bool:
    return cell in ("", "-") or cell.lstrip("+-").rstrip("=").replace(",", "").replace(".", "").isdigit()
