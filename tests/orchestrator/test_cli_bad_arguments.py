"""Every command over arguments that are not what they should be: a message and an exit code, never a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run_command
from sweep_records import sweep_events, write_journal

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


def _told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    shown = run_command(monkeypatch, capsys, *arguments)
    assert shown.code in ITS_OWN, (arguments, shown)
    assert "Traceback" not in shown.err + shown.out
    assert "unexpected" not in shown.err
    assert "traceback:" not in shown.err
    return shown.err + shown.out


@pytest.mark.parametrize("command", READS_FILE, ids=" ".join)
@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_a_file_of_settings_that_is_none(monkeypatch, capsys, tmp_path, make, command):
    monkeypatch.chdir(tmp_path)
    assert _told(monkeypatch, capsys, *command, make(tmp_path))


@pytest.mark.parametrize("command", READS_SWEEP, ids=" ".join)
@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_runs_that_are_none(monkeypatch, capsys, tmp_path, make, command):
    monkeypatch.chdir(tmp_path)
    assert _told(monkeypatch, capsys, *command, "--runs", make(tmp_path))


@pytest.mark.parametrize("command", READS_SWEEP, ids=" ".join)
@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_a_sweep_that_is_none(monkeypatch, capsys, tmp_path, make, command):
    monkeypatch.chdir(tmp_path)
    name = make(tmp_path)
    given = [name if part == "x" else f"{name}/000" if part == "x/000" else part for part in command]
    assert _told(monkeypatch, capsys, *given, "--runs", str(tmp_path / "runs"))


@pytest.mark.parametrize("command", READS_SHARDS, ids=" ".join)
@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_shards_that_are_none(monkeypatch, capsys, tmp_path, make, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert _told(monkeypatch, capsys, *command, make(tmp_path))


@pytest.mark.parametrize("key", ["storage.uri", "data.source", "data.cache_dir", "storage.endpoint_url"])
@pytest.mark.parametrize("make", PLACES[2:], ids=lambda make: make.__name__)
def test_places_in_settings_that_are_none_are_found_by_doctor(monkeypatch, capsys, tmp_path, key, make):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert _told(monkeypatch, capsys, "doctor", "--set", f"{key}={json.dumps(make(tmp_path))}")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an event that is cut": lambda sweep: (sweep / "journal/00000005.json").write_bytes(b'{"kind": "rep'),
    "an empty event": lambda sweep: (sweep / "journal/00000005.json").write_bytes(b""),
    "an event of bytes": lambda sweep: (sweep / "journal/00000005.json").write_bytes(b"\xff\x00\x80"),
    "an event that is a list": lambda sweep: (sweep / "journal/00000005.json").write_text("[1]"),
    "an event without its time": lambda sweep: (sweep / "journal/00000005.json").write_text('{"kind":"a"}'),
    "an event without its fields": lambda sweep: (sweep / "journal/00000005.json").write_text(
        '{"kind": "report", "time_ms": 1, "trial_id": "t0000000"}'
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


@pytest.mark.parametrize(
    ("command", "damage"),
    [
        *((command, "an event that is cut") for command in READS_SWEEP),
        *((command, damage) for command in READS_SWEEP[:1] for damage in DAMAGES),
    ],
)
def test_a_sweeps_folder_that_is_damaged(monkeypatch, capsys, tmp_path, command, damage):
    sweep_id = write_journal(tmp_path, sweep_events()[:12])
    DAMAGES[damage](tmp_path / sweep_id)
    given = [part.replace("x", sweep_id) if part in ("x", "x/000") else part for part in command]
    told = _told(monkeypatch, capsys, *given, "--runs", str(tmp_path))
    assert sweep_id in told
