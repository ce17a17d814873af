"""Rendering procedural scenes into the members of a shard: the work of one process of a pool.

Imports little, so that a new process starts in a fraction of a second.
"""

from __future__ import annotations

import io
import json

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def render_scenes(task: tuple[int, int, int, int]) -> list[tuple[str, dict[str, bytes]]]:
    """Render the scenes (seed, start, stop, side in pixels): keys, and PNG and JSON labels by extension."""
    from orchestrator.data.scenes.scenes import render_scene

    seed, start, stop, image_size_px = task
    found = []
    for index in range(start, stop):
        pixels_HWC, answers = render_scene(seed, index, image_size_px)
        text = json.dumps(answers, sort_keys=True).encode()
        found.append((f"scene-{index:010d}", {"png": encode_png(pixels_HWC), "json": text}))
    return found


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """An array [H, W] or [H, W, 3] as PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()
