"""The tape: today's code decides, tells and reads as it did when each scenario was recorded (`tape.record`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tape.form import read_lines
from tape.play import first_difference, first_misreading
from tape.record import FIXTURES, JOURNALS
from tape.scenarios import SCENARIOS

RECORD = "if this was meant: python -m tests.tape.record"

pytestmark = pytest.mark.filterwarnings(
    "ignore::Warning"
)  # Optuna's Gaussian process is marked as experimental


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_message_has_the_answer_and_the_events_that_were_recorded(name: str) -> None:
    different = first_difference(read_lines(FIXTURES / f"{name}.jsonl.gz"))
    assert not different, f"{name}, {different}\n{RECORD} {name}"


@pytest.mark.parametrize("path", sorted(JOURNALS.glob("*.jsonl.gz")), ids=lambda path: path.name)
def test_a_journal_of_an_earlier_version_is_read_as_it_was(path: Path) -> None:
    different = first_misreading(read_lines(path))
    assert not different, f"{path.name}, {different}\n{RECORD} journals"


def test_every_tape_is_of_a_scenario_and_all_are_small() -> None:
    tapes = sorted(FIXTURES.glob("*.jsonl.gz"))
    assert sorted(path.name.partition(".")[0] for path in tapes) == sorted(SCENARIOS)
    assert sum(path.stat().st_size for path in (*tapes, *JOURNALS.glob("*.jsonl.gz"))) < 2_000_000
