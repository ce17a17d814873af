"""What a geometry really masks, predicted by sampling it without a model.

`audit_geometry` describes one geometry, `coupled_figures` says which realised figures move together over the geometries
of a sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_core.geometry.feasibility import Plan, plan_geometry
from jepa_core.geometry.grid import PatchGrid
from jepa_core.geometry.settings import MaskSettings
from jepa_core.geometry.shapes import ShapeTable
from jepa_core.masks.draws import sample_keys
from jepa_core.masks.grid import Layout, MaskBatch, MaskSampler
from jepa_core.masks.metrics import patch_counts
from jepa_core.masks.reference import NUM_CELLS, ReferenceSampler
from jepa_core.masks.samplers import build_sampler

_CPU = torch.device("cpu")
_GOLDEN_RATIO = 0.6180339887498949
_BATCHES_FOR_REFERENCE = 64


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation, least and most of a figure over images."""

    mean: float
    sd: float
    least: float
    most: float


@dataclass(frozen=True)
class ShapeShare:
    """A block shape in patches and its share of all blocks."""

    height: int
    width: int
    share: float


@dataclass(frozen=True, kw_only=True)
class MaskAudit:
    """What a geometry comes to. Fractions are of the grid unless their name says otherwise.

    Attributes:
        context_patches: Context patches that reach the encoder, a block.
        context_fraction: The same as a fraction.
        context_union_fraction: All kept context of an image.
        context_available_fraction: Context before the cut to what is kept.
        context_block_fraction: Context block before the targets are taken out.
        target_fraction: One target block.
        target_union_fraction: All target blocks of an image.
        context_tokens: Mean K, padding included: what the encoder computes.
        target_tokens: Mean T, padding included: what the predictor computes for each block.
        removed_fraction: Share of the context block that the targets take out.
        overlap_fraction: Share of the kept context that is target too.
        target_overlap_fraction: Share of target patches that another target block holds already.
        context_padding_fraction: Share of K that holds nothing.
        target_padding_fraction: Share of T that holds nothing.
        short_share: Share of context blocks with fewer patches than K.
        adjusted_share: Share of images whose blocks had to give way (see `Layout`).
        target_shapes: Distinct shapes, the most frequent first; empty for the sampler "random".
        context_shapes: The same for context blocks.
        scale_aspect_correlation: Correlation of area and log aspect ratio over target blocks, from their exact
            distribution; 0 where one of them never changes.
        target_coverage: How often each patch is a target, by row and column.
        context_coverage: How often each patch is kept as context.
    """

    settings: MaskSettings
    grid: PatchGrid
    num_samples: int
    batch_size: int
    context_patches: Spread
    context_fraction: Spread
    context_union_fraction: Spread
    context_available_fraction: Spread
    context_block_fraction: Spread
    target_fraction: Spread
    target_union_fraction: Spread
    context_tokens: float
    target_tokens: float
    removed_fraction: float
    overlap_fraction: float
    target_overlap_fraction: float
    context_padding_fraction: float
    target_padding_fraction: float
    short_share: float
    adjusted_share: float
    target_shapes: tuple[ShapeShare, ...]
    context_shapes: tuple[ShapeShare, ...]
    scale_aspect_correlation: float
    target_coverage: tuple[tuple[float, ...], ...]
    context_coverage: tuple[tuple[float, ...], ...]

    @property
    def target_row_coverage(self) -> tuple[float, ...]:
        """How often a patch of each row is a target."""
        return tuple(sum(row) / len(row) for row in self.target_coverage)

    @property
    def target_column_coverage(self) -> tuple[float, ...]:
        """How often a patch of each column is a target."""
        return tuple(sum(column) / len(column) for column in zip(*self.target_coverage, strict=True))

    @property
    def context_row_coverage(self) -> tuple[float, ...]:
        """How often a patch of each row is context."""
        return tuple(sum(row) / len(row) for row in self.context_coverage)

    @property
    def context_column_coverage(self) -> tuple[float, ...]:
        """How often a patch of each column is context."""
        return tuple(sum(column) / len(column) for column in zip(*self.context_coverage, strict=True))

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that training logs, under the same names, as predicted here."""
        return {
            "masks/context_patches": self.context_patches.mean,
            "masks/context_fraction": self.context_fraction.mean,
            "masks/context_union_fraction": self.context_union_fraction.mean,
            "masks/context_padding_fraction": self.context_padding_fraction,
            "masks/target_patches": self.target_fraction.mean * self.grid.num_patches,
            "masks/target_fraction": self.target_fraction.mean,
            "masks/target_union_fraction": self.target_union_fraction.mean,
            "masks/target_padding_fraction": self.target_padding_fraction,
            "masks/target_overlap_fraction": self.target_overlap_fraction,
            "masks/overlap_fraction": self.overlap_fraction,
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before spending GPU hours on the geometry, one sentence each."""
        return tuple(_warnings(self))


def audit_geometry(
    settings: MaskSettings, grid: PatchGrid, *, num_samples: int = 2048, batch_size: int = 128, seed: int = 0
) -> MaskAudit:
    """Sample a geometry and describe it.

    `batch_size` is what one device draws at once; it matters to `reference` alone. The number of samples is rounded
    up to whole batches.

    Raises:
        ValueError: the geometry cannot be sampled, or a count is under 1.
    """
    if num_samples < 1 or batch_size < 1:
        raise ValueError(f"num_samples and batch_size must be at least 1, not {num_samples} and {batch_size}")
    sampler, plan = build_sampler(settings, grid), plan_geometry(settings, grid)
    num_batches = -(-num_samples // batch_size)
    if settings.sampler == "reference":
        num_batches = max(num_batches, _BATCHES_FOR_REFERENCE)
    batches = [
        _Tally.count(layout, sampler.keep(layout, _CPU).widened(), grid)
        for layout in _layouts(sampler, num_batches, batch_size, seed)
    ]
    return _describe(settings, grid, plan, batches, batch_size)


def _layouts(sampler: MaskSampler, num_batches: int, batch_size: int, seed: int) -> Iterator[Layout]:
    """Layouts of batches. For `reference`, which draws its shapes once a batch, the shapes are spread evenly."""
    for number in range(num_batches):
        ids_B = torch.arange(number * batch_size, (number + 1) * batch_size)
        epochs_B = torch.zeros_like(ids_B)
        if isinstance(sampler, ReferenceSampler):
            target_cell = int((number + 0.5) / num_batches * NUM_CELLS)
            context_cell = int((number + 0.5) * _GOLDEN_RATIO % 1 * NUM_CELLS)
            yield sampler.layout_of(sample_keys(seed, epochs_B, ids_B), target_cell, context_cell)
        else:
            yield sampler.layout(ids_B, epochs_B, seed=seed, step=number, device=_CPU)


@dataclass(frozen=True)
class _Tally:
    """Counts of a batch: float64 by block and image, or sums over images by patch."""

    kept_CB: Tensor
    available_CB: Tensor
    inside_CB: Tensor
    target_MB: Tensor
    union_B: Tensor
    context_union_B: Tensor
    both_CB: Tensor
    adjusted_B: Tensor
    num_kept: int
    num_targeted: int
    context_N: Tensor
    target_N: Tensor

    @classmethod
    def count(cls, layout: Layout, masks: MaskBatch, grid: PatchGrid) -> _Tally:
        contexts = [
            patch_counts(
                masks.context_indices_CBK[block : block + 1],
                None if masks.context_valid_CBK is None else masks.context_valid_CBK[block : block + 1],
                grid.num_patches,
            )
            for block in range(len(masks.context_indices_CBK))
        ]
        context_CBN = torch.stack(contexts)
        target_BN = patch_counts(masks.target_indices_MBT, masks.target_valid_MBT, grid.num_patches) > 0
        target_valid, adjusted = masks.target_valid_MBT, layout.adjusted_B
        target_MB = torch.full(masks.target_indices_MBT.shape[:2], masks.target_indices_MBT.shape[2])
        return cls(
            kept_CB=context_CBN.sum(-1).double(),
            available_CB=layout.available_CBN.sum(-1).double(),
            inside_CB=layout.inside_CBN.sum(-1).double(),
            target_MB=(target_MB if target_valid is None else target_valid.sum(-1)).double(),
            union_B=target_BN.sum(-1).double(),
            context_union_B=(context_CBN.sum(0) > 0).sum(-1).double(),
            both_CB=(context_CBN * target_BN).sum(-1).double(),
            adjusted_B=(target_BN[:, 0] & False if adjusted is None else adjusted).double(),
            num_kept=masks.context_indices_CBK.shape[-1],
            num_targeted=masks.target_indices_MBT.shape[-1],
            context_N=(context_CBN.sum(0) > 0).sum(0).double(),
            target_N=target_BN.sum(0).double(),
        )


def _describe(
    settings: MaskSettings, grid: PatchGrid, plan: Plan, batches: Sequence[_Tally], batch_size: int
) -> MaskAudit:
    num_samples, num_patches = len(batches) * batch_size, grid.num_patches

    def gather(name: str) -> Tensor:
        return torch.cat([getattr(batch, name) for batch in batches], dim=-1)

    kept, inside, target, union = (
        gather("kept_CB"),
        gather("inside_CB"),
        gather("target_MB"),
        gather("union_B"),
    )
    available, num_kept = gather("available_CB"), sum(batch.num_kept for batch in batches) / len(batches)
    num_targeted = sum(batch.num_targeted for batch in batches) / len(batches)
    short = torch.cat([(batch.kept_CB < batch.num_kept).flatten() for batch in batches])
    has_shapes = settings.sampler != "random"
    return MaskAudit(
        settings=settings,
        grid=grid,
        num_samples=num_samples,
        batch_size=batch_size,
        context_patches=_spread(kept),
        context_fraction=_spread(kept / num_patches),
        context_union_fraction=_spread(gather("context_union_B") / num_patches),
        context_available_fraction=_spread(available / num_patches),
        context_block_fraction=_spread(inside / num_patches),
        target_fraction=_spread(target / num_patches),
        target_union_fraction=_spread(union / num_patches),
        context_tokens=num_kept,
        target_tokens=num_targeted,
        removed_fraction=float(1 - available.sum() / inside.sum()),
        overlap_fraction=float(gather("both_CB").sum() / kept.sum()),
        target_overlap_fraction=float(1 - union.sum() / target.sum()),
        context_padding_fraction=1 - float(kept.mean()) / num_kept,
        target_padding_fraction=1 - float(target.mean()) / num_targeted,
        short_share=float(short.double().mean()),
        adjusted_share=float(gather("adjusted_B").mean()),
        target_shapes=_shares(plan.targets) if has_shapes else (),
        context_shapes=_shares(plan.contexts),
        scale_aspect_correlation=_correlation_of(plan.targets) if has_shapes else 0.0,
        target_coverage=_coverage([batch.target_N for batch in batches], grid, num_samples),
        context_coverage=_coverage([batch.context_N for batch in batches], grid, num_samples),
    )


def _spread(values: Tensor) -> Spread:
    return Spread(
        float(values.mean()), float(values.std(correction=0)), float(values.min()), float(values.max())
    )


def _shares(table: ShapeTable) -> tuple[ShapeShare, ...]:
    total = table.total
    shares = [ShapeShare(height, width, weight / total) for height, width, weight in table.shapes]
    return tuple(sorted(shares, key=lambda shape: (-shape.share, shape.height, shape.width)))


def _coverage(sums: Sequence[Tensor], grid: PatchGrid, num_samples: int) -> tuple[tuple[float, ...], ...]:
    rows = (torch.stack(list(sums)).sum(0) / num_samples).view(grid.rows, grid.columns).tolist()
    return tuple(tuple(row) for row in rows)


def _correlation_of(table: ShapeTable) -> float:
    areas = [float(height * width) for height, width, _ in table.shapes]
    aspects = [math.log(height / width) for height, width, _ in table.shapes]
    return correlation(areas, aspects, [float(weight) for _, _, weight in table.shapes])


def correlation(
    first: Sequence[float], second: Sequence[float], weights: Sequence[float] | None = None
) -> float:
    """Pearson's correlation; 0 where one of the two does not change."""
    x, y = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    weight = torch.ones_like(x) if weights is None else torch.tensor(weights, dtype=torch.float64)
    weight = weight / weight.sum()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    scale = ((weight * x * x).sum() * (weight * y * y).sum()).sqrt()
    return float((weight * x * y).sum() / scale) if scale > 1e-12 else 0.0


def _warnings(audit: MaskAudit) -> Iterable[str]:
    settings = audit.settings
    dead = [
        f"{kind} {', '.join(str(place) for place in places)}"
        for kind, places in (("rows", _dead(audit, rows=True)), ("columns", _dead(audit, rows=False)))
        if places
    ]
    if dead:
        yield f"{' and '.join(dead)} of the {audit.grid} grid are neither context nor target"
    if settings.sampler == "reference":
        yield (
            f"context is cut to the smallest of a batch: {audit.context_patches.mean:.1f} of "
            f"{audit.context_available_fraction.mean * audit.grid.num_patches:.1f} patches at batch "
            f"{audit.batch_size} on each device; another batch or worker count masks differently"
        )
    if audit.short_share > 0.05:
        yield (
            f"{audit.short_share:.0%} of the context blocks hold fewer than {audit.context_tokens:.0f} patches, "
            f"{audit.context_patches.least:.0f} at worst: lower masks.context_keep or masks.target_scale"
        )
    if audit.adjusted_share > 0.01:
        yield f"{audit.adjusted_share:.1%} of the images had blocks moved or relaxed for lack of context"
    if audit.target_padding_fraction > 0.3:
        yield (
            f"{audit.target_padding_fraction:.0%} of the predictor's target places are padding: narrow "
            "masks.target_scale"
        )
    if abs(audit.scale_aspect_correlation) > 0.5:
        yield (
            f"block area and aspect ratio are coupled (correlation {audit.scale_aspect_correlation:+.2f}): "
            "the two cannot be told apart in a sweep"
        )


def _dead(audit: MaskAudit, *, rows: bool) -> list[int]:
    target = audit.target_row_coverage if rows else audit.target_column_coverage
    context = audit.context_row_coverage if rows else audit.context_column_coverage
    return [place for place, both in enumerate(zip(target, context, strict=True)) if not any(both)]


def coupled_figures(
    figures: Mapping[str, Sequence[float]], *, threshold: float = 0.9
) -> tuple[tuple[str, str, float], ...]:
    """Pairs of figures whose absolute correlation over the trials of a sweep is at least a threshold.

    `figures` holds one number a trial for each name: axes of the sweep, and realised fractions from the audits. Two
    coupled axes cannot be told apart by the sweep, whatever it finds.
    """
    names, found = list(figures), []
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            value = correlation(figures[first], figures[second])
            if abs(value) >= threshold:
                found.append((first, second, value))
    return tuple(sorted(found, key=lambda pair: -abs(pair[2])))
