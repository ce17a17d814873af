"""The fixed sine-cosine position embedding of patches.

Owns the table that both the encoders and the predictor add to their tokens. It is never learned and never stored:
it is a function of the grid and the width.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_PERIOD = 10_000.0


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """The 2-D sine-cosine embedding of a grid, float32 [rows * columns, width], patches row by row.

    The first half of the width encodes the column, the second half the row; each half is sines, then cosines.

    Raises:
        ValueError: `width` is not a multiple of 4.

    Source: Vaswani et al. 2017, section 3.5, along each axis; I-JEPA (arXiv 2301.08243), appendix A.1.
    """
    if width % 4:
        raise ValueError(f"width {width} must be a multiple of 4 for the 2-D position embedding")
    frequencies = _MAX_PERIOD ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    row_N = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)
    column_N = torch.arange(columns, dtype=torch.float64).repeat(rows)
    angles = [axis_N[:, None] * frequencies for axis_N in (column_N, row_N)]
    parts = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1).float()
