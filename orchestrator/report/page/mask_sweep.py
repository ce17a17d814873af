"""The mask geometries of a sweep for a person: the audit's table, and a picture of each on the sweep's own images.

Called by a starting sweep (`write`) and by `orchestrator masks`; `masks` puts the audit on a page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from jepa_core.settings import ImageSize
from orchestrator.config.models import RunConfig
from orchestrator.data import ShardSet, load_images
from orchestrator.report.page.mask_picture import coverage_sheet, preview
from orchestrator.sweep.foresight import GeometryAudit, SweepAudit

Pixels = NDArray[np.uint8]
COLUMNS = (
    "geometry",
    "context",
    "sd",
    "of grid",
    "before cut",
    "target",
    "all targets",
    "overlap",
    "padding",
    "shapes",
    "GFLOP/image",
)
LEGEND = (
    "context: patches of a context block that reach the encoder, and their standard deviation over images",
    "before cut: context that the targets leave, before it is cut to what is kept; of the grid, like all shares",
    "target, all targets: one target block, and the union of an image's",
    "overlap: share of target patches that another target block holds already",
    "padding: share of the predictor's places that hold nothing; shapes: block shapes of the targets",
)


def audit_rows(audit: SweepAudit) -> list[list[str]]:
    """The audit as a table: a header and one row a geometry."""
    return [list(COLUMNS), *(_row(geometry) for geometry in audit.geometries)]


def _row(geometry: GeometryAudit) -> list[str]:
    audit = geometry.audit
    places = audit.context_tokens + audit.target_tokens
    padding = audit.context_padding_fraction * audit.context_tokens
    padding += audit.target_padding_fraction * audit.target_tokens
    shares = (
        audit.context_fraction.mean,
        audit.context_available_fraction.mean,
        audit.target_fraction.mean,
        audit.target_union_fraction.mean,
        audit.target_overlap_fraction,
        padding / places,
    )
    return [
        geometry.name,
        f"{audit.context_patches.mean:.1f}",
        f"{audit.context_patches.sd:.1f}",
        *(f"{share:.3f}" for share in shares),
        str(len(audit.target_shapes) or "-"),
        f"{geometry.flops.total / 1e9:.3g}",
    ]


def coverage_text(audit: GeometryAudit) -> str:
    """Both coverage maps of a geometry side by side, a digit a patch: how often it is covered, in tenths."""
    maps = (audit.audit.target_coverage, audit.audit.context_coverage)
    width = 2 * audit.audit.grid.columns - 1
    lines = [f"{'target':<{width}}   context"]
    lines += ["   ".join(_digits(row) for row in rows) for rows in zip(*maps, strict=True)]
    return "\n".join([*lines, "each digit: how often that patch is covered, in tenths of the images"])


def _digits(row: Sequence[float]) -> str:
    return " ".join(str(min(9, int(share * 10))) for share in row)


def previews(audit: SweepAudit, images_of: Callable[[ImageSize], Pixels], *, most: int) -> dict[str, bytes]:
    """A PNG for each of the first `most` geometries, by a name that sorts in their order.

    `images_of` gives images of that size, uint8 [B, H, W, 3].
    """
    pictures = {}
    for index, geometry in enumerate(audit.geometries[:most]):
        pictures[picture_name(index, geometry)] = preview(
            geometry.audit.settings,
            geometry.audit.grid,
            images_of(geometry.config.encoder.image_size_px),
            title=geometry.name,
            seed=geometry.config.train.seed,
            batch_size=geometry.audit.batch_size,
        )
    return pictures


def coverage_picture(audit: SweepAudit, *, most: int) -> bytes:
    """A PNG of the coverage maps of the first `most` geometries."""
    return coverage_sheet(
        {
            geometry.name: (geometry.audit.target_coverage, geometry.audit.context_coverage)
            for geometry in audit.geometries[:most]
        }
    )


def picture_name(index: int, geometry: GeometryAudit) -> str:
    """The name of a geometry's picture: its number and its point."""
    text = re.sub(r"[^A-Za-z0-9.]+", "-", geometry.name)
    return f"{index:03d}-{text[:100].strip('-.')}"


def images_from(
    config: RunConfig, shards: ShardSet, num_images: int, *, split: str | None = None
) -> Callable[[ImageSize], Pixels]:
    """Images of a sweep's data at any size, for `previews`; of the test split unless another is named."""

    def load(size_px: ImageSize) -> Pixels:
        loaded = load_images(
            shards, split or config.data.test_split, num_images, image_size_px=size_px, threads=1
        )
        images: Pixels = loaded.images_uint8_NCHW.permute(0, 2, 3, 1).numpy()
        return images

    return load
