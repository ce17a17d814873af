"""Every command over arguments that are not what they should be: a message and an exit code, never a traceback.

One test a kind of argument, which goes through every command and every bad value and lists all that are not told: a
command takes a few milliseconds, the fixtures of a test of its own several times that.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from command_line import Outcome
from sweep_records import sweep_events, write_journal

Command = Callable[..., Outcome]

ITS_OWN = (2, 3, 4, 5, 6, 7)
"""Exit codes of faults that are told on purpose (`orchestrator.errors`)."""

READS_FILE = (
    ("plan",),
    ("doctor",),
    ("sweep", "--dry-run"),
    ("train", "--dry-run"),
    ("config", "show"),
    ("masks", "audit"),
    ("masks", "preview"),
    ("ui",),
    ("bench", "step"),
)
READS_SWEEP = (
    ("status", "x"),
    ("logs", "x"),
    ("pause", "x"),
    ("cancel", "x"),
    ("resume", "x"),
    ("report", "x"),
    ("compare", "x"),
    ("best", "x"),
    ("reproduce", "x/000", "--dry-run"),
    ("export", "x", "--to", "timm"),
    ("probe", "x/000"),
    ("shards", "quarantine", "--sweep", "x"),
    ("train", "--from-best", "x", "--dry-run"),
    ("extend", "x", "--set", "train.images=9"),
)
READS_SHARDS = (
    ("shards", "ls"),
    ("shards", "verify"),
    ("shards", "quarantine"),
)


def _folder(place: Path) -> str:
    (place / "folder").mkdir()
    return str(place / "folder")


def _binary(place: Path) -> str:
    (place / "binary").write_bytes(bytes(range(256)) * 20)
    return str(place / "binary")


def _with_nul(place: Path) -> str:
    (place / "nul.yaml").write_bytes(b"name: a\0b\n")
    return str(place / "nul.yaml")


def _latin1(place: Path) -> str:
    (place / "latin.yaml").write_bytes("name: café\n".encode("latin-1"))
    return str(place / "latin.yaml")


def _huge(place: Path) -> str:
    (place / "huge.yaml").write_text("a: b\n" * 100_000)
    return str(place / "huge.yaml")


def _empty(place: Path) -> str:
    (place / "empty.yaml").touch()
    return str(place / "empty.yaml")


def _circle(place: Path) -> str:
    (place / "circle").symlink_to(place / "circle")
    return str(place / "circle")


def _below_a_file(place: Path) -> str:
    (place / "file").touch()
    return str(place / "file" / "inner")


def _bytes_name(place: Path) -> str:
    return str(place / os.fsdecode(b"caf\xe9"))


def _literally(text: str) -> Callable[[Path], str]:
    def same(place: Path) -> str:
        return text

    same.__name__ = text[:12] or "nothing"
    return same


PLACES = (
    _folder,
    _binary,
    _circle,
    _below_a_file,
    _bytes_name,
    _literally("~nobody2/x"),
    _literally("x" * 5000),
    _literally("y" * 300),
    _literally(""),
    _literally("s3:/bucket/x"),
    _literally("s3://"),
    _literally("s3://Bad Bucket/x"),
    _literally("gs://bucket"),
    _literally("file:relative"),
    _literally("http://["),
    _literally("a\nb"),
)
FILES = (*PLACES, _with_nul, _latin1, _huge, _empty)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def offence(shown: Outcome, naming: str = "") -> str:
    """Why an outcome is no fault that is told on purpose, and names what it is about; empty where it is one."""
    if shown.code not in ITS_OWN:
        return f"ends with {shown.code}"
    found = [word for word in ("Traceback", "unexpected", "traceback:") if word in shown.err]
    found += ["Traceback in the result"] if "Traceback" in shown.out else []
    found += [] if shown.out + shown.err else ["says nothing"]
    found += [] if naming in shown.out + shown.err else [f"does not name {naming}"]
    return ", ".join(found)


def offenders(command: Command, cases: Iterable[tuple[str, ...]], naming: str = "") -> dict[str, str]:
    """The command lines that are not told, and why; every one is run."""
    found = {shlex.join(words)[:300]: offence(command(*words), naming) for words in cases}
    assert len(found) > 20
    return {words: why for words, why in found.items() if why}


def named(words: tuple[str, ...], sweep: str) -> tuple[str, ...]:
    """A command of `READS_SWEEP` for this sweep."""
    return tuple(word.replace("x", sweep) if word in ("x", "x/000") else word for word in words)


def test_an_outcome_that_is_not_told_is_seen() -> None:
    told = Outcome(code=2, out="", err="error: no such sweep")
    bad = [
        Outcome(code=0, out="fine", err=""),
        Outcome(code=1, out="", err="error: unexpected KeyError"),
        Outcome(code=4, out="", err="error: broken (traceback: /tmp/x.txt)"),
        Outcome(code=3, out="Traceback (most recent call last)", err=""),
        Outcome(code=3, out="", err=""),
    ]
    assert offence(told) == ""
    assert [bool(offence(each)) for each in bad] == [True] * len(bad)
    assert offence(told, naming="masks-1") == "does not name masks-1"


def test_a_file_of_settings_that_is_none(command: Command, tmp_path: Path) -> None:
    files = [make(tmp_path) for make in FILES]
    assert offenders(command, [(*words, file) for words in READS_FILE for file in files]) == {}


def test_runs_that_are_none(command: Command, tmp_path: Path) -> None:
    places = [make(tmp_path) for make in PLACES]
    cases = [(*words, "--runs", place) for words in READS_SWEEP for place in places]
    assert offenders(command, cases) == {}


def test_a_sweep_that_is_none(command: Command, tmp_path: Path) -> None:
    places, runs = [make(tmp_path) for make in PLACES], str(tmp_path / "runs")
    cases = [(*named(words, place), "--runs", runs) for words in READS_SWEEP for place in places]
    assert offenders(command, cases) == {}


def test_shards_that_are_none(command: Command, tmp_path: Path) -> None:
    places = [make(tmp_path) for make in PLACES]
    assert offenders(command, [(*words, place) for words in READS_SHARDS for place in places]) == {}


def test_places_in_settings_that_are_none_are_found_by_doctor(command: Command, tmp_path: Path) -> None:
    keys = ("storage.uri", "data.source", "data.cache_dir", "storage.endpoint_url")
    places = [json.dumps(make(tmp_path)) for make in PLACES[2:]]
    cases = [("doctor", "--set", f"{key}={place}") for key in keys for place in places]
    assert offenders(command, cases) == {}


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an event that is cut": lambda sweep: (sweep / "journal/00000005.json").write_bytes(b'{"kind": "rep'),
    "an empty event": lambda sweep: (sweep / "journal/00000005.json").write_bytes(b""),
    "an event of bytes": lambda sweep: (sweep / "journal/00000005.json").write_bytes(b"\xff\x00\x80"),
    "an event that is a list": lambda sweep: (sweep / "journal/00000005.json").write_text("[1]"),
    "an event without its time": lambda sweep: (sweep / "journal/00000005.json").write_text('{"kind":"a"}'),
    "an event without its fields": lambda sweep: (sweep / "journal/00000005.json").write_text(
        '{"kind": "report", "time_ms": 1, "trial_id": "t0000000"}'
    ),
    "an event of an unknown kind": lambda sweep: (sweep / "journal/00000005.json").write_text(
        '{"kind": "trial_cloned", "time_ms": 1, "sequence": 5}'
    ),
    "an event of a newer version": lambda sweep: (sweep / "journal/00000005.json").write_text(
        '{"kind": "driver_started", "time_ms": 1, "sequence": 5, "version": 2}'
    ),
    "a missing event": lambda sweep: (sweep / "journal/00000005.json").unlink(),
    "a folder for an event": lambda sweep: (
        (sweep / "journal/00000005.json").unlink(),
        (sweep / "journal/00000005.json").mkdir(),
    ),
    "an empty first event": lambda sweep: (sweep / "journal/00000000.json").write_bytes(b""),
    "a lease that is cut": lambda sweep: (
        (sweep / "driver").mkdir(),
        (sweep / "driver/00000001.json").write_text('{"host'),
    ),
}


def test_a_sweeps_folder_that_is_damaged(command: Command, tmp_path: Path) -> None:
    cut = "an event that is cut"
    pairs = [*((words, cut) for words in READS_SWEEP), *((READS_SWEEP[0], damage) for damage in DAMAGES)]
    cases, sweep_id = [], ""
    for number, (words, damage) in enumerate(pairs):
        runs = tmp_path / str(number)
        sweep_id = write_journal(runs, sweep_events()[:12])
        DAMAGES[damage](runs / sweep_id)
        cases.append((*named(words, sweep_id), "--runs", str(runs)))
    assert offenders(command, cases, naming=sweep_id) == {}
