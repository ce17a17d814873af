"""Record scenarios again: `python -m tests.tape.record [SCENARIO...]`; without a name all of them.

Says of each what became different, at the first message where something did.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from .form import read_lines, write_lines
from .play import first_difference, first_misreading, read_journal
from .scenarios import SCENARIOS
from .scripts_earlier import JOURNALS

FIXTURES = Path(__file__).parent / "fixtures"


def record(name: str) -> str:
    """Record one scenario; what became of it."""
    path = FIXTURES / f"{name}.jsonl.gz"
    lines = SCENARIOS[name]().lines()
    before = first_difference(read_lines(path)) if path.exists() else ""
    is_changed = write_lines(path, lines)
    num_events = sum(len(entry["events"]) for entry in lines[1:])
    said = f"{len(lines) - 1} messages, {num_events} events, {path.stat().st_size} bytes"
    return f"{name}: {said}; {'written' if is_changed else 'as before'}{before and chr(10) + before}"


def read_again(path: Path) -> str:
    """Record anew what is seen of a journal of an earlier version; its events stay as they are."""
    before = first_misreading(read_lines(path))
    events = [entry["event"] for entry in list(read_lines(path))[1:]]
    is_changed = write_lines(path, read_journal(path.name.partition(".")[0], events))
    return f"{path.name}: {len(events)} events; {'written' if is_changed else 'as before'}{before and chr(10) + before}"


def main(names: list[str]) -> int:
    """Record what is named."""
    unknown = [name for name in names if name not in SCENARIOS and name != "journals"]
    if unknown:
        print(
            f"{unknown[0]!r} is not a scenario; there are journals, {', '.join(SCENARIOS)}", file=sys.stderr
        )
        return 2
    warnings.simplefilter("ignore")
    for name in names or SCENARIOS:
        if name != "journals":
            print(record(name))
    for path in sorted(JOURNALS.glob("*.jsonl.gz")) if not names or "journals" in names else ():
        print(read_again(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
