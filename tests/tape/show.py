"""A tape for a reader: `python -m tests.tape.show SCENARIO`, a line a message and a line an event."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .form import read_lines

_WIDTH = 150


def lines_of(path: Path) -> list[str]:
    """Messages with their answers, events with how many leaves of what is seen changed."""
    header, *entries = read_lines(path)
    found = [json.dumps({key: value for key, value in header.items() if key != "configs"})]
    for number, entry in enumerate(entries):
        message = dict(entry["message"])
        at_s, do = message.pop("at_s") % 1e6, message.pop("do")
        found.append(_cut(f"{number:3d} {at_s:9.3f} {do} {_brief(message)} -> {_brief(entry['answer'])}"))
        for each in entry["events"]:
            event = each["event"]
            rest = {key: event[key] for key in event if key not in ("sequence", "time_ms", "writer", "kind")}
            num_leaves = len(each["changes"].get("new", ()))
            head = f"      {event['sequence']:3d} {event.get('writer', '-')} {event['kind']}"
            found.append(_cut(f"{head} [{num_leaves} leaves, {len(each['tracker'])} calls] {_brief(rest)}"))
    return found


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if item not in (None, "", {}, [], False)}
        return " ".join(
            f"{key}={_brief(item)}" for key, item in kept.items() if key not in ("rows", "correct", "stops")
        )
    return value if isinstance(value, str) else json.dumps(value)


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..."


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print("\n".join(lines_of(Path(__file__).parent / "fixtures" / f"{name}.jsonl.gz")))
