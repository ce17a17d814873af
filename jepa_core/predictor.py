"""The narrow predictor: context features and positional mask tokens in, target features out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class PredictorSettings:
    """Predictor dimensions; `num_heads` None takes the encoder's."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    width: int = 384
    depth: int = 6
    num_heads: int | None = None
