"""Frozen dataclasses and points to JSON; `reading` is the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

LEFT_OUT = {"left_out": True}
"""Metadata of a field that is not written where it is None."""
FLAT = {"flat": True}
"""Metadata of a field whose own `to_json` is written among the fields beside it; such classes are not read back."""


def plain(value: object) -> object:
    """The same as JSON has it: dictionaries and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return plain_fields(value) if is_dataclass(value) else value


def plain_fields(value: object) -> dict[str, object]:
    """The fields of a dataclass as JSON has them."""
    assert is_dataclass(value)
    found: dict[str, object] = {}
    for each in fields(value):
        item = getattr(value, each.name)
        if "flat" in each.metadata:
            found |= item.to_json()
        elif item is not None or "left_out" not in each.metadata:
            found[each.name] = plain(item)
    return found
