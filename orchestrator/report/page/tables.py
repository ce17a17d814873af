"""The tables of the page, as HTML; every figure that came from a run leads to it in MLflow."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from orchestrator.protocol.hours import WholeHours
from orchestrator.protocol.metrics import (
    COSINE,
    EFFECTIVE_RANK,
    FEATURE_STD,
    HEALTH,
    POSITION_SHARE,
    PROBE_KINDS,
    ProbeKind,
)
from orchestrator.report.statistics import (
    ASPECT,
    BUDGETS,
    CONTEXT,
    TARGET,
    TARGETS,
    LabelGain,
    MatchedResult,
    MethodGain,
    TrialSummary,
)
from orchestrator.report.words import GeometryResult, StoppedResult, Summary, figure_text
from orchestrator.tracking import Links

_HEALTH = (FEATURE_STD, COSINE, EFFECTIVE_RANK, POSITION_SHARE)


def geometry_table(summary: Summary, links: Links | None) -> str:
    """One row a geometry: rank, mean and interval, distance, realised figures, cost, its runs."""
    if not summary.verdict.ranking:
        return ""
    front = {result.name for result in summary.front()}
    realised = {} if summary.findings is None else summary.findings.figures
    unit = "GPU h a trial" if summary.hours.has_gpus else "core h a trial"
    shown = {name: short for name, short in _SHORT.items() if _differs(name, realised)}
    interval = summary.verdict.ranking[0].interval.name
    heads = ["#", summary.terms.one, "mean %", interval, "behind", "apart from", *shown.values()]
    rows = []
    for result in summary.verdict.ranking:
        figures = realised.get(result.name, {})
        cells = [
            _cell(str(result.rank)),
            _cell(html.escape(result.name) + (" · front" if result.name in front else ""), css="text"),
            _linked(f"{result.mean:.1f}", result.trial_ids[0], links, result.mean),
            _cell(result.interval.bounds()),
            _cell("" if result.rank == 1 else f"{result.behind_best:.1f}"),
            _cell("" if result.rank == 1 else f"{result.margin:.1f}"),
            *(_cell(figure_text(figures[name]) if name in figures else "") for name in shown),
            _cell(f"{result.share.counted:.3f}"),
            _cell(_runs(result, links), css="text"),
        ]
        rows.append(_row(cells, keys=result.trial_ids, css="tied" if result.tied else ""))
    return _table([*heads, unit, "runs"], rows, text_columns=(1, len(heads) + 1))


def _differs(name: str, realised: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether a realised figure is not the same everywhere, as one reads it."""
    return len({figure_text(figures[name]) for figures in realised.values() if name in figures}) > 1


_SHORT = {TARGET: "target", ASPECT: "aspect", CONTEXT: "context", TARGETS: "targets"}


def trial_table(summary: Summary, links: Links | None) -> str:
    """One row a trial, as in the terminal."""
    rows, trial_ids = summary.rows(), summary.row_trial_ids()
    lines = []
    for trial_id, row in zip(trial_ids, rows[1:], strict=True):
        cells = [
            _linked(cell, trial_id, links, text=column in (1, 3)) if cell else _cell("")
            for column, cell in enumerate(row)
        ]
        lines.append(_row(cells, keys=(trial_id,), css="tied" if row[0].endswith("=") else ""))
    legend = '<p class="soft">= cannot be told from the highest. Gain is over the untrained encoder.</p>'
    return _table(rows[0], lines, text_columns=(1, 3)) + legend


def best_table(summary: Summary, links: Links | None) -> str:
    """One row a trial with a best checkpoint: its figure there and at its newest probe, the furthest fall first."""
    kept = [trial for trial in summary.trials if trial.probed.best is not None]
    rows = []
    for trial in sorted(kept, key=lambda each: -each.probed.fall):
        best, curve = trial.probed.best, trial.probed
        assert best is not None
        cells = [
            _linked(f"{trial.title}, seed {trial.seed}", trial.trial_id, links, text=True),
            _cell(f"{best.images:,}", value=best.images),
            _cell(f"{best.value:.1f}{' (picked)' if curve.is_picked else ''}", value=best.value),
            _cell(f"{curve.last_value:.1f}", value=curve.last_value),
            _cell(f"{curve.last_images:,}", value=curve.last_images),
            _cell(str(len(curve.values)), value=len(curve.values)),
        ]
        rows.append(_row(cells, keys=(trial.trial_id,)))
    if not rows:
        return ""
    heads = ["trial", "best after images", "% there", "% at the newest probe", "after images", "probes"]
    legend = (
        '<p class="soft">The weights of the highest probe since warm-up are kept beside the newest checkpoints. '
        "Picked: chosen as the highest of the trial's probes, so it reads high and ranks nothing.</p>"
    )
    shown = _table(heads, rows, text_columns=(0,)) + legend
    return f"<details><summary>{len(rows)} kept</summary>{shown}</details>"


def matched_table(summary: Summary) -> str:
    """The best geometry against each other one, at equal images, FLOPs and device hours."""
    if not summary.matched:
        return ""
    by_rival: dict[str, dict[str, MatchedResult]] = {}
    for result in summary.matched:
        by_rival.setdefault(result.second, {})[result.budget] = result
    best = summary.matched[0].first
    rows = []
    for rival, results in by_rival.items():
        cells = [_cell(html.escape(rival), css="text")]
        for budget in BUDGETS:
            cells.append(_matched_cell(results[budget]) if budget in results else _cell(""))
        rows.append(_row(cells))
    heads = [f"{best} against", *(f"at equal {budget}" for budget in BUDGETS)]
    return _table(heads, rows, text_columns=(0, 1, 2, 3), css="sortable wrap")


def _matched_cell(result: MatchedResult) -> str:
    if result.word == "not measured":
        return _cell("not measured", css="text", title=result.sentence())
    interval = f"{result.difference:+.1f} ({result.interval.bounds('+.1f')})"
    word = {"beats": "beats it", "tied": "tied"}.get(result.word, "cannot say")
    if result.word == "beats" and result.winner != result.first:
        word = "is beaten"
    if result.word == "cannot say" and result.more_seeds is not None:
        word += f": {result.more_seeds} more seeds" if result.more_seeds > 1 else ": 1 more seed"
    mark = " *" if result.cut else ""
    return _cell(f"{word}, {interval}{mark}", css="text", title=result.sentence(), value=result.difference)


def gain_tables(summary: Summary, links: Links | None) -> str:
    """What each method gained over its untrained encoder, by label: one table a probe."""
    return "".join(_gain_table(summary, probe, links) for probe in PROBE_KINDS)


def _gain_table(summary: Summary, probe: ProbeKind, links: Links | None) -> str:
    labels = list(dict.fromkeys(label for each in summary.gains for label in each.gains[probe]))
    if not labels:
        return ""
    name = {"linear": "linear probe", "knn": "k-NN"}[probe]
    heads = [
        f"{name}: {summary.terms.one}",
        *(_with_untrained(summary.gains, probe, each) for each in labels),
    ]
    unit = "GPU h a trial" if summary.hours.has_gpus else "core h a trial"
    rows = []
    for method in summary.gains:
        cells = [_linked(method.name, method.trial_ids[0], links, text=True)]
        cells += [_gain_cell(method.gains[probe].get(label)) for label in labels]
        gigaflop = method.flops_per_image / 1e9
        cells.append(_cell(f"{gigaflop:.3g}" if math.isfinite(gigaflop) else "", value=gigaflop))
        cells.append(_cell(f"{method.device_hours:.3f}", value=method.device_hours))
        rows.append(_row(cells, keys=method.trial_ids))
    return _table([*heads, "GFLOP an image", unit], rows, text_columns=(0,))


def _with_untrained(gains: Sequence[MethodGain], probe: ProbeKind, label: str) -> str:
    """A label, and what the untrained encoder reaches on it: the mean of the method that ended under most seeds."""
    measured = [each for each in gains if label in each.gains[probe]]
    widest = max(measured, key=lambda each: len(each.seeds))
    return f"{label} (untrained {widest.gains[probe][label].untrained:.1f})"


def _gain_cell(gain: LabelGain | None) -> str:
    if gain is None:
        return _cell("")
    text = f"{gain.points:+.1f}"
    if gain.interval.is_known:
        text += f" ({gain.interval.bounds('+.1f')})"
    return _cell(
        f"<b>{text}</b>" if gain.is_shown else text,
        title=f"{gain.untrained:.1f} % untrained, {gain.accuracy:.1f} % trained",
        value=gain.points,
    )


def next_table(summary: Summary) -> str:
    """Points to try next."""
    findings = summary.findings
    if findings is None or not findings.suggestions:
        return ""
    unit = "GPU h" if summary.hours.has_gpus else "core h"
    rows = []
    for each in findings.suggestions:
        name = html.escape(each.name) + (" (beyond the range searched)" if each.beyond else "")
        cells = [
            _cell(name, css="text"),
            _cell(f"{each.mean:.1f}"),
            _cell(each.interval.bounds()),
            _cell(f"{100 * each.chance_of_better:.0f} %"),
            _cell(f"{each.device_hours:.3f}" if math.isfinite(each.device_hours) else ""),
        ]
        rows.append(_row(cells))
    interval = findings.suggestions[0].interval.name
    heads = ["try next", "expected %", interval, "chance to beat the best", f"{unit} a trial"]
    return _table(heads, rows, text_columns=(0,))


def health_table(summary: Summary, links: Links | None) -> str:
    """Trials that did not finish, with why and their health; then the health of those that did."""
    stopped = {result.trial_id: result for result in summary.verdict.stopped}
    ended = [trial for trial in summary.trials if trial.trial_id not in stopped and trial.health]
    parts = []
    for trials, title, is_open in (
        ([trial for trial in summary.trials if trial.trial_id in stopped], "did not finish", True),
        (ended, "finished", False),
    ):
        if trials:
            shown = _health_rows(trials, stopped, links)
            mark = " open" if is_open else ""
            parts.append(f"<details{mark}><summary>{len(trials)} {title}</summary>{shown}</details>")
    legend = (
        '<p class="soft">Health is label-free, from the first probe to the last: a spread (std) that falls to 0, a '
        "cosine that rises to 1 or an effective rank near 1 is a collapse. It never ranks.</p>"
    )
    return "".join(parts) + legend if parts else ""


def _health_rows(
    trials: Sequence[TrialSummary], stopped: Mapping[str, StoppedResult], links: Links | None
) -> str:
    rows = []
    for trial in sorted(trials, key=lambda each: each.images):
        newest = trial.health[max(trial.health)] if trial.health else {}
        first = trial.health[min(trial.health)] if trial.health else {}
        result = stopped.get(trial.trial_id)
        rivals = ""
        if result is not None and math.isfinite(result.rivals_low):
            rivals = f"{result.value:.1f}; finished {result.rivals_low:.1f} to {result.rivals_high:.1f}"
        cells = [
            _linked(f"{trial.title}, seed {trial.seed}", trial.trial_id, links, text=True),
            _cell(trial.state, css="text"),
            _cell(f"{trial.images:,}", value=trial.images),
            _cell(rivals, css="text"),
            *(_cell(_change(first, newest, key)) for key in _HEALTH),
            _cell(html.escape(trial.reason), css="text"),
        ]
        rows.append(_row(cells, keys=(trial.trial_id,)))
    heads = ["trial", "state", "images", "there, beside the finished"]
    heads += [key.removeprefix(HEALTH).replace("_", " ") for key in _HEALTH]
    return _table([*heads, "reason"], rows, text_columns=(0, 1, 3, 8))


def ledger_table(summary: Summary) -> str:
    """Where the device hours went, by how trials ended; retries are counted."""
    by_state: dict[str, list[TrialSummary]] = {}
    for trial in summary.trials:
        by_state.setdefault(trial.state, []).append(trial)
    rows = [_ledger_row(state, trials) for state, trials in by_state.items()]
    rows.append(_ledger_row("all trials", summary.trials))
    if summary.held.cpu_core > 0:
        held = [f"{summary.held.gpu:.3f}", f"{summary.held.cpu_core:.3f}"]
        cells = ["", "", *held, ""]
        rows.append(
            _row([_cell("held by worker groups, between trials too", css="text"), *map(_cell, cells)])
        )
    heads = ["", "trials", "attempts", "GPU hours", "CPU core hours", "images"]
    kwh = "unknown" if summary.energy_kwh is None else f"{summary.energy_kwh:.4g} kWh"
    legend = (
        '<p class="soft">Hours count the devices that were allocated, busy or not, starts, baselines and retries '
        f"included. Energy of the trials' GPUs: {kwh}.</p>"
    )
    return _table(heads, rows, text_columns=(0,)) + legend


def _ledger_row(name: str, trials: Sequence[TrialSummary]) -> str:
    hours = WholeHours.total(trial.whole for trial in trials)
    cells = [
        _cell(name, css="text"),
        _cell(str(len(trials))),
        _cell(str(sum(trial.num_attempts for trial in trials))),
        _cell(f"{hours.gpu:.3f}"),
        _cell(f"{hours.cpu_core:.3f}"),
        _cell(f"{sum(trial.images for trial in trials):,}"),
    ]
    return _row(cells)


def _change(first: Mapping[str, float], newest: Mapping[str, float], key: str) -> str:
    if key not in newest:
        return ""
    return f"{first[key]:.2f} → {newest[key]:.2f}" if key in first else f"{newest[key]:.2f}"


def _runs(result: GeometryResult, links: Links | None) -> str:
    """The seeds of a geometry, each a link to its run."""
    parts = []
    for trial_id, seed in zip(result.trial_ids, result.seeds, strict=True):
        parts.append(_anchor(str(seed), trial_id, links))
    return " ".join(parts)


def _linked(
    shown: str, trial_id: str, links: Links | None, value: float | None = None, *, text: bool = False
) -> str:
    return _cell(_anchor(shown, trial_id, links), css="text" if text else "", value=value)


def _anchor(text: str, trial_id: str, links: Links | None) -> str:
    url = links.run_url(trial_id) if links is not None else ""
    shown = html.escape(text)
    return f'<a href="{html.escape(url)}">{shown}</a>' if url else shown


def _cell(content: str, *, css: str = "", title: str = "", value: float | None = None) -> str:
    attributes = f' class="{css}"' if css else ""
    attributes += f' title="{html.escape(title)}"' if title else ""
    attributes += f' data-value="{value}"' if value is not None else ""
    return f"<td{attributes}>{content}</td>"


def _row(cells: Sequence[str], *, keys: Sequence[str] = (), css: str = "") -> str:
    attributes = f' class="{css}"' if css else ""
    attributes += f' data-keys="{html.escape(" ".join(keys))}"' if keys else ""
    return f"<tr{attributes}>{''.join(cells)}</tr>"


def _table(
    heads: Sequence[str], rows: Sequence[str], *, text_columns: Sequence[int] = (), css: str = "sortable"
) -> str:
    shown = "".join(
        f"<th{' class=text' if column in text_columns else ''}>{html.escape(head)}</th>"
        for column, head in enumerate(heads)
    )
    return (
        f'<div class="wide"><table class="{css}"><thead><tr>{shown}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
