"""Standard output and standard error as the commands use them: whatever reads them, and in whatever encoding.

A letter that the encoding lacks is written as an escape. A stream that was closed before the start takes everything and
keeps nothing. A reader that goes away ends a short command, with exit code 141; `outlive_reader` makes a long one go on
without it. Called by `main` and by the commands that run for long.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

READER_GONE_EXIT_CODE = 128 + 13
"""As a shell counts a process that SIGPIPE ended."""

_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO)
"""A pipe without a reader, and a terminal that was closed."""


class ReaderGoneError(Exception):
    """Nobody reads what this command prints any more. No OSError, which click would take for its own."""


@contextmanager
def safe_streams() -> Iterator[None]:
    """Make both streams safe to write any text to; what was there before is back afterwards.

    Raises:
        ReaderGoneError: The reader went away, unless the command called `outlive_reader`.
    """
    before, hangup = (sys.stdout, sys.stderr), signal.getsignal(signal.SIGHUP)
    sys.stdout, sys.stderr = _safe(sys.stdout, 1), _safe(sys.stderr, 2)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            sys.stdout, sys.stderr = before
            if _hears_signals():
                signal.signal(signal.SIGHUP, hangup)


def outlive_reader() -> None:
    """Let this command go on when its pipe or its terminal is closed; nothing is displayed from then on.

    To be called before processes are started: they inherit that SIGHUP is ignored.
    """
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, _Output):
            raw.lasts = True
    if _hears_signals():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def is_live(stream: TextIO) -> bool:
    """Whether lines can be drawn over again there: a terminal, and one that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class _Output(io.FileIO):
    """A descriptor whose reader may go away; where it `lasts`, nothing that happens to it is an error."""

    lasts = False

    def write(self, data: object, /) -> int:
        """Write as much as goes; where that is nothing, tell it once and take everything from then on."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as err:
            is_gone = err.errno in _GONE
            if is_gone or not self.lasts:
                _discard(self.fileno())
            if not self.lasts:
                raise (
                    ReaderGoneError() if is_gone else OSError(err.errno, err.strerror, self.label)
                ) from err
            return memoryview(data).nbytes  # type: ignore[arg-type]

    @property
    def label(self) -> str:
        """What a user calls it."""
        return {1: "standard output", 2: "standard error"}.get(self.fileno(), "the output")


def _safe(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # closed by whoever started this process
        _fill_gap(descriptor)
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    try:
        own = _Output(stream.fileno(), "wb", closefd=False)
    except (OSError, ValueError):  # a stream of no file, as in tests
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(own),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _fill_gap(descriptor: int) -> None:
    """Take a standard descriptor that is closed, lest a file that is opened later gets what libraries print."""
    try:
        os.fstat(descriptor)
    except OSError:
        _discard(descriptor)


def _discard(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing != descriptor:
        os.dup2(nothing, descriptor)
        os.close(nothing)


def _hears_signals() -> bool:
    return threading.current_thread() is threading.main_thread()
