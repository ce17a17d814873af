"""What a trial's masks came to, as the coordinates of the response surface.

A nominal setting is not what the model sees, so the surface lies over realised figures: the area of a target block,
its aspect ratio, the context that reaches the encoder, and the number of target blocks. Fractions are those measured
in training where a trial has them, and those of the audit otherwise. Anything else that a sweep varied is a coordinate
of its own: a number as it is, a word as a 0-or-1 coordinate for each of its values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jepa_core.masks import MaskSettings, PatchGrid, audit_geometry
from orchestrator.config.models import RunConfig
from orchestrator.protocol.metrics import CONTEXT_FRACTION, TARGET_FRACTION
from orchestrator.protocol.point import Point, value_words
from orchestrator.report.statistics.trials import Geometry
from orchestrator.sweep.space import config_at

Array = NDArray[np.float64]

TARGET, ASPECT = "target fraction", "target aspect ratio"
CONTEXT, TARGETS = "context fraction", "number of targets"
REALISED = (TARGET, ASPECT, CONTEXT, TARGETS)
_REALISED_BY = frozenset(
    {
        "target_scale",
        "target_aspect_ratio",
        "num_target_blocks",
        "context_scale",
        "context_keep",
        "min_target_patches",
        "min_context_patches",
    }
)
_AUDIT_SAMPLES = 256
_SAME_CORRELATION = 0.98


@dataclass(frozen=True, kw_only=True)
class SurfaceAxis:
    """One coordinate of the surface; `logarithmic` axes are ratios, of which 1/2 and 2 are equally far from 1."""

    name: str
    logarithmic: bool = False
    is_flag: bool = False
    """Whether it is 0 or 1, for a word."""

    def coordinate(self, figure: float) -> float:
        """A figure as the surface takes it."""
        return math.log(figure) if self.logarithmic else figure

    def of(self, figures: Mapping[str, float]) -> float:
        """The coordinate of one geometry; a word that it does not have is 0."""
        return self.coordinate(figures.get(self.name, 1.0 if self.logarithmic else 0.0))

    def figure(self, coordinate: float) -> float:
        """The way back."""
        return math.exp(coordinate) if self.logarithmic else coordinate


@dataclass(frozen=True, kw_only=True)
class AxisChoice:
    """The axes that a sweep's geometries spread over, and why others were left out."""

    axes: tuple[SurfaceAxis, ...]
    notes: tuple[str, ...] = ()

    def coordinates(self, figures: Mapping[str, float]) -> list[float]:
        """One geometry's place on the surface."""
        return [axis.of(figures) for axis in self.axes]


def realised_figures(config: RunConfig, point: Point) -> dict[str, float]:
    """The figures of one point, predicted by sampling its masks.

    Raises:
        ConfigError, ValueError: The point breaks a rule, or its geometry cannot be sampled.
    """
    run = config_at(config, point)
    batch = max(1, run.train.batch_size // run.train.num_workers)
    figures = mask_figures(run.masks, run.encoder.grid, batch_size=batch)
    return figures | _other_figures(point)


def mask_figures(settings: MaskSettings, grid: PatchGrid, *, batch_size: int) -> dict[str, float]:
    """The four realised figures of a mask setting; the aspect ratio is 1 for blocks without a shape."""
    audit = audit_geometry(settings, grid, num_samples=_AUDIT_SAMPLES, batch_size=min(batch_size, 128))
    log_aspect = sum(shape.share * math.log(shape.height / shape.width) for shape in audit.target_shapes)
    return {
        TARGET: audit.target_fraction.mean,
        ASPECT: math.exp(log_aspect),
        CONTEXT: audit.context_fraction.mean,
        TARGETS: float(settings.num_target_blocks),
    }


def geometry_figures(config: RunConfig, geometry: Geometry) -> dict[str, float]:
    """The figures of a geometry that ran: measured fractions where its trials have them."""
    figures = realised_figures(config, geometry.point)
    for name, metric in ((TARGET, TARGET_FRACTION), (CONTEXT, CONTEXT_FRACTION)):
        measured = [trial.metrics[metric] for trial in geometry.trials if metric in trial.metrics]
        if measured:
            figures[name] = sum(measured) / len(measured)
    return figures


def choose_axes(figures: Sequence[Mapping[str, float]]) -> AxisChoice:
    """The axes along which these geometries differ, the realised ones first.

    An axis that moves with an earlier one is left out and named: their effects cannot be told apart.
    """
    names = list(dict.fromkeys([*REALISED, *(name for each in figures for name in each)]))
    axes: list[SurfaceAxis] = []
    columns: list[Array] = []
    notes: list[str] = []
    for name in names:
        axis = SurfaceAxis(name=name, logarithmic=name == ASPECT, is_flag="=" in name)
        column = np.array([axis.of(each) for each in figures])
        if np.ptp(column) <= _least_range(axis, column):
            continue
        twin = next((a for a, c in zip(axes, columns, strict=True) if _moves_with(c, column)), None)
        if twin is not None:
            if axis.is_flag and twin.is_flag:
                continue  # the last value of a word is what is left
            notes.append(
                f"{name} moved with {twin.name} in this sweep: their effects cannot be told apart, and the "
                f"surface shows {twin.name}."
            )
            continue
        axes.append(axis)
        columns.append(column)
    return AxisChoice(axes=tuple(axes), notes=tuple(notes))


def _least_range(axis: SurfaceAxis, column: Array) -> float:
    """Below this spread an axis did not move: sampling noise of the audit, or rounding to whole patches."""
    if axis.logarithmic:
        return 0.05
    return 0.01 if axis.name in (TARGET, CONTEXT) else 1e-9 * float(np.abs(column).max())


def _moves_with(first: Array, second: Array) -> bool:
    return abs(float(np.corrcoef(first, second)[0, 1])) > _SAME_CORRELATION


def _other_figures(point: Point) -> dict[str, float]:
    """What a point holds beyond the four realised figures."""
    figures: dict[str, float] = {}
    for key, value in point.items():
        section, _, name = key.partition(".")
        if section == "masks" and name in _REALISED_BY:
            continue
        middle = point.middle(key)
        if middle is None:
            figures[f"{key}={value_words(value)}"] = 1.0
        else:
            figures[key] = middle
    return figures
