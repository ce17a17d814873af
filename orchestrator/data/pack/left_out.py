"""What a source holds and is not read: by reason, with a count and an example, in one line of text.

A pure value with its words. Whoever reads a source adds to it; the commands that say what is there print it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

_MOST_REASONS = 12


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One reason: what one such thing and several of them are called, how many, and the first."""

    one: str
    many: str
    count: int
    example: str

    def text(self) -> str:
        """As `3 links that lead nowhere (cat/gone.jpg)`."""
        return f"{self.count:,} {self.one if self.count == 1 else self.many} ({self.example})"


class LeftOutCounts:
    """Collects what is left out."""

    def __init__(self) -> None:
        self._found: dict[str, LeftOut] = {}

    def add(self, one: str, many: str, example: str, count: int = 1) -> None:
        """Note `count` more of a kind; the example of the first is kept."""
        before = self._found.get(one)
        total = count + (before.count if before else 0)
        first = before.example if before else printable(example)
        self._found[one] = LeftOut(one=one, many=many, count=total, example=first)

    def all(self) -> tuple[LeftOut, ...]:
        """The reasons, the most frequent first."""
        return tuple(sorted(self._found.values(), key=lambda reason: (-reason.count, reason.one)))


def left_out_text(reasons: Iterable[LeftOut]) -> str:
    """`left out: ...` in one line; empty where nothing is."""
    texts = [reason.text() for reason in reasons]
    if not texts:
        return ""
    more = len(texts) - _MOST_REASONS
    shown = texts[:_MOST_REASONS] + ([f"and {more} more kinds"] if more > 0 else [])
    return f"left out: {', '.join(shown)}"


def printable(path: str) -> str:
    """A file's name as text that can be printed: bytes that are no UTF-8 and control characters are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )
