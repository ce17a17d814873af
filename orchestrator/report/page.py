"""The report as one HTML file: verdict first, no network, no script, light and dark, readable in print."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.report.summary import Summary
from orchestrator.report.words import cost_text, stopped_text, verdict_lines
from orchestrator.tracking import Links

_CAPTIONS = {
    "surface": "Accuracy over the swept geometry, with 95 % intervals. A gap was stopped early or failed.",
    "curves": "Accuracy over images seen. The dashed line is the encoder nobody trained.",
    "cost": "Accuracy over a trial's cost. The line joins what no other geometry beats on both.",
}
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--panel:#f4f6f8;--line:#d8dee4;--mark:#0b6b8a}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4af;--paper:#14171b;--panel:#1d2126;--line:#333a42;
--mark:#5cc1e0}}
*{box-sizing:border-box}body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 4rem;background:var(--paper);
color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.3rem;color:var(--soft);font-weight:500;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
.verdict{border-left:4px solid var(--mark);background:var(--panel);padding:.8rem 1rem;margin:1rem 0}
.verdict p{margin:.4rem 0}.verdict p:first-child{font-size:1.2rem;font-weight:600}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.25rem .5rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600}td:nth-child(2),th:nth-child(2){text-align:left}
tr.tied td{background:var(--panel)}a{color:var(--mark)}
figure{margin:1rem 0}figure img{width:100%;height:auto}figure.mask img{width:auto;max-width:100%;background:#fff}
figcaption,.soft{color:var(--soft);font-size:.86rem}
pre{background:var(--panel);padding:.7rem;overflow-x:auto;font-size:.8rem}summary{cursor:pointer}
@media print{body{max-width:none}details{display:block}details>*{display:block}pre{white-space:pre-wrap}}
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class PageContent:
    """What the page shows beside the summary; figures are SVG and mask pictures PNG, by title."""

    summary: Summary
    figures: Mapping[str, bytes] = field(default_factory=dict)
    mask_pictures: Mapping[str, bytes] = field(default_factory=dict)
    config_text: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    links: Links | None = None
    commands: Sequence[str] = ()


def render_page(content: PageContent) -> str:
    """The page as HTML text."""
    summary = content.summary
    title = html.escape(f"Mask sweep {summary.sweep_id}")
    body = [
        f"<h1>{title}</h1>",
        _verdict(summary),
        *_section("Trials", _table(summary, content.links)),
        *(_figure(_CAPTIONS.get(name, name), data, "svg+xml") for name, data in content.figures.items()),
        *_section("Stopped or failed", _unfinished(summary)),
        *_section(
            "Masks", *(_figure(name, data, "png", "mask") for name, data in content.mask_pictures.items())
        ),
        *_section("Cost", _ledger(summary)),
        *_section("Look closer in MLflow", _mlflow(content.links)),
        *_section("Repeat it", _pre("\n".join(content.commands))),
        *_section("Notes", "".join(f"<p>{html.escape(note)}</p>" for note in content.notes)),
        _details("Settings", content.config_text),
        _details("Environment and data", _json({"environment": content.environment, "data": content.data})),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _verdict(summary: Summary) -> str:
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in verdict_lines(summary.verdict))
    return f'<div class="verdict">{lines}<p class="soft">{html.escape(summary.cost_line())}</p></div>'


def _section(title: str, *parts: str) -> list[str]:
    """A heading and its parts, or nothing when all parts are empty."""
    filled = [part for part in parts if part]
    return [f"<h2>{html.escape(title)}</h2>", *filled] if filled else []


def _table(summary: Summary, links: Links | None) -> str:
    rows, trial_ids = summary.rows(), summary.row_trial_ids()
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    lines = []
    for trial_id, row in zip(trial_ids, rows[1:], strict=True):
        cells = [html.escape(cell) for cell in row]
        url = links.run_url(trial_id) if links is not None else ""
        if url:
            cells[1] = f'<a href="{html.escape(url)}">{cells[1]}</a>'
        tied = ' class="tied"' if row[0].endswith("=") else ""
        lines.append(f"<tr{tied}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    legend = '<p class="soft">= cannot be told from the highest. Gain is over the untrained encoder.</p>'
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>{legend}'


def _unfinished(summary: Summary) -> str:
    items = [
        f"<li>{html.escape(stopped_text(result))}"
        + (f": {html.escape(result.reason)}" if result.reason else "")
        + "</li>"
        for result in summary.verdict.stopped
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _ledger(summary: Summary) -> str:
    by_state: dict[str, list[float]] = {}
    for trial in summary.trials:
        sums = by_state.setdefault(trial.state, [0.0, 0.0, 0.0])
        for index, value in enumerate((1.0, trial.gpu_hours, trial.cpu_core_hours)):
            sums[index] += value
    lines = [
        f"<p>{count:.0f} {html.escape(state)}: {html.escape(cost_text(gpu_hours, cpu_core_hours))}</p>"
        for state, (count, gpu_hours, cpu_core_hours) in by_state.items()
    ]
    return (
        "".join(lines) + '<p class="soft">Hours count the devices that were allocated, retries included.</p>'
    )


def _mlflow(links: Links | None) -> str:
    if links is None:
        return ""
    lines = []
    if links.ui_command is not None:
        lines.append("<p>Start the page with <code>orchestrator ui</code>, then:</p>")
    pages = (("all trials, best first", links.trials_url), ("the comparison", links.compare_url))
    shown = [f'<li><a href="{html.escape(url)}">{name}</a></li>' for name, url in pages if url]
    return (
        "".join(lines)
        + (f"<ul>{''.join(shown)}</ul>" if shown else "")
        + f"<p class=soft>{_store(links)}</p>"
    )


def _store(links: Links) -> str:
    return f"Store {html.escape(links.tracking_uri)}, experiment {html.escape(links.experiment)}"


def _figure(caption: str, data: bytes, kind: str, css_class: str = "") -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    text = html.escape(caption)
    return f'<figure class="{css_class}"><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'


def _details(title: str, text: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{_pre(text)}</details>" if text else ""


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)
