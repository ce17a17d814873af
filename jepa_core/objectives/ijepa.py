"""The I-JEPA objective: predict the target encoder's features of hidden blocks from the context encoder's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class IJepaSettings:
    """Loss of the I-JEPA objective."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["ijepa"] = "ijepa"
    loss: Literal["smooth_l1", "l2"] = "smooth_l1"
    smooth_l1_beta: float = 1.0
    normalize_targets: bool = True
