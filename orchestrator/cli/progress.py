"""Progress of a command that takes a while: a spinner on a terminal, plain lines elsewhere, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from orchestrator.cli.streams import is_live


@contextmanager
def telling(stream: TextIO | None = None) -> Iterator[Callable[[str], None]]:
    """A function that shows one line of progress; on a terminal each takes the place of the one before."""
    stream = stream or sys.stderr
    if not is_live(stream):

        def tell(text: str) -> None:
            stream.write(f"{text}\n")
            stream.flush()

        yield tell
        return
    from rich.console import Console
    from rich.text import Text

    with Console(file=stream).status(Text("starting")) as status:
        yield lambda text: status.update(Text(text))
