"""The exception tree: every fault a user can meet, with its exit code.

    OrchestratorError (1)
    ├── ConfigError (2)          a YAML file, an override or an argument breaks a rule
    ├── DataError (3)            shards, images or labels are missing, damaged or not usable
    ├── StorageError (4)         a URI cannot be read or written
    │   └── NotFoundError        ... because nothing is there
    ├── TrackingError (5)        the tracking store refuses what it is sent
    ├── TrainingError (6)        a trial failed and its retries are spent
    │   └── CheckpointError      a checkpoint is damaged or belongs to another run
    └── ClusterError (7)         Ray cannot be started or reached

130 is an interrupted command. Every message says what, where, the value, the rule and the remedy. All of them survive
pickling, since they cross Ray's process boundary: arguments are kept in `args`.
"""

from __future__ import annotations

from dataclasses import dataclass


class OrchestratorError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One broken rule in a configuration.

    `line` and `column` count from 1; None where the value came from no file. `key` is the dotted key. `given` is the
    value as the user wrote it. `remedy` proposes the nearest valid key or value, when there is one.
    """

    key: str
    rule: str
    given: str = ""
    source: str = ""
    line: int | None = None
    column: int | None = None
    remedy: str = ""

    def __str__(self) -> str:
        """Render as `file:line:column: key: rule (given: value); remedy`."""
        place = self.source
        if self.line is not None:
            place += f":{self.line}" + (f":{self.column}" if self.column is not None else "")
        parts = [part for part in (place, self.key) if part]
        text = ": ".join([*parts, self.rule])
        if self.given:
            text += f" (given: {self.given})"
        if self.remedy:
            text += f"; {self.remedy}"
        return text


class ConfigError(OrchestratorError):
    """A configuration breaks one or more rules; `faults` lists every one of them."""

    exit_code = 2

    def __init__(self, faults: list[Fault] | str) -> None:
        super().__init__(faults)
        self.faults = [Fault(key="", rule=faults)] if isinstance(faults, str) else list(faults)

    def __str__(self) -> str:
        """One line a fault."""
        return "\n".join(str(fault) for fault in self.faults)


class DataError(OrchestratorError):
    """Shards, images or labels are missing, damaged or not usable."""

    exit_code = 3


class StorageError(OrchestratorError):
    """A URI cannot be read or written."""

    exit_code = 4


class NotFoundError(StorageError):
    """Nothing is stored at a URI."""


class TrackingError(OrchestratorError):
    """The tracking store refuses what it is sent."""

    exit_code = 5


class TrainingError(OrchestratorError):
    """A trial failed and its retries are spent."""

    exit_code = 6


class CheckpointError(TrainingError):
    """A checkpoint is damaged or belongs to another run."""


class ClusterError(OrchestratorError):
    """Ray cannot be started or reached."""

    exit_code = 7
