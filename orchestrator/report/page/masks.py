"""The audit of a sweep's mask geometries as one HTML file: no network, no script, light and dark."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from orchestrator.report.page.mask_sweep import LEGEND, audit_rows
from orchestrator.sweep.foresight import GeometryAudit, SweepAudit
from orchestrator.text import counted

_LOW, _HIGH = np.array([244.0, 248.0, 251.0]), np.array([8.0, 62.0, 92.0])
_SHAPES_SHOWN = 8
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--panel:#f4f6f8;--line:#d8dee4;--mark:#0b6b8a}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4af;--paper:#14171b;--panel:#1d2126;--line:#333a42;
--mark:#5cc1e0}}
*{box-sizing:border-box}body{margin:0 auto;max-width:72rem;padding:1.5rem 1rem 4rem;background:var(--paper);
color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.3rem;margin:0 0 1rem}h2{font-size:1.05rem;margin:2rem 0 .5rem}
.note{border-left:4px solid var(--mark);background:var(--panel);padding:.4rem 1rem;margin:.4rem 0}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600}td:first-child,th:first-child{text-align:left}
.soft,figcaption{color:var(--soft);font-size:.86rem}.row{display:flex;flex-wrap:wrap;gap:1.5rem;align-items:flex-start}
figure{margin:0}figure img{width:11rem;height:auto;image-rendering:pixelated;border:1px solid var(--line);display:block}
.scale{display:inline-block;width:8rem;height:.7rem;vertical-align:middle;border:1px solid var(--line);
background:linear-gradient(90deg,rgb(244,248,251),rgb(8,62,92))}
"""


def render_audit(title: str, audit: SweepAudit) -> str:
    """The page as HTML text. All heat maps of a kind share one scale, so they can be compared."""
    most_target = _most([geometry.audit.target_coverage for geometry in audit.geometries])
    most_context = _most([geometry.audit.context_coverage for geometry in audit.geometries])
    name = html.escape(f"Masks of {title}")
    body = [
        f"<h1>{name}</h1>",
        *(f'<div class="note">{html.escape(note)}</div>' for note in (*audit.notes, *audit.warnings)),
        "<p>A search that proposes its own points: these are spread over its space.</p>"
        if audit.is_sampled
        else "",
        _table(audit),
        "<h2>Coverage</h2>",
        f'<p class="soft">How often a patch is a target, 0 to {most_target:.2f} of the images '
        f'<span class="scale"></span>, and how often it is kept as context, 0 to {most_context:.2f}.</p>',
        *(_geometry(geometry, most_target, most_context) for geometry in audit.geometries),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _most(maps: Sequence[Sequence[Sequence[float]]]) -> float:
    return max((share for rows in maps for row in rows for share in row), default=0.0) or 1.0


def _table(audit: SweepAudit) -> str:
    head, *rows = audit_rows(audit)
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    legend = "".join(f"<br>{html.escape(line)}" for line in LEGEND)
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table>{table}</table></div><p class="soft">{legend[4:]}</p>'


def _geometry(geometry: GeometryAudit, most_target: float, most_context: float) -> str:
    audit = geometry.audit
    spread = audit.context_patches
    trials = f", trials {', '.join(geometry.trial_ids)}" if geometry.trial_ids else ""
    caption = (
        f"{audit.grid} patches, context of {spread.mean:.1f} patches ({spread.least:.0f} to {spread.most:.0f}), "
        f"{counted(audit.num_samples, 'image')} sampled{trials}"
    )
    return (
        f"<h2>{html.escape(geometry.name)}</h2>"
        f'<p class="soft">{html.escape(caption)}</p><div class="row">'
        + _heat_map("target", audit.target_coverage, most_target)
        + _heat_map("context", audit.context_coverage, most_context)
        + _shapes(geometry)
        + "</div>"
    )


def _heat_map(name: str, coverage: Sequence[Sequence[float]], most: float) -> str:
    share_RS = np.array(coverage)
    pixels = _LOW + (share_RS / most)[..., None] * (_HIGH - _LOW)
    buffer = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8)).save(buffer, format="PNG")
    text = f"{name}: {share_RS.min():.2f} to {share_RS.max():.2f}, mean {share_RS.mean():.2f}"
    source = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{source}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _shapes(geometry: GeometryAudit) -> str:
    """The most frequent block shapes of the targets."""
    shapes = geometry.audit.target_shapes
    if not shapes:
        return '<p class="soft">Targets are single patches.</p>'
    rows = [f"<tr><td>{s.height}x{s.width}</td><td>{s.share:.1%}</td></tr>" for s in shapes[:_SHAPES_SHOWN]]
    more = len(shapes) - _SHAPES_SHOWN
    rest = f'<p class="soft">and {more} more</p>' if more > 0 else ""
    return f"<div><table><tr><th>target blocks</th><th>share</th></tr>{''.join(rows)}</table>{rest}</div>"
