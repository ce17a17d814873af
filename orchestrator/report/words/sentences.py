"""A verdict in plain sentences: which geometry, how sure, at what cost, what next. Pure text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.protocol.hours import DeviceHours
from orchestrator.report.statistics import MANY_SEEDS, REALISED, Findings
from orchestrator.report.words.terms import MASKS, POPULATION, Terms
from orchestrator.report.words.verdict import GeometryResult, StoppedResult, Verdict
from orchestrator.text import counted

_OTHER_DATA = (
    "Rank by a label that an untrained encoder and raw pixels do not solve (probe.labels, sweep.metric), or give other "
    "images (data.source)."
)
SURE, COST, NEXT = "How sure", "At what cost", "What to try next"
_MANY = 3
_NAMED = 2
_NEXT = 2


def verdict_lines(verdict: Verdict, findings: Findings | None = None, *, terms: Terms = MASKS) -> list[str]:
    """The verdict, most important sentence first."""
    lines = [line for group in answers(verdict, findings, terms=terms).values() for line in group]
    return [*lines, *_unfinished(verdict.stopped)]


def answers(
    verdict: Verdict, findings: Findings | None = None, *, terms: Terms = MASKS
) -> dict[str, list[str]]:
    """The verdict by the question it answers: which mask (or method), how sure, at what cost, what to try next."""
    best = verdict.best
    if best is None:
        return {terms.question: ["No trial finished: there is nothing to judge."]}
    sure = [
        *_solved(verdict),
        *_gained(verdict),
        *_untold(verdict),
        _certainty(verdict, terms),
        *_baselines(best),
    ]
    if verdict.unequal_images:
        sure.append("The trials saw different numbers of images: their accuracies are not compute-matched.")
    groups = {
        terms.question: [
            *_told_apart(verdict, terms),
            _headline(verdict, best, terms),
            *(surface_lines(findings) if findings is not None else []),
        ],
        SURE: sure,
        COST: _cheapest(verdict),
        NEXT: [_OTHER_DATA]
        if verdict.ranks_nothing
        else [
            *_gain_next(verdict, terms),
            *_seeds_next(verdict, terms),
            *(next_lines(findings) if findings is not None and verdict.outcome != "no_gain" else []),
        ],
    }
    return {question: lines for question, lines in groups.items() if lines}


def _told_apart(verdict: Verdict, terms: Terms) -> list[str]:
    """That nothing can be ranked, where no label needs learning."""
    if not verdict.ranks_nothing:
        return []
    return [f"The labels are told apart without learning: this data cannot rank {terms.many}."]


def _solved(verdict: Verdict) -> list[str]:
    """The labels that need no learning, and who tells them apart."""
    whose = {
        "untrained": "the untrained encoder has",
        "pixels": "raw pixels have",
        "both": "the untrained encoder and raw pixels have",
    }
    return [
        f"Label {name} needs no learning: {whose[by]} 100.0 % on it." for name, by in verdict.solved.items()
    ]


def surface_lines(findings: Findings) -> list[str]:
    """Where the surface is highest, and which axes make the difference."""
    names = {axis.name for axis in findings.choice.axes}
    place = ", ".join(
        f"{name} {figure_text(value)}" for name, value in findings.best_figures.items() if name in names
    )
    over = "the masks that the model really saw" if names & set(REALISED) else "what was varied"
    lines = [
        f"Over {over}, the surface is highest at {place}: "
        f"{findings.best_mean:.1f} % ({findings.best_interval.text()})."
    ]
    mattering = [axis for axis in findings.importance if axis.matters]
    if not mattering:
        return [*lines, "No axis makes a difference that is more than noise."]
    parts = [
        f"{axis.name} ({axis.effect:.1f} points from {figure_text(axis.worse_at)} to "
        f"{figure_text(axis.better_at)}, {axis.interval.text()})"
        for axis in mattering
    ]
    rest = [axis.name for axis in findings.importance if not axis.matters]
    quiet = f" Not more than noise: {', '.join(rest)}." if rest else ""
    return [*lines, f"What makes the difference: {'; '.join(parts)}.{quiet}"]


def next_lines(findings: Findings) -> list[str]:
    """The most promising points that were not tried."""
    lines = []
    for suggestion in findings.suggestions[:_NEXT]:
        outside = " It leaves the range that was searched." if suggestion.beyond else ""
        lines.append(
            f"Try {suggestion.name}: expected {suggestion.mean:.1f} % ({suggestion.interval.text()}), "
            f"a {100 * suggestion.chance_of_better:.0f} % chance of beating the best "
            f"so far.{outside}"
        )
    return lines


def figure_text(value: float) -> str:
    """A realised figure with two significant digits, whole numbers as they are."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.2g}"


def cost_text(cost: DeviceHours) -> str:
    """Device hours in the unit that fits."""
    hours, unit = cost.counted, "GPU" if cost.has_gpus else "CPU core"
    if 0 < hours < 1 / 600:
        return f"{3600 * hours:.2g} {unit} seconds"
    return f"{hours:.2f} {unit} hours" if hours >= 0.1 else f"{60 * hours:.1f} {unit} minutes"


def _headline(verdict: Verdict, best: GeometryResult, terms: Terms) -> str:
    figure = f"{best.mean:.1f} % ({verdict.metric}, {best.interval.text()})"
    name = best.name
    if verdict.outcome == "winner":
        gap = verdict.ranking[1].behind_best
        return f"Winner: {name} with {figure}, {gap:.1f} points above the next and beyond the noise."
    if verdict.outcome == "no_gain" and verdict.gain is not None:
        gain = verdict.gain
        return (
            f"No gain is shown: the highest, {name} with {figure}, is {abs(gain.points):.1f} points "
            f"{'above' if gain.points >= 0 else 'below'} its own untrained encoder, and luck alone may give "
            f"{gain.least:.1f}."
        )
    if verdict.outcome == "alone":
        return f"Only one {terms.one} finished: {name} with {figure}; there is nothing to compare it with."
    others = [result.name for result in verdict.tied if result is not best]
    if len(others) == len(verdict.ranking) - 1 and len(others) > 1:
        who = f"all {len(others)} others"
    elif len(others) <= _NAMED:
        who = "; ".join(others)
    else:
        who = f"{len(others)} of the {len(verdict.ranking) - 1} others"
    return f"No winner can be named: {name} is highest with {figure}, but within the noise of {who}."


def _gained(verdict: Verdict) -> list[str]:
    """That the highest learned something, in points over the encoder nobody trained."""
    gain = verdict.gain
    if gain is None or not gain.is_shown:
        return []
    return [
        f"The highest is {gain.points:.1f} points above its own untrained encoder; luck alone may give "
        f"{gain.least:.1f}."
    ]


def _untold(verdict: Verdict) -> list[str]:
    """How many cannot be told from the highest, where the headline does not say so."""
    others = len(verdict.tied) - 1
    if verdict.outcome != "no_gain" or others < 1:
        return []
    count = len(verdict.ranking) - 1
    if others == count:
        who = "The other cannot" if count == 1 else f"None of the {count} others can"
        return [f"{who} be told from it."]
    return [f"{others} of the {count} others cannot be told from it."]


def _gain_next(verdict: Verdict, terms: Terms) -> list[str]:
    """What would show a gain, where none is shown: more images, and seeds if it is as large as it seems."""
    gain = verdict.gain
    if verdict.outcome != "no_gain" or gain is None:
        return []
    lines = [
        f"First train longer (train.images): while the highest is not shown to be better than an untrained encoder, "
        f"{terms.question.lower()} is best means little."
    ]
    if gain.seeds is not None and gain.seeds <= MANY_SEEDS and terms is not POPULATION:
        lines.append(
            f"If the gain is as large as it seems, {counted(gain.seeds, 'seed')} each (sweep.seeds) would show it."
        )
    return lines


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
    if cheapest is None or best is None:
        return []
    if verdict.outcome == "no_gain":
        return [f"The highest cost {cost_text(best.share)} a trial."]
    cost = cost_text(cheapest.share)
    if len(verdict.tied) == 1:
        return [f"It cost {cost} a trial."]
    if cheapest is best:
        return [f"The highest is also the cheapest of the {len(verdict.tied)} tied: {cost} a trial."]
    if not verdict.saves:
        return [f"None of the {len(verdict.tied)} tied costs notably less than the highest: {cost} a trial."]
    other = cost_text(best.share)
    return [f"Cheapest of the {len(verdict.tied)} tied: {cheapest.name}, {cost} a trial, not {other}."]


def _certainty(verdict: Verdict, terms: Terms) -> str:
    noise = verdict.noise
    assert noise is not None
    if noise.assumed:
        basis = (
            f"Every {terms.one} ran with one seed: a seed noise of {noise.seed_sd:.1f} points is assumed, "
            "not measured."
        )
    else:
        basis = (
            f"Seed noise {noise.seed_sd:.2f} points, measured with {noise.freedom:.0f} degrees of freedom; "
            f"corrected for comparing {len(verdict.ranking)} {terms.many}."
        )
    pairing = verdict.difference_noise
    if pairing is not None and pairing.paired:
        basis += f" Differences are paired by seed: {pairing.seed_sd:.2f} points a run."
    return basis


def _seeds_next(verdict: Verdict, terms: Terms) -> list[str]:
    if verdict.outcome == "no_gain":
        return []
    if terms is POPULATION:
        return [
            "What luck does to it, only another population tells: run the sweep again under another seed (sweep.seeds)."
        ]
    if verdict.noise is not None and verdict.noise.assumed and len(verdict.ranking) > 1:
        measure = f"First measure the noise: run the same {terms.many} under two more seeds (sweep.seeds)."
        return [measure, *_seeds_to_separate(verdict)]
    return _seeds_to_separate(verdict)


def _seeds_to_separate(verdict: Verdict) -> list[str]:
    if verdict.seeds_to_separate is None:
        return []
    if verdict.seeds_to_separate > MANY_SEEDS:
        return [f"The best two are too close for seeds to separate (over {MANY_SEEDS} each)."]
    seeds = verdict.seeds_to_separate
    return [f"If the best two are as far apart as they look, {counted(seeds, 'seed')} each would show it."]


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
    text = f"{result.name} at {counted(result.images, 'image')}"
    if math.isfinite(result.value):
        text += f" with {result.value:.1f}"
    if math.isfinite(result.rivals_low):
        text += f" (the finished stood at {result.rivals_low:.1f} to {result.rivals_high:.1f})"
    return text
