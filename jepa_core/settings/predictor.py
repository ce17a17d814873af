"""The settings of the predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class PredictorSettings:
    """Predictor dimensions; `num_heads` None takes the encoder's.

    `context` says what the context's tokens attend to. `repeated` is the published predictor: every target block has
    a sequence of its own with a copy of the context, whose tokens attend to the block's mask tokens too. `shared`
    runs the context once, attending to itself alone, and each target block attends to it and to itself: another
    predictor, which costs about half as much. With one block (`depth` 1) the two are the same function.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    width: int = 384
    """Width of a token in the predictor."""
    depth: int = 6
    """Transformer blocks of the predictor."""
    num_heads: int | None = None
    """Attention heads a block; null is the encoder's."""
    context: Literal["repeated", "shared"] = "repeated"
    """What context tokens attend to: one target block too (published), or the context alone (cheaper)."""

    def __post_init__(self) -> None:
        for key in ("width", "depth", "num_heads"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} must be at least 1, not {value}")
        if self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 for the position embedding")
        if self.num_heads is not None and self.width % self.num_heads:
            near = max(1, round(self.width / self.num_heads)) * self.num_heads
            raise ValueError(
                f"width {self.width} must be a multiple of num_heads ({self.num_heads}); try {near}"
            )
