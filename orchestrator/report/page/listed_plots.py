"""Figures of a sweep whose points were listed by name, such as methods: no axis lies between its points.

Each point keeps its colour in every figure. `plots` decides when these are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.report.page.svg import INK, Tips
from orchestrator.report.statistics import (
    Geometry,
    accuracy_around,
    estimate_noise,
    group_geometries,
    interval_factor,
    mean_error,
    pool_noise,
)
from orchestrator.report.words import GeometryResult, Summary

MOST_NAMED = 10
_COLOURS = ("#e8590c", "#1596b0", "#2f9e44", "#ae3ec9", "#b08900", "#4c6ef5", "#d6336c", "#0ca678", "#a0522d")
_OTHER = "#7d8fa3"


def is_listed(summary: Summary) -> bool:
    """Whether the finished points carry names of their own."""
    return any(trial.label for trial in summary.trials)


def colour_of(summary: Summary, name: str) -> str:
    """A point's colour, by its place in the list."""
    names = list(dict.fromkeys(trial.title for trial in summary.trials))
    place = names.index(name)
    return _COLOURS[place] if place < len(_COLOURS) else _OTHER


def draw_named(summary: Summary, figure: Figure, tips: Tips) -> bool:
    """Mean and interval of every point in a row of its own, the highest above; published values as crosses."""
    ranking = summary.verdict.ranking
    if not ranking:
        return False
    axes = figure.add_subplot()
    published = {trial.title: trial.published for trial in summary.trials}
    for place, result in enumerate(reversed(ranking)):
        colour = colour_of(summary, result.name)
        axes.plot(
            [result.interval.low, result.interval.high],
            [place, place],
            color=colour,
            linewidth=2.5,
            alpha=0.6,
        )
        (dot,) = axes.plot(result.mean, place, "o", color=colour, markersize=7)
        tips.tag(dot, _text(result), key=result.trial_ids[0])
        axes.plot(published[result.name], place, "x", color=INK, markersize=6)
    axes.set_yticks(range(len(ranking)), [result.name for result in reversed(ranking)])
    axes.set_xlabel(f"{summary.metric} [%]")
    axes.set_ylim(-0.6, len(ranking) - 0.4)
    axes.grid(visible=False, axis="y")
    return True


def draw_progress(summary: Summary, figure: Figure, tips: Tips) -> bool:
    """Accuracy over device hours at every probe: means over the seeds, with their intervals."""
    geometries = group_geometries(summary.trials)
    if not is_listed(summary) or not geometries:
        return False
    axes = figure.add_subplot()
    drawn = [_draw_one(summary, axes, geometry, geometries, tips) for geometry in geometries[:MOST_NAMED]]
    axes.set_xlabel("GPU hours of a trial" if summary.hours.has_gpus else "CPU core hours of a trial")
    axes.set_ylabel(f"{summary.metric} [%]")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return any(drawn)


def annotate(summary: Summary, axes: Axes, results: Sequence[GeometryResult], costs: Sequence[float]) -> None:
    """Write the names beside the marks of a figure of accuracy over cost, where they are few."""
    if not is_listed(summary) or len(results) > MOST_NAMED:
        return
    for result, cost in zip(results, costs, strict=True):
        place = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 8}
        axes.annotate(result.name, (cost, result.mean), color=INK, **place)  # type: ignore[arg-type]


def _draw_one(
    summary: Summary, axes: Axes, geometry: Geometry, geometries: Sequence[Geometry], tips: Tips
) -> bool:
    """One point's curve over the probes that all of its seeds have."""
    shared = [set(trial.curve) & set(trial.share_by_images) for trial in geometry.trials]
    stops = sorted(set.intersection(*shared))
    if len(stops) < 2:
        return False
    hours = [_mean([trial.share_by_images[images] for trial in geometry.trials]) for images in stops]
    means = [_mean([trial.curve[images] for trial in geometry.trials]) for images in stops]
    intervals = [
        accuracy_around(mean, _half_width(summary, geometry, geometries, images))
        for mean, images in zip(means, stops, strict=True)
    ]
    colour = colour_of(summary, geometry.name)
    drawn = axes.errorbar(
        hours,
        means,
        yerr=[
            [mean - each.low for mean, each in zip(means, intervals, strict=True)],
            [each.high - mean for mean, each in zip(means, intervals, strict=True)],
        ],
        color=colour,
        marker="o",
        markersize=4,
        linewidth=1.6,
        elinewidth=0.8,
        capsize=2,
        label=geometry.name,
    )
    text = f"{geometry.name}: {means[-1]:.1f} % ({intervals[-1].bounds()}) after {hours[-1]:.3g} hours"
    tips.tag(drawn.lines[0], text, key=geometry.trials[0].trial_id)
    return True


def _half_width(summary: Summary, geometry: Geometry, geometries: Sequence[Geometry], images: int) -> float:
    """Half of the interval of a mean after so many images, the spread pooled over the points at that probe."""
    groups = [[trial.curve[images] for trial in each.trials if images in trial.curve] for each in geometries]
    noise = pool_noise([group for group in groups if group]) if images else estimate_noise(geometries)
    return interval_factor(noise.freedom) * mean_error(geometry, noise, summary.metric)


def _text(result: GeometryResult) -> str:
    return f"{result.name}: {result.mean:.1f} % ({result.interval.bounds()})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
