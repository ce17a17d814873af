"""The end of a driver whose cluster died under it."""

from __future__ import annotations

import os
import sys

from orchestrator.errors import ClusterError


def abort(error: ClusterError) -> None:
    """Say what happened and end the process with the error's exit code.

    Called from the watchdog's thread while the main thread may be waiting in Ray for ever, so nothing is unwound: what
    must survive is on disk already, and Ray's processes end with their driver.
    """
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    sys.stderr.write(f"{show_cursor}\nerror: {error}\ngo on with the same command and --resume ID\n")
    sys.stderr.flush()
    os._exit(error.exit_code)
