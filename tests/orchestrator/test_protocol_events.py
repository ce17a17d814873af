"""What a journal's events are, and what is said of one that this version does not know."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from sweep_records import sweep_events

from orchestrator.errors import StorageError
from orchestrator.protocol.events import KINDS, VERSION, AttemptEnded, Entry, SlotStarted, parse
from orchestrator.storage import MemoryStore
from orchestrator.sweep.journal.log import Journal, read_events

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "sweeps"
ENDED = {"kind": "attempt_ended", "sequence": 3, "time_ms": 5, "trial_id": "t", "attempt_id": "a"}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.jsonl.gz")), ids=lambda path: path.name)
def test_every_event_of_a_kept_journal_is_written_as_it_was_read(path: Path) -> None:
    for line in gzip.decompress(path.read_bytes()).splitlines():
        event = json.loads(line)
        assert json.dumps(parse(event, where=path.name).to_json(), sort_keys=True) == json.dumps(
            event, sort_keys=True
        )


def test_the_bytes_of_an_event_are_those_that_were_always_written() -> None:
    store = MemoryStore()
    journal = Journal(store, clock=lambda: 2.0)
    journal.append(SlotStarted(slot_id="s", num_gpus=1.0, num_cpus=2.0, num_workers=1))
    written = json.loads(store.read("journal/00000000.json"))
    assert list(written) == [
        "sequence",
        "time_ms",
        "writer",
        "kind",
        "slot_id",
        "num_gpus",
        "num_cpus",
        "num_workers",
    ]


def test_a_field_that_early_journals_lack_has_its_value() -> None:
    assert parse(ENDED, where="here") == Entry(
        sequence=3, time_ms=5, event=AttemptEnded(trial_id="t", attempt_id="a", error="")
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "trial_cloned"}, "no kind of event is called 'trial_cloned'"),
        ({"version": VERSION + 1}, f"(attempt_ended) is of version {VERSION + 1}, known are those up to 1"),
        ({"mood": "good"}, "(attempt_ended) holds more than is known of: mood is not known"),
    ],
)
def test_an_event_of_a_newer_version_is_refused_by_its_name(change: dict[str, Any], said: str) -> None:
    store = MemoryStore()
    store.write("journal/00000000.json", json.dumps({**ENDED, **change}).encode())
    with pytest.raises(StorageError) as caught:
        read_events(store)
    where, rest = f"{store.uri}/journal/00000000.json: ", "; a newer orchestrator wrote it: read and resume"
    assert str(caught.value).startswith(where)
    assert said in str(caught.value)
    assert rest in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trial_id": 7}, "trial_id is no text: 7"),
        ({"time_ms": "5"}, "it has no time"),
        ({"sequence": None}, "sequence is no whole number: None"),
        ({"version": "one"}, "its version is no number from 1 on: 'one'"),
        ({"kind": "report"}, "value is missing"),
    ],
)
def test_a_damaged_event_is_refused_with_what_is_wrong_with_it(change: dict[str, Any], said: str) -> None:
    with pytest.raises(StorageError, match="is damaged") as caught:
        parse({**ENDED, **change}, where="here")
    assert said in str(caught.value)


def test_a_field_deep_inside_an_event_is_named() -> None:
    report = next(event for event in sweep_events() if event["kind"] == "report")
    report["rows"][0]["metrics"]["train/loss"] = "low"
    with pytest.raises(StorageError, match=r"rows\[0\]\.metrics\.train/loss is no number: 'low'"):
        parse({"sequence": 0, **report}, where="here")


def test_every_kind_of_event_has_a_name_of_its_own() -> None:
    assert len(KINDS) == 21
    assert all(KINDS[name].kind == name for name in KINDS)
