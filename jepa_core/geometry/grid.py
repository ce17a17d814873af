"""The grid of patches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PatchGrid:
    """The patches of an image: `rows` by `columns`, numbered row by row."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"a patch grid needs rows and columns of at least 1, not {self}")

    @property
    def num_patches(self) -> int:
        """Patches of the grid."""
        return self.rows * self.columns

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"
