"""The workflows call what is there, may do little, and end."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
by_file = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)


def steps_of(file: Path) -> Iterator[dict[str, Any]]:
    """The steps of all jobs of a workflow."""
    for job in yaml.safe_load(file.read_text())["jobs"].values():
        yield from job["steps"]


def commands_of(file: Path) -> list[list[str]]:
    """The words of every command line."""
    lines = [line for step in steps_of(file) for line in step.get("run", "").splitlines()]
    return [shlex.split(line) for line in lines if line]


def missing_parts(words: list[str]) -> list[str]:
    """Make targets and files of this repository that a command names and that are not there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    if words[0] == "make":
        return [word for word in words[1:] if word.islower() and word not in targets]
    files = [word for word in words if "/" in word and not word.startswith("-")]
    return [word for word in files if not (ROOT / word).is_file()]


def test_a_push_a_night_and_a_tag_have_a_workflow() -> None:
    assert [file.stem for file in WORKFLOWS] == ["ci", "nightly", "release"]
    assert commands_of(WORKFLOWS[0]) == [[".ci/run"]]


@by_file
def test_what_a_workflow_calls_is_in_the_repository(file: Path) -> None:
    commands = commands_of(file)
    assert commands
    assert [part for words in commands for part in missing_parts(words)] == []


@by_file
def test_a_workflow_may_only_read_and_ends(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert all(job["timeout-minutes"] <= 180 for job in workflow["jobs"].values())
    assert not any("permissions" in job for job in workflow["jobs"].values())


@by_file
def test_every_action_has_a_whole_version(file: Path) -> None:
    actions = [step["uses"] for step in steps_of(file) if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", action)] == []


@by_file
def test_nothing_that_a_stranger_writes_gets_into_a_command(file: Path) -> None:
    assert not any("${{" in step.get("run", "") for step in steps_of(file))


def test_the_last_step_of_ci_checks_the_wheel_that_the_release_checks() -> None:
    last = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.strip()][-1]
    assert last.startswith("make wheel")
    assert "infra/check_wheel.py" in (ROOT / "Makefile").read_text()
