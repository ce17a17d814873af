"""Figures of a response surface: the surface with iso-cost lines, how sure it is, and what each axis does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from orchestrator.protocol.intervals import percent
from orchestrator.report.page.svg import INK, Tips
from orchestrator.report.statistics import (
    CONTEXT,
    LEVEL,
    Array,
    Findings,
    SurfaceAxis,
    accuracy_interval,
    accuracy_mean,
)
from orchestrator.report.words import Summary, figure_text

_CELLS = 48
_MAP, _SPREAD = colormaps["viridis"], colormaps["cividis"]
_MARK, _NEXT = "#e8590c", "#d6336c"


def draw_map(summary: Summary, figure: Figure, tips: Tips) -> bool:
    """The surface over the two axes that matter most, and its uncertainty; a band over one axis."""
    findings = summary.findings
    if findings is None:
        return False
    shown = shown_axes(findings)
    if len(shown) == 1:
        _draw_band(summary, findings, figure.add_subplot(), shown[0], tips)
        return True
    left, right = figure.subplots(1, 2, sharey=True)
    proposes = summary.verdict.outcome != "no_gain"
    grid, levels = _grid(findings, shown, with_next=proposes)
    mean = accuracy_mean(findings.surface, grid)
    low, high = accuracy_interval(findings.surface, grid)
    shape = (len(levels[1]), len(levels[0]))
    for axes, values, colours, title in (
        (left, mean, _MAP, f"{summary.metric} [%]"),
        (right, (high - low) / 2, _SPREAD, f"half of the {percent(LEVEL)} interval [points]"),
    ):
        image = axes.pcolormesh(levels[0], levels[1], values.reshape(shape), cmap=colours, shading="nearest")
        image.set_rasterized(True)
        figure.colorbar(image, ax=axes, orientation="horizontal", label=title, aspect=30).outline.set_visible(
            False
        )
        axes.grid(visible=False)
        _label(axes, findings, shown)
        axes.set(xlim=(levels[0][0], levels[0][-1]), ylim=(levels[1][0], levels[1][-1]))  # ticks widen them
    right.set_ylabel("")
    _draw_costs(summary, findings, left, grid, levels)
    _draw_points(summary, findings, left, shown, tips)
    return True


def shown_axes(findings: Findings) -> list[int]:
    """The two axes with the largest effects that are more than noise; else scale and aspect ratio come first."""
    effects = {axis.name: axis.effect if axis.matters else 0.0 for axis in findings.importance}
    axes = findings.choice.axes
    ordered = sorted(range(len(axes)), key=lambda index: (-effects.get(axes[index].name, 0.0), index))
    return sorted(ordered[:2])


def fixed_text(findings: Findings) -> str:
    """Where the axes that a map does not show are held."""
    shown = {findings.choice.axes[index].name for index in shown_axes(findings)}
    held = [
        f"{axis.name} {figure_text(findings.best_figures.get(axis.name, 0.0))}"
        for axis in findings.choice.axes
        if axis.name not in shown and axis.name != CONTEXT
    ]
    return ", ".join(held)


def draw_importance(summary: Summary, figure: Figure, tips: Tips) -> bool:
    """What going along each axis makes, with intervals."""
    findings = summary.findings
    if findings is None:
        return False
    axes = figure.add_subplot()
    ordered = list(reversed(findings.importance))
    for place, axis in enumerate(ordered):
        colour = _MARK if axis.matters else "#7d8fa3"
        axes.plot(
            [axis.interval.low, axis.interval.high], [place, place], color=colour, linewidth=2.5, alpha=0.6
        )
        (dot,) = axes.plot(axis.effect, place, "o", color=colour, markersize=8)
        tips.tag(dot, f"{axis.name}: {axis.effect:.1f} points ({axis.interval.bounds()})")
        axes.annotate(
            f"best at {figure_text(axis.better_at)}, worst at {figure_text(axis.worse_at)}",
            (axis.effect, place),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(ordered)), [axis.name for axis in ordered])
    axes.set_ylim(-0.6, len(ordered) - 0.3)
    axes.set_xlabel(
        f"points of {summary.metric} from the worst to the best level ({percent(LEVEL)} interval)"
    )
    axes.grid(visible=False, axis="y")
    return True


def _draw_band(summary: Summary, findings: Findings, axes: Axes, index: int, tips: Tips) -> None:
    axis, places = findings.choice.axes[index], findings.places_GD[:, index]
    levels = np.linspace(places.min(), places.max(), 100)
    queries = np.tile(_held(findings), (len(levels), 1))
    queries[:, index] = levels
    mean = accuracy_mean(findings.surface, queries)
    low, high = accuracy_interval(findings.surface, queries)
    axes.fill_between(levels, low, high, color=_MARK, alpha=0.18, linewidth=0)
    axes.plot(levels, mean, color=_MARK, linewidth=1.8)
    for name, place, value in zip(findings.names, places, findings.means_G, strict=True):
        (dot,) = axes.plot(place, value, "o", color="#1596b0", markersize=5)
        tips.tag(dot, f"{name}: {value:.1f} %")
    _ticks(axes.xaxis, axis)
    margin = 0.03 * float(np.ptp(levels))
    axes.set_xlim(levels[0] - margin, levels[-1] + margin)
    axes.set_xlabel(f"realised {axis.name}")
    axes.set_ylabel(f"{summary.metric} [%]")


def _grid(findings: Findings, shown: list[int], *, with_next: bool) -> tuple[Array, list[Array]]:
    """Queries over two axes, the others held at the best geometry; rows go along the second axis.

    `with_next` widens them to the points to try next.

    The context fraction is not held but follows the map: larger targets leave less context, and a place with one
    and not the other does not exist.
    """
    levels = []
    ahead = [findings.choice.coordinates(each.figures) for each in findings.suggestions if with_next]
    for index in shown:
        places = np.append(findings.places_GD[:, index], [place[index] for place in ahead])
        margin = 0.06 * float(np.ptp(places))
        levels.append(np.linspace(places.min() - margin, places.max() + margin, _CELLS))
    first, second = np.meshgrid(*levels)
    queries = np.tile(_held(findings), (first.size, 1))
    queries[:, shown[0]], queries[:, shown[1]] = first.ravel(), second.ravel()
    for index, axis in enumerate(findings.choice.axes):
        if axis.name == CONTEXT and index not in shown:
            queries[:, index] = _nearby(findings.places_GD, queries, shown, index)
    return queries, levels


def _nearby(places_GD: Array, queries_QD: Array, shown: list[int], index: int) -> Array:
    """What the geometries around each query had on another axis, nearer ones counting more."""
    span_D = np.ptp(places_GD[:, shown], axis=0)
    apart_QGD = (queries_QD[:, None, shown] - places_GD[None][:, :, shown]) / span_D
    weights_QG = 1 / ((apart_QGD**2).sum(axis=-1) + 0.01)
    average: Array = weights_QG @ places_GD[:, index] / weights_QG.sum(axis=1)
    return average


def _held(findings: Findings) -> Array:
    return np.array([findings.choice.coordinates(findings.best_figures)])


def _draw_costs(summary: Summary, findings: Findings, axes: Axes, grid: Array, levels: list[Array]) -> None:
    """Lines of equal cost: every geometry on one needs the same device hours."""
    if findings.cost is None:
        return
    hours = np.exp(findings.cost.mean_and_sd(grid)[0]).reshape(len(levels[1]), len(levels[0]))
    if hours.max() / hours.min() < 1.02:
        axes.set_title("every geometry costs the same", fontsize=8)
        return
    lines = axes.contour(
        levels[0], levels[1], hours, levels=5, colors="white", linewidths=0.9, linestyles="dashed"
    )
    unit = "GPU h" if summary.hours.has_gpus else "core h"
    axes.clabel(lines, fontsize=7, fmt=lambda value: f"{value:.3g} {unit}")
    crosses = "; crosses: try next" if summary.verdict.outcome != "no_gain" else ""
    axes.set_title(f"dashed: equal {unit} a trial; dots: trials ran{crosses}", fontsize=8)


def _draw_points(summary: Summary, findings: Findings, axes: Axes, shown: list[int], tips: Tips) -> None:
    tied = {result.name: result for result in summary.verdict.ranking}
    for name, place, value in zip(findings.names, findings.places_GD, findings.means_G, strict=True):
        result = tied.get(name)
        edge = _MARK if result is not None and result.tied else "white"
        (dot,) = axes.plot(
            place[shown[0]],
            place[shown[1]],
            "o",
            color="black",
            markeredgecolor=edge,
            markersize=5,
            markeredgewidth=1.2,
        )
        key = "" if result is None else result.trial_ids[0]
        tips.tag(dot, f"{name}: {value:.1f} %" + (", tied with the best" if edge == _MARK else ""), key=key)
    for suggestion in findings.suggestions if summary.verdict.outcome != "no_gain" else ():
        place = np.array(findings.choice.coordinates(suggestion.figures))
        (cross,) = axes.plot(
            place[shown[0]], place[shown[1]], "x", color=_NEXT, markersize=7, markeredgewidth=2
        )
        tips.tag(cross, f"try next: {suggestion.name}, expected {suggestion.mean:.1f} %")


def _label(axes: Axes, findings: Findings, shown: list[int]) -> None:
    horizontal, vertical = (findings.choice.axes[index] for index in shown)
    _ticks(axes.xaxis, horizontal)
    _ticks(axes.yaxis, vertical)
    axes.set_xlabel(f"realised {horizontal.name}")
    axes.set_ylabel(f"realised {vertical.name}")


def _ticks(side: Any, axis: SurfaceAxis) -> None:
    if axis.logarithmic:
        steps = (0.1, 0.2, 0.25, 0.33, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 10.0)
        side.set_ticks([math.log(step) for step in steps])
        side.set_minor_locator(NullLocator())
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{math.exp(value):.3g}"))
