"""A verdict in plain sentences: which geometry, how sure, at what cost, what next. Pure text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.report.verdict import GeometryResult, StoppedResult, Verdict

_MANY = 3


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict, most important sentence first."""
    best = verdict.best
    if best is None:
        lines = ["No trial finished: there is nothing to judge."]
    else:
        lines = [_headline(verdict, best), *_baselines(best), *_cheapest(verdict), _certainty(verdict)]
        if verdict.unequal_images:
            lines.append(
                "The trials saw different numbers of images: their accuracies are not compute-matched."
            )
    return [*lines, *_unfinished(verdict.stopped)]


def cost_text(gpu_hours: float, cpu_core_hours: float) -> str:
    """Device hours in the unit that fits."""
    hours, unit = (gpu_hours, "GPU") if gpu_hours > 0 else (cpu_core_hours, "CPU core")
    return f"{hours:.2f} {unit} hours" if hours >= 0.1 else f"{60 * hours:.1f} {unit} minutes"


def _headline(verdict: Verdict, best: GeometryResult) -> str:
    figure = f"{best.mean:.1f} % ({verdict.metric}, 95 % interval {best.low:.1f} to {best.high:.1f})"
    name = best.name
    if verdict.outcome == "winner":
        gap = verdict.ranking[1].behind_best
        return f"Winner: {name} with {figure}, {gap:.1f} points above the next and beyond the noise."
    if verdict.outcome == "no_gain":
        return f"No gain: the best geometry, {name} with {figure}, is not better than its untrained encoder."
    if verdict.outcome == "alone":
        return f"Only one geometry finished: {name} with {figure}; there is nothing to compare it with."
    others = [result.name for result in verdict.tied if result is not best]
    shown = "; ".join(others[:_MANY]) + (f"; and {len(others) - _MANY} more" if len(others) > _MANY else "")
    all_of_them = len(verdict.tied) == len(verdict.ranking)
    who = f"all {len(others)} others" if all_of_them and len(others) > 1 else shown
    return f"No winner can be named: {name} is highest with {figure}, but within the noise of {who}."


def _baselines(best: GeometryResult) -> list[str]:
    lines = []
    for kind, against in (("its untrained encoder", "against_untrained"), ("raw pixels", "against_pixels")):
        source = "untrained" if against == "against_untrained" else "pixels"
        parts = [
            f"{name} {label.accuracy:.1f} to {getattr(label, source):.1f}"
            + {"above": " (better)", "below": " (worse)", "level": " (within the noise)"}[
                getattr(label, against)
            ]
            for name, label in best.labels.items()
            if getattr(label, against) != "unknown"
        ]
        if parts:
            lines.append(f"The highest against {kind}, by label: {', '.join(parts)}.")
    return lines


def _cheapest(verdict: Verdict) -> list[str]:
    cheapest, best = verdict.cheapest, verdict.best
    if cheapest is None or best is None or verdict.outcome == "no_gain":
        return []
    cost = cost_text(cheapest.gpu_hours, cheapest.cpu_core_hours)
    if len(verdict.tied) == 1:
        return [f"It cost {cost} a trial."]
    if cheapest is best:
        return [f"The highest is also the cheapest of the {len(verdict.tied)} tied: {cost} a trial."]
    other = cost_text(best.gpu_hours, best.cpu_core_hours)
    return [f"Cheapest of the {len(verdict.tied)} tied: {cheapest.name}, {cost} a trial, not {other}."]


def _certainty(verdict: Verdict) -> str:
    noise = verdict.noise
    assert noise is not None
    if noise.assumed:
        basis = (
            f"Every geometry ran with one seed: a seed noise of {noise.seed_sd:.1f} points is assumed, "
            "not measured."
        )
    else:
        basis = (
            f"Seed noise {noise.seed_sd:.2f} points, measured with {noise.freedom:.0f} degrees of freedom; "
            f"corrected for comparing {len(verdict.ranking)} geometries."
        )
    if verdict.seeds_to_separate is None or verdict.outcome == "no_gain":
        return basis
    if verdict.seeds_to_separate > 50:
        return f"{basis} The best two are too close for seeds to separate (over 50 each)."
    seeds = verdict.seeds_to_separate
    return f"{basis} If the best two are as far apart as they look, {seeds} seeds each would show it."


def _unfinished(results: Sequence[StoppedResult]) -> list[str]:
    lines = []
    for state, what in (("stopped", "stopped early"), ("failed", "failed")):
        group = [result for result in results if result.state == state]
        if group:
            shown = "; ".join(stopped_text(result) for result in group[:_MANY])
            rest = f"; and {len(group) - _MANY} more" if len(group) > _MANY else ""
            lines.append(f"{len(group)} {what} and not ranked: {shown}{rest}.")
    waiting = sum(result.state in ("pending", "running") for result in results)
    return [*lines, f"{waiting} not ended."] if waiting else lines


def stopped_text(result: StoppedResult) -> str:
    """One trial that did not finish."""
    text = f"{result.name} at {result.images:,} images"
    if math.isfinite(result.value):
        text += f" with {result.value:.1f}"
    if math.isfinite(result.rivals_low):
        text += f" (the finished stood at {result.rivals_low:.1f} to {result.rivals_high:.1f})"
    return text
