"""`masks preview` and `masks audit`."""

from __future__ import annotations

from orchestrator.cli.main import app


@app.group()
def masks() -> None:
    """Mask geometries: pictures of what they hide, and what they really come to."""
