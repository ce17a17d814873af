"""Rectangular blocks on the patch grid: which patches they hold, as arithmetic and as look-up tables.

`Rectangles` is the plain meaning, for any blocks. `BlockTables` gives the same for blocks that are drawn from tables
of shapes, several times faster: on a CPU, copying rows of a small table beats comparing coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.shapes import ShapeTable
from jepa_core.masks.draws import below, low_bits

MAX_TABLE_ENTRIES = 1 << 24
"""Above this, membership and indices are computed and not looked up."""


def union(hit_MBN: Tensor) -> Tensor:
    """Which patches lie in any block: bool [B, N]. Much faster than `any(0)` on a CPU."""
    covered_BN = hit_MBN[0]
    for hit_BN in hit_MBN[1:]:
        covered_BN = covered_BN | hit_BN
    return covered_BN


def count_true(mask: Tensor) -> Tensor:
    """How many entries of the last dimension are True, at most 2**24. Much faster than `sum` of bool on a CPU."""
    return mask.view(torch.uint8).to(torch.float32).sum(-1).to(torch.int64)


@dataclass(frozen=True)
class Rectangles:
    """Blocks by the place of their first patch and their sides: int64 [M, B] each (or [C, B])."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def membership(self, grid: PatchGrid) -> Tensor:
        """Which patches lie in each block: bool [M, B, N]."""
        rows = torch.arange(grid.rows, device=self.top.device) - self.top[..., None]
        columns = torch.arange(grid.columns, device=self.top.device) - self.left[..., None]
        in_row = (rows >= 0) & (rows < self.height[..., None])
        in_column = (columns >= 0) & (columns < self.width[..., None])
        return (in_row[..., :, None] & in_column[..., None, :]).flatten(-2)

    def indices(self, grid: PatchGrid, num_patches: int) -> tuple[Tensor, Tensor]:
        """The patches of each block, padded: int64 and bool [M, B, T]."""
        place = torch.arange(num_patches, device=self.top.device)
        row = ((place + 0.5) / self.width[..., None]).to(torch.int64)
        valid = place < (self.height * self.width)[..., None]
        first = self.top * grid.columns + self.left
        index = first[..., None] + place + row * (grid.columns - self.width)[..., None]
        return index * valid, valid


@dataclass(frozen=True)
class DrawnBlocks:
    """Blocks as a shape's number in the tables, int64 [M, B], and a place, int64 [2, M, B]: top and left."""

    shape_MB: Tensor
    place_2MB: Tensor

    def replaced(self, copy_MB: Tensor) -> DrawnBlocks:
        """The same blocks, with the first block in the place of others where `copy_MB` is True."""
        return DrawnBlocks(
            torch.where(copy_MB, self.shape_MB[:1], self.shape_MB),
            torch.where(copy_MB, self.place_2MB[:, :1], self.place_2MB),
        )

    def __getitem__(self, part: slice) -> DrawnBlocks:
        return DrawnBlocks(self.shape_MB[part], self.place_2MB[:, part])


class BlockTables:
    """Look-up tables of some shapes on a grid and a device.

    `num_places_2S` is how many tops and lefts each shape has, int64 [2, shapes].
    """

    def __init__(self, tables: list[ShapeTable], grid: PatchGrid, device: torch.device) -> None:
        self.grid, self.device = grid, device
        shapes = [(height, width) for table in tables for height, width, _ in table.shapes]
        self._sides = [[height for height, _ in shapes], [width for _, width in shapes]]
        self.height, self.width = self._tensor(self._sides[0]), self._tensor(self._sides[1])
        self.num_places_2S = torch.stack([grid.rows + 1 - self.height, grid.columns + 1 - self.width])
        self._offsets: dict[int, tuple[Tensor, Tensor]] = {}
        self._spans: tuple[Tensor, Tensor] | None = None
        num_spans = sum(len(set(sides)) for sides in self._sides) * max(grid.rows, grid.columns)
        self._compute_spans = num_spans * grid.num_patches > MAX_TABLE_ENTRIES

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def _make_spans(self) -> tuple[Tensor, Tensor]:
        """The patches in the rows, and in the columns, that a block may take, for each side and place.

        Returns where those of each shape start, int64 [2, shapes], and the patches, bool [spans, N].
        """
        first_row, rows = self._side_spans(self._sides[0], self.grid.rows)
        first_column, columns = self._side_spans(self._sides[1], self.grid.columns)
        patches_of_rows = rows[:, :, None].expand(-1, -1, self.grid.columns).flatten(1)
        patches_of_columns = columns[:, None, :].expand(-1, self.grid.rows, -1).flatten(1)
        starts_2S = torch.stack([first_row, first_column + len(rows)])
        return starts_2S, torch.cat([patches_of_rows, patches_of_columns])

    def _side_spans(self, sides: list[int], length: int) -> tuple[Tensor, Tensor]:
        place, starts, spans = torch.arange(length, device=self.device), {}, []
        count = 0
        for side in sorted(set(sides)):
            start = torch.arange(length + 1 - side, device=self.device)[:, None]
            spans.append((place >= start) & (place < start + side))
            starts[side] = count
            count += len(start)
        return self._tensor([starts[side] for side in sides]), torch.cat(spans)

    def draw_places(self, shape_MB: Tensor, draws_2MB: Tensor) -> DrawnBlocks:
        """Blocks of given shapes anywhere in the grid."""
        limits = self.num_places_2S.index_select(1, shape_MB.view(-1)).view(draws_2MB.shape)
        return DrawnBlocks(shape_MB, below(low_bits(draws_2MB, 31), limits))

    def rectangles(self, blocks: DrawnBlocks) -> Rectangles:
        """The blocks by their sides."""
        top, left = blocks.place_2MB
        return Rectangles(top, left, self.height[blocks.shape_MB], self.width[blocks.shape_MB])

    def membership(self, blocks: DrawnBlocks) -> Tensor:
        """Which patches lie in each block: bool [M, B, N]."""
        if self._compute_spans:
            return self.rectangles(blocks).membership(self.grid)
        if self._spans is None:
            self._spans = self._make_spans()
        starts_2S, patches = self._spans
        span = starts_2S.index_select(1, blocks.shape_MB.reshape(-1)) + blocks.place_2MB.flatten(1)
        in_rows, in_columns = patches.index_select(0, span.view(-1)).view(2, *blocks.shape_MB.shape, -1)
        hit: Tensor = in_rows & in_columns
        return hit

    def indices(self, blocks: DrawnBlocks, num_patches: int) -> tuple[Tensor, Tensor]:
        """The patches of each block, padded with 0: int32 and bool [M, B, T]."""
        if len(self.height) * num_patches > MAX_TABLE_ENTRIES:
            index, valid = self.rectangles(blocks).indices(self.grid, num_patches)
            return index.to(torch.int32), valid
        if num_patches not in self._offsets:
            zero = torch.zeros_like(self.height)
            index, valid = Rectangles(zero, zero, self.height, self.width).indices(self.grid, num_patches)
            padded = torch.where(valid, index, -self.grid.num_patches)
            self._offsets[num_patches] = padded.to(torch.int32), valid
        offsets, valid = self._offsets[num_patches]
        shape, size = blocks.shape_MB.reshape(-1), (*blocks.shape_MB.shape, num_patches)
        index = offsets.index_select(0, shape).view(size)
        first_MB = blocks.place_2MB[0] * self.grid.columns + blocks.place_2MB[1]
        index += first_MB.to(torch.int32)[..., None]
        return index.clamp_(min=0), valid.index_select(0, shape).view(size)

    def indices_of_one(self, blocks: DrawnBlocks, shape: int) -> Tensor:
        """The patches of blocks that all have one shape: int32 [M, B, T], none padded."""
        rows, columns = (torch.arange(sides[shape], dtype=torch.int32) for sides in self._sides)
        offsets_T = (rows[:, None] * self.grid.columns + columns).flatten().to(self.device)
        first_MB = blocks.place_2MB[0] * self.grid.columns + blocks.place_2MB[1]
        return first_MB.to(torch.int32)[..., None] + offsets_T
