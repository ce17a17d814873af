"""A room's door, its `__init__.pyi`, lists what other rooms may use of it; the tests themselves look behind it."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOORS = sorted(ROOT.glob("orchestrator/**/__init__.pyi"))
ROOMS = [".".join(door.parent.relative_to(ROOT).parts) for door in DOORS]


def test_every_room_that_has_modules_for_others_has_a_door():
    expected = {
        *(
            f"orchestrator.sweep.{room}"
            for room in ("core", "journal", "search", "run", "foresight", "watch", "space")
        ),
        *(f"orchestrator.data.{room}" for room in ("format", "read", "pack", "scenes")),
        *(f"orchestrator.train.{room}" for room in ("loop", "ray", "evaluate")),
        *(f"orchestrator.report.{room}" for room in ("statistics", "page", "words")),
        "orchestrator.cluster",
        "orchestrator.data",
    }
    assert set(ROOMS) == expected


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_door_lists_is_there_and_said_to_be_public(room):
    module = importlib.import_module(room)
    names = _listed(room)
    assert names
    assert {f"{room}.{name}" for name in module.__all__} == names
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_nobody_goes_past_a_door():
    past = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in sorted(ROOT.glob("orchestrator/**/*.py"))
        for name in _imported_from(file)
        if (room := _room_of(name)) and name not in _listed(room) and _room_of(_name_of(file)) != room
    ]
    assert past == [], "import it from the room's door, and list it there"


@cache
def _listed(room: str) -> frozenset[str]:
    stub = ast.parse((ROOT / room.replace(".", "/") / "__init__.pyi").read_text())
    names = next(ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    return frozenset(f"{room}.{name}" for name in names)


def _imported_from(file: Path) -> Iterator[str]:
    """Every name that a file imports, with where it is imported from."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def _room_of(name: str) -> str | None:
    inside = [room for room in ROOMS if name == room or name.startswith(f"{room}.")]
    return max(inside, key=len, default=None)
