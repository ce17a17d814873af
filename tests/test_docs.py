"""What the documents promise: links that lead somewhere, commands that exist, sweep files that are valid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

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


def by_document(find: Callable[[Path], Iterable[str]]) -> dict[str, list[str]]:
    """What is found in each document; documents in which nothing is found are left out."""
    found = {name_of(document): sorted(find(document)) for document in DOCUMENTS}
    return {name: faults for name, faults in found.items() if faults}


def test_every_relative_link_leads_to_a_file() -> None:
    def missing(document: Path) -> list[str]:
        targets = [link.split("#")[0] for link in _LINK.findall(document.read_text(encoding="utf-8"))]
        local = [each for each in targets if each and "://" not in each and not each.startswith("mailto:")]
        return [target for target in local if not (document.parent / target).exists()]

    assert by_document(missing) == {}


def test_every_command_in_a_document_exists_with_its_options() -> None:
    def unknown(document: Path) -> Iterator[str]:
        for words in shell_lines(document):
            if words[0] == "orchestrator":
                yield from unknown_parts(words)

    assert by_document(unknown) == {}


def test_every_make_target_in_a_document_exists() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    def unknown(document: Path) -> set[str]:
        called = (words[1:] for words in shell_lines(document) if words[0] == "make")
        return {word for words in called for word in words if word.islower()} - known

    assert by_document(unknown) == {}


def test_the_searches_see_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "```sh\nmake tests\norchestrator sweeep x\norchestrator sweep --fast x\n```\n"
    )
    lines = list(shell_lines(tmp_path / "a.md"))
    assert lines == [
        ["make", "tests"],
        ["orchestrator", "sweeep", "x"],
        ["orchestrator", "sweep", "--fast", "x"],
    ]
    told = [unknown_parts(words) for words in lines[1:]]
    assert told == [
        ["orchestrator sweeep x: no command 'sweeep'"],
        ["orchestrator sweep --fast x: no option --fast"],
    ]


def test_every_sweep_file_searches_over_something_and_every_preset_leaves_that_to_its_user() -> None:
    searches = {name_of(file): load_config(str(file)).sweep for file in SWEEPS}
    found = {name: bool(sweep.space or sweep.points) for name, sweep in searches.items()}
    assert found == {name_of(file): file.parent.name != "presets" for file in SWEEPS}


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
