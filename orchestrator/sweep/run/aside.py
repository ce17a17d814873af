"""Work that a sweep's driver does beside its trials, in a thread: nobody waits for it before the sweep's end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Aside:
    """One piece of work, done once however often it is begun; its failure is logged and ends nothing."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._name, self._work = name, work
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start it, unless it was started before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for its end, if it was begun."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            _log.warning("%s failed; the sweep goes on without it", self._name, exc_info=True)
