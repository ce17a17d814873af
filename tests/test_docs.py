"""What the documents promise: links that lead somewhere, commands that exist, sweep files that are valid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator.cli import app_with_commands
from orchestrator.config import load_config

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SWEEPS = sorted((ROOT / "sweeps").rglob("*.yaml"))
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"^\s*```(?:sh|bash|console)\n(.*?)^\s*```", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shell_lines(document: Path) -> Iterator[list[str]]:
    """The words of every command line in a document's shell blocks, continued lines joined, comments cut."""
    for block in _BLOCK.findall(document.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                yield words


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    targets = [link.split("#")[0] for link in _LINK.findall(document.read_text(encoding="utf-8"))]
    local = [
        target for target in targets if target and "://" not in target and not target.startswith("mailto:")
    ]
    missing = [target for target in local if not (document.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_in_a_document_exists_with_its_options(document: Path) -> None:
    wrong = []
    for words in shell_lines(document):
        if words[0] == "orchestrator":
            wrong += unknown_parts(words)
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_make_target_in_a_document_exists(document: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {
        word for words in shell_lines(document) if words[0] == "make" for word in words[1:] if word.islower()
    }
    assert used <= known


@pytest.mark.parametrize("file", SWEEPS, ids=name_of)
def test_every_sweep_file_is_valid(file: Path) -> None:
    config = load_config(str(file))
    assert config.sweep.space or config.name


def test_there_are_sweep_files_and_documents() -> None:
    assert {"masks.yaml", "fashion_mnist.yaml", "ablations.yaml"} <= {file.name for file in SWEEPS}
    assert len(DOCUMENTS) > 5


def unknown_parts(words: list[str]) -> list[str]:
    """The sub-commands and options of one command line that the command line does not know."""
    command: click.Command = app_with_commands()
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.commands.get(rest[0])
        if found is None:
            return [f"{shlex.join(words)}: no command {rest[0]!r}"]
        command, rest = found, rest[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.split("=")[0] for word in rest if word.startswith("-") and word != "-"}
    return [f"{shlex.join(words)}: no option {name}" for name in sorted(used - known - {"-h", "--help"})]
