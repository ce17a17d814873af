"""Keeps a job's driver alive: runs it, and runs it again when it was killed or lost its cluster or bucket.

Ray Jobs starts a job's command once. A driver that is killed (out of memory, an operator's slip) would end the sweep
although every trial has its checkpoint; started again under the same sweep id it goes on. A driver that ends by itself
is believed, unless it says that the bucket (4) or the cluster (7) was lost. On SIGTERM nothing is restarted: Ray sends
the signal to the whole process tree, so the driver has it already and is writing checkpoints.

Standard library alone; started as `python -m orchestrator.jobs.keeper --restarts N -- COMMAND...`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

PLACE_LOST = (4, 7)
"""Exit codes of `StorageError` and `ClusterError`: a bucket or a cluster that is away may come back."""
_BACKOFF_S = (1.0, 5.0, 15.0, 30.0, 60.0)


def restart_delay_s(exit_code: int, num_restarts: int, limit: int) -> float | None:
    """How long to wait before the next start, or None to let the exit code stand.

    `exit_code` is negative for a signal, as `subprocess` has it.
    """
    was_lost = exit_code < 0 or exit_code in PLACE_LOST
    if not was_lost or num_restarts >= limit:
        return None
    return _BACKOFF_S[min(num_restarts, len(_BACKOFF_S) - 1)]


def keep(command: Sequence[str], *, limit: int) -> int:
    """Run `command` until it ends by itself or is asked to; returns its exit code, 128 + n for signal n."""
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    num_restarts = 0
    while True:
        code = subprocess.Popen(command).wait()
        delay_s = None if stopping else restart_delay_s(code, num_restarts, limit)
        if delay_s is None:
            return code if code >= 0 else 128 - code
        num_restarts += 1
        _say(f"the driver ended with {code}; restart {num_restarts} of {limit} in {delay_s:g} s")
        time.sleep(delay_s)
        if stopping:
            return 128 + signal.SIGTERM


def _say(text: str) -> None:
    sys.stderr.write(f"keeper: {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Parse the arguments and keep."""
    parser = argparse.ArgumentParser(prog="orchestrator.jobs.keeper")
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    sys.exit(keep(command, limit=arguments.restarts))


if __name__ == "__main__":
    main()
