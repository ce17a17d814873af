"""matplotlib's SVG made fit for a page: inline, in the page's own ink, with tool tips and links, unique ids.

A figure marks an artist with `tag(artist, ...)`; `inline` then puts its text beside it as a tool tip that a browser
shows by itself. Links need no script either.
"""

from __future__ import annotations

import html
import io
import re
from typing import Any

from matplotlib.figure import Figure

INK = "#808080"
"""Drawn in this grey, a line or a letter takes the colour of the page's text."""
_TAG = "tip:"
_GROUP = re.compile(r'<g id="tip:([^"]*?):([0-9]+)">')


class Tips:
    """Texts of one figure's marked artists, by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def tag(self, artist: Any, text: str, *, key: str = "", url: str = "") -> None:
        """Give an artist a tool tip, a link, and a key that a script can find it by."""
        artist.set_gid(f"{_TAG}{key}:{len(self.texts)}")
        self.texts.append(text)
        if url:
            artist.set_url(url)


def inline(figure: Figure, name: str, tips: Tips, *, label: str) -> str:
    """A figure as an `<svg>` element for the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.S)
    rest = _GROUP.sub(lambda found: _open_group(found.group(1), tips.texts[int(found.group(2))]), rest)
    rest = rest.replace(INK, "currentColor")
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    rest = rest.replace("xlink:href", "href").replace(' target="_blank"', "")
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box.group(0)} role="img" aria-label="{html.escape(label)}">{rest}'


def _open_group(key: str, text: str) -> str:
    data = f' data-key="{html.escape(key)}"' if key else ""
    return f'<g class="tip"{data}><title>{html.escape(text)}</title>'
