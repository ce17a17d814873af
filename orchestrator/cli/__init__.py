"""The command line: argv to one call. The only place that prints or exits.

Results go to standard output, as text or, with `--json`, as one JSON document; progress, notes and errors go to
standard error. Exit codes are those of `orchestrator.errors`: 0 done, 1 unexpected, 2 configuration, 3 data,
4 storage, 5 tracking, 6 training, 7 cluster, 130 interrupted.
"""

from orchestrator.cli.main import app_with_commands, main

__all__ = ["app_with_commands", "main"]
