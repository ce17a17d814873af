"""Our own log on standard error: each warning once, as one line, and through the live view while there is one.

Libraries stay quiet unless `--verbose` asks for them. Standard output holds nothing but a command's result, so that
`--json` stays JSON. Called by `main` at the start of a command, and by `views` for the length of a sweep.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_OURS = ("orchestrator", "jepa_core")
_MOST_OF_A_KIND = 5
"""So many messages of one place in the code are shown: damaged samples, for one, can be thousands."""


class OnceHandler(logging.Handler):
    """Writes each message of ours once; with `verbose`, all of them and those of libraries, with their tracebacks."""

    def __init__(self, *, verbose: bool) -> None:
        super().__init__(logging.INFO if verbose else logging.WARNING)
        self.verbose = verbose
        self.write: Callable[[str], None] = _to_stderr
        self._said: set[str] = set()
        self._num_of_kind: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless it was written before or is a library's."""
        is_ours = record.name.split(".")[0] in _OURS
        if not self.verbose and not is_ours and record.levelno < logging.CRITICAL:
            return
        try:
            text = self._text(record)
            if self.verbose:
                self.write(text)
            elif text not in self._said:
                self._write_once(text, (record.name, str(record.msg)))
        except Exception:
            self.handleError(record)

    def _write_once(self, text: str, kind: tuple[str, str]) -> None:
        self._num_of_kind[kind] += 1
        if self._num_of_kind[kind] <= _MOST_OF_A_KIND:
            self._said.add(text)
            self.write(text)
        elif self._num_of_kind[kind] == _MOST_OF_A_KIND + 1:
            self.write("warning: more like the last are not shown; `orchestrator --verbose` shows all")

    def _text(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return text
        if self.verbose:
            return f"{text}\n{logging.Formatter().formatException((type(error), error, error.__traceback__))}"
        said = next(iter(str(error).strip().splitlines()), "")
        return f"{text}: {said}" if said else f"{text}: {type(error).__name__}"


def show_log(*, verbose: bool) -> None:
    """Begin to show our log; takes the place of what an earlier command of this process began."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, OnceHandler)]:
        root.removeHandler(handler)
    root.addHandler(OnceHandler(verbose=verbose))
    if verbose:
        root.setLevel(logging.INFO)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)


@contextmanager
def log_through(write: Callable[[str], None]) -> Iterator[None]:
    """Have the log written by `write` for the length of a block: a live view draws over everything else."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, OnceHandler)]
    for handler in handlers:
        handler.write = write
    try:
        yield
    finally:
        for handler in handlers:
            handler.write = _to_stderr


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
