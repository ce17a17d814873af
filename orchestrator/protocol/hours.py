"""Device hours of trials and sweeps: GPU hours and CPU core hours, the whole and a geometry's share told apart by type.

The whole is what was held, so it adds up to a sweep's. A share leaves out what says nothing about a geometry, so it
compares geometries and adds up to nothing. MLflow's `cost/...` are wholes; tables of geometries show shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DeviceHours:
    """Devices times the hours that they were held, busy or not; what they are hours of, the two classes below say."""

    gpu: float = 0.0
    cpu_core: float = 0.0

    @property
    def has_gpus(self) -> bool:
        """Whether any GPU was held."""
        return self.gpu > 0

    @property
    def counted(self) -> float:
        """GPU hours, or CPU core hours where no GPU was held."""
        return self.gpu or self.cpu_core

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {"gpu_hours": self.gpu, "cpu_core_hours": self.cpu_core}


@dataclass(frozen=True, kw_only=True)
class WholeHours(DeviceHours):
    """All that a trial's attempts held: starts, baselines and retries too.

    Idle slots and asynchronous evaluations are apart.
    """

    @classmethod
    def total(cls, parts: Iterable[WholeHours]) -> WholeHours:
        """The sum."""
        each = tuple(parts)
        return cls(gpu=sum(part.gpu for part in each), cpu_core=sum(part.cpu_core for part in each))

    def share_after(self, start_hours: float) -> ShareHours:
        """What is left without the start, which took so many of the counted hours."""
        kept = 1 - start_hours / self.counted if self.counted > 0 else 1.0
        return ShareHours(gpu=self.gpu * kept, cpu_core=self.cpu_core * kept)


@dataclass(frozen=True, kw_only=True)
class ShareHours(DeviceHours):
    """What a trial held from its first step on, retries too.

    Its start, and the baselines that it measured for others, fall to whichever trial comes first.
    """

    @classmethod
    def mean(cls, parts: Sequence[ShareHours]) -> ShareHours:
        """Of several seeds of a geometry: hours a trial."""
        count = len(parts)
        return cls(
            gpu=sum(part.gpu for part in parts) / count, cpu_core=sum(part.cpu_core for part in parts) / count
        )
