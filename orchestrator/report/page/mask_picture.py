"""A picture of what a mask geometry hides: images, their context and their target blocks, one column an image.

Takes arrays, so it draws whatever a sampler gave. Axis letters: B images, C context blocks (K patches each),
M target blocks (T patches each), H W pixels.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jepa_core.masks import MaskBatch, MaskSettings, PatchGrid

Pixels = NDArray[np.uint8]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

_SHADE = np.array([128.0, 128.0, 128.0])
_DIMMED = 0.18
_CELL_INCHES = 0.95


def preview(
    settings: MaskSettings,
    grid: PatchGrid,
    images_BHWC: Pixels,
    *,
    title: str,
    seed: int = 0,
    batch_size: int = 1,
) -> bytes:
    """A PNG of what a geometry draws on images, as the first ones of a batch of at least `batch_size`.

    Raises:
        ValueError: The geometry cannot be sampled on this grid.
    """
    import torch

    from jepa_core.masks import build_sampler

    sampler = build_sampler(settings, grid)
    ids = torch.arange(max(batch_size, len(images_BHWC)), dtype=torch.int64)
    masks = sampler.sample(ids, torch.zeros_like(ids), seed=seed, step=0)
    rows = {name: flags_BN[: len(images_BHWC)] for name, flags_BN in rows_of(masks, grid).items()}
    return contact_sheet(images_BHWC, rows, grid, title=title)


def rows_of(masks: MaskBatch, grid: PatchGrid) -> dict[str, Flags]:
    """Visible patches by row of the picture: `context` and `target 1`, ... as [B, N] flags."""
    rows: dict[str, Flags] = {}
    num_blocks = len(masks.context_indices_CBK)
    for block in range(num_blocks):
        valid = None if masks.context_valid_CBK is None else masks.context_valid_CBK[block].numpy()
        name = "context" if num_blocks == 1 else f"context {block + 1}"
        rows[name] = patch_flags(masks.context_indices_CBK[block].numpy(), valid, grid.num_patches)
    for block in range(len(masks.target_indices_MBT)):
        valid = None if masks.target_valid_MBT is None else masks.target_valid_MBT[block].numpy()
        rows[f"target {block + 1}"] = patch_flags(
            masks.target_indices_MBT[block].numpy(), valid, grid.num_patches
        )
    return rows


def patch_flags(indices_BK: Indices, valid_BK: Flags | None, num_patches: int) -> Flags:
    """Which patches are listed, as [B, N]; padded entries are left out."""
    flags = np.zeros((len(indices_BK), num_patches), dtype=np.bool_)
    for image, indices in enumerate(indices_BK):
        flags[image, indices if valid_BK is None else indices[valid_BK[image]]] = True
    return flags


def contact_sheet(images_BHWC: Pixels, visible: Mapping[str, Flags], grid: PatchGrid, *, title: str) -> bytes:
    """A PNG: the images on top, then one row for each entry of `visible` with everything else dimmed."""
    rows: list[tuple[str, Sequence[Pixels]]] = [("image", list(images_BHWC))]
    for name, flags_BN in visible.items():
        share = f"{name}\n{100 * flags_BN.mean():.0f} %"
        dimmed = [dim(image, flags, grid) for image, flags in zip(images_BHWC, flags_BN, strict=True)]
        rows.append((share, dimmed))
    num_columns = len(images_BHWC)
    row_inches = _CELL_INCHES * images_BHWC.shape[1] / images_BHWC.shape[2]
    figure = Figure(
        figsize=(0.9 + _CELL_INCHES * num_columns, 0.5 + row_inches * len(rows)), layout="constrained"
    )
    figure.suptitle(title, fontsize=9)
    cells = figure.subplots(len(rows), num_columns, squeeze=False)
    for (name, images), line in zip(rows, cells, strict=True):
        for image, axes in zip(images, line, strict=True):
            axes.imshow(image, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def coverage_sheet(maps: Mapping[str, Sequence[Sequence[Sequence[float]]]]) -> bytes:
    """A PNG of coverage maps, one row a name: how often each patch is a target, and how often it is kept as context.

    `maps` gives both maps of each name, as rows of shares. Each column has one scale, so that its maps compare.
    """
    names = list(maps)
    figure = Figure(figsize=(5.6, 0.6 + 2.1 * len(names)), layout="constrained")
    cells = figure.subplots(len(names), 2, squeeze=False)
    for column, kind in enumerate(("target", "context")):
        most = max(share for name in names for row in maps[name][column] for share in row) or 1.0
        for name, line in zip(names, cells, strict=True):
            axes = line[column]
            shown = axes.imshow(np.array(maps[name][column]), cmap="Blues", vmin=0.0, vmax=most)
            axes.set(xticks=[], yticks=[], title=kind if name == names[0] else "")
        figure.colorbar(shown, ax=list(cells[:, column]), location="bottom", shrink=0.8, aspect=30)
    for name, line in zip(names, cells, strict=True):
        line[0].set_ylabel("\n".join(textwrap.wrap(name, 24)), fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def dim(image_HWC: Pixels, visible_N: Flags, grid: PatchGrid) -> Pixels:
    """An image with the patches that are not visible faded to grey."""
    height, width = image_HWC.shape[:2]
    rows = np.arange(height) * grid.rows // height
    columns = np.arange(width) * grid.columns // width
    mask_HW1 = visible_N.reshape(grid.rows, grid.columns)[rows][:, columns][..., None]
    faded = image_HWC * _DIMMED + _SHADE * (1 - _DIMMED)
    shaded: Pixels = np.where(mask_HW1, image_HWC, faded).astype(np.uint8)
    return shaded
