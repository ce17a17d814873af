"""The report as one HTML file: verdict first, no network, light and dark, readable in print and on a phone.

Everything is inside: figures are inline SVG, mask pictures data URIs, and a content security policy lets nothing be
fetched. The script sorts tables and highlights; without it the page says the same.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.protocol.intervals import percent
from orchestrator.report.page.listed_plots import is_listed
from orchestrator.report.page.style import SCRIPT, STYLE
from orchestrator.report.page.surface_plots import fixed_text
from orchestrator.report.page.tables import (
    best_table,
    gain_tables,
    geometry_table,
    health_table,
    ledger_table,
    matched_table,
    next_table,
    trial_table,
)
from orchestrator.report.statistics import LEVEL
from orchestrator.report.words import Summary, answers, recommend
from orchestrator.sweep.core import CONFIDENCE
from orchestrator.text import command_text
from orchestrator.tracking import Links


@dataclass(frozen=True, kw_only=True, eq=False)
class PageContent:
    """What the page shows beside the summary; figures are inline SVG and mask pictures PNG, by title."""

    summary: Summary
    figures: Mapping[str, str] = field(default_factory=dict)
    mask_pictures: Mapping[str, bytes] = field(default_factory=dict)
    config_text: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    links: Links | None = None
    commands: Sequence[str] = ()


def render_page(content: PageContent) -> str:
    """The page as HTML text."""
    summary, links = content.summary, content.links
    terms = summary.terms
    title = html.escape(f"{terms.title} {summary.sweep_id}")
    body = [
        f"<h1>{title}</h1>",
        _verdict(summary),
        *_section(f"Which {terms.many}", geometry_table(summary, links), _tied_legend(summary)),
        *_section("Response surface", *_surface(content)),
        *_section("Population", *_paragraphs(summary.population)),
        *_section(
            "Accuracy against cost",
            _figure(
                content,
                "progress",
                f"At every probe: means over the seeds, bars are {percent(CONFIDENCE)} intervals.",
            ),
            _figure(content, "cost", "At the end. The line joins what nothing beats on both."),
        ),
        *_section("Gain over the untrained encoder", gain_tables(summary, links), _gain_legend(summary)),
        *_section("At equal compute", matched_table(summary), _matched_legend(summary)),
        *_section("Learning curves", _curves(content)),
        *_section(
            "Best checkpoints",
            _taken(summary),
            *_paragraphs(summary.peak_lines()),
            best_table(summary, links),
        ),
        *_section("What the masks hide", *_masks(content)),
        *_section("Stopped and failed trials, and the health of all", health_table(summary, links)),
        *_section("Every trial", trial_table(summary, links)),
        *_section("What was measured", _figure(content, "surface", _measured(summary))),
        *_section("Ledger", ledger_table(summary)),
        *_section("Repeat it", _pre("\n".join(content.commands)), _seeds(summary)),
        *_section("Look closer in MLflow", _mlflow(links)),
        *_section("Notes", *_paragraphs(_notes(content))),
        _details("Settings", content.config_text),
        _details("Environment and data", _json({"environment": content.environment, "data": content.data})),
    ]
    return _document(title, "\n".join(part for part in body if part))


def _document(title: str, body: str) -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>\n<body>\n{body}\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _verdict(summary: Summary) -> str:
    groups = answers(summary.verdict, summary.findings, terms=summary.terms)
    headline = next(iter(groups.values()))[0]
    cells = []
    for place, (question, lines) in enumerate(groups.items()):
        shown = [*lines[1:]] if place == 0 else list(lines)
        if question == "At what cost":
            shown.append(summary.cost_line())
        if shown:
            text = "".join(f"<p>{html.escape(line)}</p>" for line in shown)
            cells.append(f"<section><h3>{html.escape(question)}</h3>{text}</section>")
    return f'<p class="headline">{html.escape(headline)}</p><div class="answers">{"".join(cells)}</div>'


def _section(title: str, *parts: str) -> list[str]:
    """A heading and its parts, or nothing when all parts are empty."""
    filled = [part for part in parts if part]
    return [f"<h2>{html.escape(title)}</h2>", *filled] if filled else []


def _tied_legend(summary: Summary) -> str:
    if not summary.verdict.ranking:
        return ""
    return (
        '<p class="soft">Shaded: cannot be told from the highest; it is behind by less than it would have to be to '
        f"stand apart ({percent(CONFIDENCE)}, corrected for all pairs). Front: nothing beats it on both accuracy and "
        "cost. "
        + ("Target, aspect and context are what the model saw. " if summary.findings is not None else "")
        + "Hours count from a trial's first step on: its start, and the baselines that the first trials measure for "
        f"all, say nothing about {summary.terms.many}. Figures lead to MLflow.</p>"
    )


def _gain_legend(summary: Summary) -> str:
    if not summary.gains:
        return ""
    return (
        '<p class="soft">Points over the untrained encoder of the same seed, with which every method starts: mean of '
        f"the seeds, {percent(CONFIDENCE)} interval over the method's own seeds (Student's t), each for itself. Bold: "
        "the interval lies above 0. Cost is a trial's with its probes.</p>"
    )


def _measured(summary: Summary) -> str:
    crosses = " Crosses: published." if summary.has_published else ""
    by = "by name, the highest first" if is_listed(summary) else "by nominal settings"
    return f"Means and {percent(CONFIDENCE)} intervals, {by}.{crosses}"


def _surface(content: PageContent) -> list[str]:
    findings = content.summary.findings
    if findings is None:
        return []
    held = fixed_text(findings)
    caption = (
        "Left: the surface's mean, over what the masks really covered, with lines of equal cost. Dots are geometries "
        "that ran (ringed: tied with the best), crosses (if any) where to look next. Right: how uncertain it is there. "
        "Where the surface is below the highest mean, it takes part of that mean for luck."
        + (f" Held at {held}." if held else "")
    )
    importance = (
        f"Effect of each axis, averaged over the others, with {percent(LEVEL)} intervals. "
        "Grey: not more than noise."
    )
    return [
        _figure(content, "map", caption),
        _figure(content, "importance", importance),
        next_table(content.summary) if content.summary.verdict.outcome != "no_gain" else "",
    ]


def _matched_legend(summary: Summary) -> str:
    if not summary.matched:
        return ""
    return (
        '<p class="soft">The highest against each other one. Equal images holds with '
        f"{percent(CONFIDENCE)} over all pairs together; the other two columns share a further "
        f"{percent(1 - CONFIDENCE)}. *: one of the two was read where it had spent what the other spent in "
        "all, between two probes, before its learning rate had come down: this understates it.</p>"
    )


def _curves(content: PageContent) -> str:
    images = _figure(content, "curves", "Over images seen. Dashed: the encoder nobody trained.", "images")
    hours = _figure(content, "hours", "Over device hours, retries included.", "hours")
    if not images or not hours:
        return images or hours
    return (
        '<div><input class="hidden-input" type="radio" name="by" id="by-images" checked>'
        '<input class="hidden-input" type="radio" name="by" id="by-hours">'
        '<div class="switch"><label for="by-images">over images</label>'
        f'<label for="by-hours">over device hours</label></div>{images}{hours}</div>'
    )


def _taken(summary: Summary) -> str:
    """Which checkpoint of the recommended trial is handed on."""
    if summary.verdict.best is None or not any(trial.probed.best for trial in summary.trials):
        return ""
    trial = recommend(summary).trial
    text = f"{trial.title}, seed {trial.seed}: {trial.probed.best_text()}."
    return f"<p>Of what <code>best</code> names, {html.escape(text)}</p>"


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [f"<p>{html.escape(line)}</p>" for line in lines]


def _masks(content: PageContent) -> list[str]:
    return [
        f'<figure class="mask"><img alt="{html.escape(name)}" '
        f'src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, data in content.mask_pictures.items()
    ]


def _seeds(summary: Summary) -> str:
    seeds = sorted({trial.seed for trial in summary.trials})
    listed = ", ".join(map(str, seeds))
    return f'<p class="soft">Run seeds: {listed}. A seed fixes weights, data order, crops and masks.</p>'


def _mlflow(links: Links | None) -> str:
    if links is None:
        return ""
    lines = []
    if not links.has_runs:
        deliver = html.escape(command_text("deliver", links.sweep_id or "SWEEP"))
        lines.append(
            f"<p>Nothing of this sweep had reached MLflow when this page was written. <code>{deliver}</code>, with the "
            "<code>--runs</code> of this page's other commands, sends what waits.</p>"
        )
    elif links.ui_command is not None:
        lines.append("<p>Start the page with <code>orchestrator ui</code>, then:</p>")
    pages = (
        ("the sweep", links.run_url()),
        ("all trials, best first", links.trials_url),
        ("their charts", links.charts_url),
        ("the comparison", links.compare_url),
    )
    shown = [f'<li><a href="{html.escape(url)}">{name}</a></li>' for name, url in pages if url]
    listed = f"<ul>{''.join(shown)}</ul>" if shown else ""
    store = f"Store {html.escape(links.tracking_uri)}, experiment {html.escape(links.experiment)}"
    return "".join(lines) + listed + f'<p class="soft">{store}</p>'


def _notes(content: PageContent) -> list[str]:
    findings = content.summary.findings
    return [*content.notes, *(findings.choice.notes if findings is not None else ())]


def _figure(content: PageContent, name: str, caption: str, css_class: str = "") -> str:
    svg = content.figures.get(name)
    if svg is None:
        return ""
    names = f"scroll {css_class}".strip()
    return f'<figure class="{names}">{svg}<figcaption>{html.escape(caption)}</figcaption></figure>'


def _details(title: str, text: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{_pre(text)}</details>" if text else ""


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)
