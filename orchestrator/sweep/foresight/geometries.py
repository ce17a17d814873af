"""What the mask geometries of a sweep come to: audits, FLOPs, axes that do nothing, axes that move together.

Pure functions of a configuration and its planned trials; nothing is trained and no data is read. Called by
`plan` and by the report.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jepa_core.flops import StepFlops
from jepa_core.masks import (
    MaskAudit,
    audit_geometry,
    coupled_figures,
    equal_values,
    geometry_key,
    is_inert,
    unused_fields,
)
from orchestrator.config import axis_value, reads_masks, searched_keys
from orchestrator.config.models import Choice, RunConfig
from orchestrator.config.space import dimensions, driven_keys
from orchestrator.errors import ConfigError
from orchestrator.protocol.point import Point
from orchestrator.sweep.foresight.model_costs import ModelCosts
from orchestrator.sweep.space import SweepPlan, config_at, point_name, point_of_fractions

MAX_GEOMETRIES = 256
"""Geometries that are audited; the rest of a larger sweep is counted and not described."""

_BATCH, _MAX_BATCH = 128, 4096
_SAMPLED_POINTS = 24
_BASES = 6
_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
_COUPLED = 0.9
_SAMPLING_SHARE = 0.01
"""A figure that differs by less than this share is taken for the same everywhere."""
_MIN_FOR_COUPLING = 4
_OWN_FIGURES: Mapping[str, frozenset[str]] = {
    "masks.target_scale": frozenset({"target block", "all targets"}),
    "masks.num_target_blocks": frozenset({"all targets"}),
    "masks.context_keep": frozenset({"kept context"}),
}
"""Realised figures that an axis is there to set; that they follow it is no news."""


@dataclass(frozen=True, kw_only=True)
class GeometryAudit:
    """One geometry of a sweep, with the trials that train it; none where the point is a sample of a search."""

    name: str
    point: Point
    config: RunConfig
    trial_ids: tuple[str, ...]
    audit: MaskAudit
    flops: StepFlops

    def to_json(self) -> dict[str, object]:
        """The figures as a JSON-able dictionary."""
        audit = self.audit
        return {
            "name": self.name,
            "point": self.point.to_json(),
            "trial_ids": list(self.trial_ids),
            "grid": str(audit.grid),
            "batch_size_a_device": audit.batch_size,
            "context_block_shapes": len(audit.context_shapes),
            "target_block_shapes": len(audit.target_shapes),
            "context_available_fraction": audit.context_available_fraction.mean,
            "context_patches_sd": audit.context_patches.sd,
            "gigaflops_per_image": self.flops.total / 1e9,
            "metrics": audit.metrics,
            "warnings": list(audit.warnings),
        }


@dataclass(frozen=True, kw_only=True)
class SweepAudit:
    """The geometries of a sweep in the order of its trials, and what a person should know of the whole."""

    geometries: tuple[GeometryAudit, ...]
    notes: tuple[str, ...]
    is_sampled: bool
    """Whether the points are a sample of a space whose search proposes its own."""
    flops_per_image: Mapping[str, float]
    """Operations of a training step by trial, of every method; by number for sampled points."""

    @property
    def mean_flops_per_image(self) -> float:
        """Operations per image, averaged over the trials or the sampled points."""
        return sum(self.flops_per_image.values()) / max(1, len(self.flops_per_image))

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {
            "geometries": [geometry.to_json() for geometry in self.geometries],
            "notes": list(self.notes),
            "is_sampled": self.is_sampled,
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the audits warn of; a warning that not all geometries share is told with its geometry."""
        geometries_of: dict[str, list[str]] = {}
        for geometry in self.geometries:
            for warning in geometry.audit.warnings:
                geometries_of.setdefault(warning, []).append(geometry.name)
        total = len(self.geometries)
        return tuple(
            warning
            if len(names) == total
            else f"{'; '.join(names) if len(names) < 3 else f'{len(names)} of {total} geometries'}: {warning}"
            for warning, names in geometries_of.items()
        )

    def of_trial(self, trial_id: str) -> GeometryAudit | None:
        """The geometry that a trial trains."""
        return next((each for each in self.geometries if trial_id in each.trial_ids), None)


@dataclass(frozen=True, kw_only=True)
class _Variant:
    """A configuration of the sweep with its point and trials."""

    point: Point
    config: RunConfig
    trial_ids: tuple[str, ...] = ()


def audit_sweep(config: RunConfig, plan: SweepPlan) -> SweepAudit:
    """Audit every distinct geometry of a sweep, and look at its axes."""
    everything, costs = _variants(config, plan), ModelCosts()
    variants = [variant for variant in everything if reads_masks(variant.config)]
    groups: dict[Hashable, list[_Variant]] = {}
    for variant in variants:
        groups.setdefault(_audit_key(variant.config), []).append(variant)
    geometries = [_audited(config, group, costs) for group in list(groups.values())[:MAX_GEOMETRIES]]
    flops = {
        trial_id: geometry.flops.total for geometry in geometries for trial_id in geometry.trial_ids
    } or {geometry.name: geometry.flops.total for geometry in geometries}
    for number, variant in enumerate(everything):
        if not reads_masks(variant.config):
            names = variant.trial_ids or (str(number),)
            flops |= dict.fromkeys(names, costs.of_method(variant.config))
    notes = [
        *_method_notes(config, everything),
        *_axis_notes(config, variants),
        *_fixed_notes(geometries),
        *_coupling_notes(config, geometries),
    ]
    if len(groups) > MAX_GEOMETRIES:
        notes.append(f"{len(groups):,} geometries, the first {MAX_GEOMETRIES} are audited")
    return SweepAudit(
        geometries=tuple(geometries),
        notes=tuple(notes),
        is_sampled=not plan.trials,
        flops_per_image=flops,
    )


def device_batch_size(config: RunConfig) -> int:
    """Images that one worker draws masks for at once; under `reference` it is part of the geometry."""
    return config.train.batch_size // config.train.num_workers


def _variants(config: RunConfig, plan: SweepPlan) -> list[_Variant]:
    """The trials' configurations; for a search that proposes its own points, points spread over its space."""
    if plan.trials:
        return [
            _Variant(point=trial.point, config=trial.config, trial_ids=(trial.trial_id,))
            for trial in plan.trials
        ]
    generator = np.random.default_rng(config.sweep.search_seed)
    variants = []
    for fractions in generator.random((_SAMPLED_POINTS, len(dimensions(config.sweep.space)))).tolist():
        point = point_of_fractions(config, fractions)
        try:
            variants.append(_Variant(point=point, config=config_at(config, point)))
        except ConfigError:  # a combination that the search would report as failed
            continue
    return variants


def _audit_key(config: RunConfig) -> Hashable:
    batch_size = device_batch_size(config) if config.masks.sampler == "reference" else None
    return (
        geometry_key(config.masks, config.encoder.grid),
        batch_size,
        config.encoder,
        config.predictor,
        config.objective,
    )


def _audited(sweep: RunConfig, group: Sequence[_Variant], costs: ModelCosts) -> GeometryAudit:
    config, point = group[0].config, group[0].point
    is_reference = config.masks.sampler == "reference"
    batch_size = min(device_batch_size(config), _MAX_BATCH) if is_reference else _BATCH
    audit = audit_geometry(config.masks, config.encoder.grid, batch_size=batch_size)
    trial_ids = tuple(trial_id for variant in group for trial_id in variant.trial_ids)
    return GeometryAudit(
        name=point_name(sweep, point),
        point=point,
        config=config,
        trial_ids=trial_ids,
        audit=audit,
        flops=costs.of_masks(config, audit),
    )


def _method_notes(config: RunConfig, variants: Sequence[_Variant]) -> list[str]:
    """Methods that do not read the masks, and axes of the mask that are therefore idle."""
    names = dict.fromkeys(each.config.objective.name for each in variants if not reads_masks(each.config))
    if not names:
        return []
    notes = [
        f"{', '.join(names)}: draws what its own settings say; masks.* plays no part, and is not audited"
    ]
    if not any(reads_masks(each.config) for each in variants):
        idle = [key for key in searched_keys(config.sweep) if key.startswith("masks.")]
        notes += [f"axis {key} does nothing: no method of the sweep reads it" for key in idle]
    return notes


def _axis_notes(config: RunConfig, variants: Sequence[_Variant]) -> list[str]:
    """Axes of the mask that change nothing, and values of one that come to the same blocks."""
    notes = []
    for key, axis in config.sweep.space.items():
        section, _, field = key.partition(".")
        if section != "masks" or not variants:
            continue
        levels = [axis_value(axis, at) for at in _LEVELS] if not isinstance(axis, Choice) else axis.choices
        values = list(dict.fromkeys(levels))  # a short range of whole numbers has the same at several levels
        having = [variant for variant in variants if key in variant.point]
        if not having:
            notes.append(f"axis {key} exists at no point of the plan")
            continue
        bases = [variant.config for variant in having[:: max(1, len(having) // _BASES)]]
        settings = [(base.masks, base.encoder.grid) for base in bases]
        grids = ", ".join(dict.fromkeys(str(grid) for _, grid in settings))
        listed = _texts(values)
        if all(is_inert(masks, grid, field, values) for masks, grid in settings):
            why = (
                f"the sampler {settings[0][0].sampler!r} does not read it"
                if all(field in unused_fields(masks) for masks, _ in settings)
                else f"{', '.join(listed)} come to the same blocks on a {grids} grid"
            )
            notes.append(f"axis {key} does nothing: {why}")
            continue
        for group in equal_values(*settings[0], field, values):
            if len(group) > 1:
                same = ", ".join(listed[place] for place in group)
                notes.append(f"axis {key}: {same} come to the same blocks on a {settings[0][1]} grid")
    return notes


def _fixed_notes(geometries: Sequence[GeometryAudit]) -> list[str]:
    """Ranges of scale that always come to one block shape."""
    notes: dict[str, None] = {}
    for geometry in geometries:
        settings, grid = geometry.audit.settings, geometry.audit.grid
        for name, shapes in (
            ("target_scale", geometry.audit.target_shapes),
            ("context_scale", geometry.audit.context_shapes),
        ):
            low, high = getattr(settings, name)
            if low < high and len(shapes) == 1 and name not in unused_fields(settings):
                shape = f"{shapes[0].height}x{shapes[0].width}"
                notes[
                    f"masks.{name} [{low:g}, {high:g}] always makes blocks of {shape} patches on a {grid} grid "
                    f"under the sampler {settings.sampler!r}: the range does nothing"
                ] = None
    return list(notes)


def _coupling_notes(config: RunConfig, geometries: Sequence[GeometryAudit]) -> list[str]:
    """Axes that cannot be told apart, and realised figures that follow an axis meant for something else."""
    if len(geometries) < _MIN_FOR_COUPLING:
        return []
    axes = _axis_figures(config, geometries)
    realised = {
        "kept context": [each.audit.context_fraction.mean for each in geometries],
        "target block": [each.audit.target_fraction.mean for each in geometries],
        "all targets": [each.audit.target_union_fraction.mean for each in geometries],
        "FLOPs per image": [each.flops.total for each in geometries],
    }
    realised = {name: values for name, values in realised.items() if _varies(values)}
    notes = []
    for first, second, value in coupled_figures({**axes, **realised}, threshold=_COUPLED):
        if first in axes and second in axes:
            notes.append(
                f"axes {first} and {second} move together (correlation {value:+.2f}): no effect of one "
                "can be told from the other's"
            )
        elif first in axes and second not in _OWN_FIGURES.get(first, frozenset()):
            notes.append(f"{second} follows {first} (correlation {value:+.2f}): its effect is that of both")
    return notes


def _varies(values: Sequence[float]) -> bool:
    """Whether a realised figure differs by more than the sampling of it may come to."""
    return max(values) - min(values) > _SAMPLING_SHARE * max(values)


def _axis_figures(config: RunConfig, geometries: Sequence[GeometryAudit]) -> dict[str, list[float]]:
    """The axes whose values are numbers or pairs of numbers, one number a geometry: the pair's middle."""
    figures = {}
    driven = driven_keys(config.sweep)
    for key in searched_keys(config.sweep):
        if key in driven:
            continue  # follows its axis by design
        values = [value for each in geometries if (value := each.point.middle(key)) is not None]
        if len(values) == len(geometries):
            figures[key] = values
    return figures


def _texts(values: Sequence[object]) -> list[str]:
    return [
        f"[{', '.join(f'{item:g}' for item in value)}]" if isinstance(value, (list, tuple)) else str(value)
        for value in values
    ]
