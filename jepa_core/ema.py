"""The target encoder as an exponential moving average of the context encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class EmaSettings:
    """Momentum of the target encoder, linear from `start_momentum` to `final_momentum` over the run."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    start_momentum: float = 0.996
    final_momentum: float = 1.0
