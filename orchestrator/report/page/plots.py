"""Figures of a sweep with matplotlib: accuracy over the geometry, over images seen, and over its cost.

A figure is drawn without a window and without matplotlib's global state, and leaves twice: as a PNG on white for files,
and as an inline SVG in the page's own ink, with a tool tip and a link to its MLflow run on every mark.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.protocol.point import Point, Value, middle_of, value_words
from orchestrator.report.page.listed_plots import annotate, colour_of, draw_named, draw_progress, is_listed
from orchestrator.report.page.surface_plots import draw_importance, draw_map
from orchestrator.report.page.svg import INK, Tips, inline
from orchestrator.report.statistics import TrialSummary
from orchestrator.report.words import GeometryResult, Summary
from orchestrator.tracking import Links

_INK = INK
_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "orchestrator",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}
_PREFERRED_AXES = ("masks.target_aspect_ratio", "masks.target_scale")
_MAX_CELLS = 8
_COLOURS = colormaps["viridis"]
_HIGHEST, _TIED, _OTHER = "#e8590c", "#1596b0", "#7d8fa3"  # readable on white and on near-black
_LEGEND = "orange: highest; blue: tied with it; grey: the others"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure: a PNG on white for a file, and an inline SVG for the page."""

    png: bytes
    svg: str


_SIZES = {"map": (8.6, 4.9), "importance": (7.2, 2.4)}
_LABELS = {
    "map": "Response surface of accuracy over the realised mask geometry",
    "importance": "What each axis makes of a difference",
    "surface": "Accuracy of every geometry that was swept",
    "progress": "Accuracy over device hours at every probe, with intervals",
    "cost": "Accuracy over cost, with the Pareto front",
    "curves": "Learning curves over images seen",
    "hours": "Learning curves over device hours",
}


def figures(summary: Summary, links: Links | None = None) -> dict[str, Drawing]:
    """Every figure that the sweep has data for, by name, in the order of the page."""
    drawn: dict[str, Drawing] = {}
    with rc_context(dict(_STYLE)):
        for name, draw in _FIGURES.items():
            figure, tips = Figure(figsize=_SIZES.get(name, (7.2, 4.4)), layout="constrained"), Tips()
            if draw(summary, figure, _Linked(tips, links)):
                svg = inline(figure, name, tips, label=_LABELS[name])
                drawn[name] = Drawing(png=_png(figure), svg=svg)
    return drawn


class _Linked(Tips):
    """Tips whose keys are trials: a mark leads to its MLflow run."""

    def __init__(self, tips: Tips, links: Links | None) -> None:
        self.texts, self.links = tips.texts, links

    def tag(self, artist: Any, text: str, *, key: str = "", url: str = "") -> None:
        """Add the link of a trial's run."""
        found = self.links.run_url(key) if self.links is not None and key else ""
        super().tag(artist, text, key=key, url=url or found)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _draw_surface(summary: Summary, figure: Figure, tips: Tips) -> bool:
    """Accuracy over the two swept axes: cells for a grid, points otherwise; over one axis with intervals."""
    if is_listed(summary):
        return draw_named(summary, figure, tips)
    keys = _plotted_axes(summary)
    if not summary.verdict.ranking or not keys:
        return False
    axes = figure.add_subplot()
    if len(keys) == 1:
        _draw_line(summary, axes, keys[0])
        return True
    values = [_values(summary.trials, key) for key in keys]
    if max(len(each) for each in values) <= _MAX_CELLS:
        _draw_cells(summary, axes, keys, values)
    else:
        _draw_points(summary, axes, keys)
    return True


def _plotted_axes(summary: Summary) -> list[str]:
    """Two axes with more than one value, which every trial has, target scale and aspect ratio first."""
    varied = [
        key
        for key in summary.axes()
        if len(_values(summary.trials, key)) > 1
        and key not in summary.driven_axes
        and all(key in trial.point for trial in summary.trials)
    ]
    preferred = [key for key in _PREFERRED_AXES if key in varied]
    return [*preferred, *(key for key in varied if key not in preferred)][:2]


def _values(trials: Sequence[TrialSummary], key: str) -> list[Any]:
    """The values of one axis in ascending order."""
    unique = {value_words(trial.point[key]): trial.point[key] for trial in trials if key in trial.point}
    return sorted(unique.values(), key=lambda value: (_place(key, value), str(value)))


def _place(key: str, value: Value) -> float:
    """A value's place on an axis: a pair's middle, infinity for words."""
    middle = middle_of(key, value)
    if middle is None:
        return float(value) if isinstance(value, bool) else math.inf
    return middle


def _draw_cells(summary: Summary, axes: Axes, keys: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
    columns, rows = ([value_words(value) for value in each] for each in values)
    grid = np.full((len(rows), len(columns)), np.nan)
    cells: dict[tuple[int, int], GeometryResult] = {}
    for result in reversed(summary.verdict.ranking):  # the best of a cell, should a third axis vary too
        place = _cell(result.point, keys, rows, columns)
        grid[place] = result.mean
        cells[place] = result
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    image = axes.imshow(np.ma.masked_invalid(grid), cmap=_COLOURS, origin="lower", aspect="auto")
    for (row, column), result in cells.items():
        colour = "black" if result.mean - low > 0.6 * (high - low) else "white"
        text = f"{result.mean:.1f}\n{result.interval.bounds()}" + (
            "\ntied" if result.tied and result.rank > 1 else ""
        )
        text += "\nhighest" if result.rank == 1 else ""
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8.5)
    for stopped in summary.trials:
        place = _cell(stopped.point, keys, rows, columns)
        if not stopped.comparable and place not in cells:
            axes.text(
                place[1],
                place[0],
                f"{stopped.state}\nat {stopped.images:,}",
                ha="center",
                va="center",
                fontsize=8,
            )
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel(keys[0])
    axes.set_ylabel(keys[1])
    _colour_bar(axes, image, summary.metric)


def _cell(point: Point, keys: Sequence[str], rows: list[str], columns: list[str]) -> tuple[int, int]:
    return rows.index(value_words(point[keys[1]])), columns.index(value_words(point[keys[0]]))


def _draw_points(summary: Summary, axes: Axes, keys: Sequence[str]) -> None:
    ranking = summary.verdict.ranking
    horizontal, vertical = ([_place(key, each.point[key]) for each in ranking] for key in keys)
    edges = ["red" if result.tied else "none" for result in ranking]
    means = [result.mean for result in ranking]
    points = axes.scatter(
        horizontal, vertical, c=means, s=70, cmap=_COLOURS, edgecolors=edges, linewidths=1.4
    )
    unfinished = [trial for trial in summary.trials if not trial.comparable]
    horizontal, vertical = ([_place(key, each.point[key]) for each in unfinished] for key in keys)
    axes.scatter(
        horizontal,
        vertical,
        marker="x",
        s=25,
        color=_INK,
        label="did not finish",
    )
    axes.set_xlabel(f"{keys[0]} (middle)")
    axes.set_ylabel(f"{keys[1]} (middle)")
    axes.set_title("ringed red: tied with the highest", fontsize=8.5)
    if unfinished:
        axes.legend(frameon=False, fontsize=8)
    _colour_bar(axes, points, summary.metric)


def _colour_bar(axes: Axes, mappable: Any, label: str) -> None:
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(mappable, ax=axes, label=f"{label} [%]").outline.set_visible(False)


def _draw_line(summary: Summary, axes: Axes, key: str) -> None:
    texts = [value_words(value) for value in _values(summary.trials, key)]
    for result in summary.verdict.ranking:
        place = texts.index(value_words(result.point[key]))
        colour = _colour(result)
        error = [[result.mean - result.interval.low], [result.interval.high - result.mean]]
        axes.errorbar(place, result.mean, yerr=error, fmt="o", color=colour, capsize=3)
    axes.set_xticks(range(len(texts)), texts)
    axes.set_xlabel(key)
    axes.set_ylabel(f"{summary.metric} [%]")
    _draw_untrained(summary, axes)


def _colour(result: GeometryResult | None) -> str:
    if result is None or not result.tied:
        return _OTHER
    return _HIGHEST if result.rank == 1 else _TIED


def _draw_curves(summary: Summary, figure: Figure, tips: Tips) -> bool:
    """The ranking metric over images seen; a cross ends what was stopped or failed."""
    axes = figure.add_subplot()
    axes.set_xlabel("images seen")
    return _draw_learning(summary, axes, tips, {trial.trial_id: None for trial in summary.trials})


def _draw_hours(summary: Summary, figure: Figure, tips: Tips) -> bool:
    """The same over device hours, retries included."""
    axes = figure.add_subplot()
    axes.set_xlabel("GPU hours" if summary.hours.has_gpus else "CPU core hours")
    return _draw_learning(
        summary, axes, tips, {trial.trial_id: trial.share_by_images for trial in summary.trials}
    )


def _draw_learning(
    summary: Summary, axes: Axes, tips: Tips, places: Mapping[str, Mapping[int, float] | None]
) -> bool:
    """Curves over images, or over what `places` holds for each trial and its images."""
    results = {trial_id: result for result in summary.verdict.ranking for trial_id in result.trial_ids}
    curves = [trial for trial in summary.trials if len(trial.curve) > 1]
    for trial in curves:
        result = results.get(trial.trial_id)
        place = places[trial.trial_id]
        spent = {images: float(images) for images in trial.curve} if place is None else place
        points = [(spent[images], value) for images, value in sorted(trial.curve.items()) if images in spent]
        if len(points) < 2:
            continue
        across, values = zip(*points, strict=True)
        tied = result is not None and result.tied
        (line,) = axes.plot(
            across, values, color=_colour(result), linewidth=1.8 if tied else 1, zorder=3 if tied else 2
        )
        text = f"{trial.title}, seed {trial.seed}: {values[-1]:.1f} % ({trial.state})"
        tips.tag(line, text, key=trial.trial_id)
        if result is None:
            axes.plot(across[-1:], values[-1:], "x", color=_OTHER, markersize=6)
    axes.set_ylabel(f"{summary.metric} [%]")
    axes.set_title(f"{_LEGEND}; cross: stopped or failed", fontsize=8.5)
    _draw_untrained(summary, axes)
    return bool(curves)


def _draw_untrained(summary: Summary, axes: Axes) -> None:
    values = [trial.untrained_value for trial in summary.trials if math.isfinite(trial.untrained_value)]
    if values:
        mean = sum(values) / len(values)
        axes.axhline(mean, color=_INK, linestyle="--", linewidth=1)
        axes.annotate(
            "untrained", (0.99, mean), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )


def _draw_cost(summary: Summary, figure: Figure, tips: Tips) -> bool:
    """Accuracy with intervals over a trial's cost; the line joins what nothing beats on both."""
    axes = figure.add_subplot()
    ranking = summary.verdict.ranking
    gpus = any(result.share.has_gpus for result in ranking)
    costs = [result.share.gpu if gpus else result.share.cpu_core for result in ranking]
    named = is_listed(summary)
    for cost, result in zip(costs, ranking, strict=True):
        error = [[result.mean - result.interval.low], [result.interval.high - result.mean]]
        colour = colour_of(summary, result.name) if named else _colour(result)
        drawn = axes.errorbar(cost, result.mean, yerr=error, fmt="o", color=colour, capsize=2, elinewidth=0.8)
        text = f"{result.name}: {result.mean:.1f} % ({result.interval.bounds()}), {cost:.3g} hours"
        tips.tag(drawn.lines[0], text, key=result.trial_ids[0])
    front = summary.front()
    places = [result.share.gpu if gpus else result.share.cpu_core for result in front]
    axes.plot(places, [result.mean for result in front], color=_OTHER, linewidth=1)
    annotate(summary, axes, ranking, costs)
    axes.set_xlabel("GPU hours a trial" if gpus else "CPU core hours a trial")
    axes.set_ylabel(f"{summary.metric} [%]")
    bars = f"bars: {ranking[0].interval.name}s" if ranking else ""
    axes.set_title(bars if named else f"{_LEGEND}; {bars}", fontsize=8.5)
    return len(ranking) > 1


_FIGURES: Mapping[str, Callable[[Summary, Figure, Tips], bool]] = {
    "map": draw_map,
    "importance": draw_importance,
    "progress": draw_progress,
    "cost": _draw_cost,
    "surface": _draw_surface,
    "curves": _draw_curves,
    "hours": _draw_hours,
}
