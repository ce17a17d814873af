"""What is known of a search space before more is proposed: places that were measured, and trials that wait.

Plain values, apart from the search that is told them (`optuna`), which loads Optuna.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.protocol.events import Heard
from orchestrator.protocol.point import Point

Units = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A trial that was proposed before the driver ended, and is run before anything new is proposed."""

    units: Units
    point: Point
    seed: int
    index: int


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a search knows when it starts: trials that were heard, and trials that were asked for."""

    heard: Sequence[Heard] = field(default_factory=tuple)
    pending: Sequence[Pending] = field(default_factory=tuple)
    num_proposed: int = 0
    """Trials of this sweep that were proposed already: new draws are not those again."""
