from . import raycast as raycast
from . import scenes as scenes
from . import textures as textures
from .render import encode_png as encode_png
from .render import render_scenes as render_scenes
from .scenes import SCENE_AMOUNTS as SCENE_AMOUNTS
from .scenes import SCENE_LABELS as SCENE_LABELS

__all__ = [
    "SCENE_AMOUNTS",
    "SCENE_LABELS",
    "encode_png",
    "raycast",
    "render_scenes",
    "scenes",
    "textures",
]
