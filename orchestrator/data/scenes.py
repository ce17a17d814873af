"""The embedded data set: small rendered scenes in the manner of CLEVR, each a function of (seed, index, size).

One to five spheres, boxes and cylinders of a few colours and sizes stand on a tinted checkered ground, lit from one
side with hard shadows, partly hiding each other. Three questions are asked of each scene: what the nearest object is
(shape and colour), how many objects there are, and how far the nearest is. The three answers are drawn first, evenly
and independently of each other, and the scene is built to them, so none can be guessed from another.

Pixels are the same on every platform: numbers come from a counter-based hash, and rendering uses only operations that
IEEE 754 rounds exactly (no sine, power or matrix product). Rendering itself is in `raycast`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.order import uniforms
from orchestrator.data.raycast import SHAPES, Camera, Scene, Solid, render, solid_at_pixels

COLORS = {
    "red": (0.80, 0.16, 0.14),
    "green": (0.16, 0.62, 0.22),
    "blue": (0.16, 0.30, 0.82),
    "yellow": (0.86, 0.74, 0.14),
}
MAX_OBJECTS = 5
NEAREST_M = (4.6, 9.1)
NUM_DISTANCES = 5
MIN_VISIBLE_FRACTION = 0.012

_RADII_M = (0.6, 0.8, 1.05)
_GAP_M = 0.12
_DEEPEST_M = 12.5
_SIDEWAYS = 0.27
_JUDGED_PX = 32
_STREAM_SCENE = 101
_PLACEMENTS = 60
_ATTEMPTS = 200
_BIN_M = (NEAREST_M[1] - NEAREST_M[0]) / NUM_DISTANCES

_RGB = tuple(COLORS.values())
CLASS_NAMES = tuple(f"{color} {shape}" for shape in SHAPES for color in COLORS)
DISTANCE_NAMES = tuple(
    f"{NEAREST_M[0] + _BIN_M * index:.1f} to {NEAREST_M[0] + _BIN_M * (index + 1):.1f} m"
    for index in range(NUM_DISTANCES)
)
SCENE_LABELS: dict[str, tuple[str, ...]] = {
    "class": CLASS_NAMES,
    "count": tuple(str(number) for number in range(1, MAX_OBJECTS + 1)),
    "distance": DISTANCE_NAMES,
}
SCENE_AMOUNTS = {"distance_m": "m"}
"""What a scene carries as a real number, with its unit."""


def render_scene(
    seed: int, index: int, image_size_px: int
) -> tuple[NDArray[np.uint8], dict[str, int | float]]:
    """One scene as RGB pixels [H, W, 3], and its answers: indices into `SCENE_LABELS`, and `SCENE_AMOUNTS`."""
    scene = build_scene(seed, index)
    return render(scene, image_size_px), {**labels_of(scene), **amounts_of(scene)}


def build_scene(seed: int, index: int) -> Scene:
    """The scene of a number: laid out anew until every object can be seen.

    Which objects are seen is judged on a fixed small picture, so that the labels do not depend on the image size.
    """
    answers = iter(uniforms(seed, 0, index, stream=_STREAM_SCENE, count=3).tolist())
    count = 1 + int(MAX_OBJECTS * next(answers))
    nearest_class = int(len(CLASS_NAMES) * next(answers))
    nearest_m = _between(next(answers), NEAREST_M)
    for attempt in range(1, _ATTEMPTS):
        drawn = iter(
            uniforms(seed, attempt, index, stream=_STREAM_SCENE, count=20 + 6 * _PLACEMENTS).tolist()
        )
        scene = _layout(drawn, count=count, nearest_class=nearest_class, nearest_m=nearest_m)
        if scene is not None and _all_visible(scene):
            return scene
    raise AssertionError(f"scene {index} of seed {seed}: no layout of {count} objects found")


def labels_of(scene: Scene) -> dict[str, int]:
    """The answers, read from the scene itself."""
    distances_m = [distance_m(scene.camera, solid) for solid in scene.solids]
    nearest = min(range(len(distances_m)), key=distances_m.__getitem__)
    solid = scene.solids[nearest]
    distance = int((distances_m[nearest] - NEAREST_M[0]) / _BIN_M)
    return {
        "class": SHAPES.index(solid.shape) * len(COLORS) + solid.color,
        "count": len(scene.solids) - 1,
        "distance": min(max(distance, 0), NUM_DISTANCES - 1),
    }


def amounts_of(scene: Scene) -> dict[str, float]:
    """The distance of the nearest object, to the millimetre."""
    return {"distance_m": round(min(distance_m(scene.camera, solid) for solid in scene.solids), 3)}


def distance_m(camera: Camera, solid: Solid) -> float:
    """From the camera to an object's centre."""
    return math.sqrt(
        (solid.x_m - camera.x_m) ** 2
        + (solid.y_m - camera.y_m) ** 2
        + (solid.radius_m - camera.height_m) ** 2
    )


def _layout(drawn: Iterator[float], *, count: int, nearest_class: int, nearest_m: float) -> Scene | None:
    """A scene from random numbers, its nearest object first; None when the objects find no room."""
    camera = Camera(
        x_m=0.0,
        y_m=0.0,
        height_m=_between(next(drawn), (2.6, 4.0)),
        look_at_m=_between(next(drawn), (7.2, 8.6)),
        half_view=_between(next(drawn), (0.36, 0.42)),
    )
    scene = Scene(
        camera=camera,
        light=(_between(next(drawn), (-0.9, 0.9)), _between(next(drawn), (-0.9, 0.3)), 1.0),
        ambient=_between(next(drawn), (0.30, 0.45)),
        ground=tuple(_between(next(drawn), (0.35, 0.75)) for _ in range(3)),
        sky=tuple(_between(next(drawn), (0.45, 0.85)) for _ in range(3)),
        checker_contrast=_between(next(drawn), (0.12, 0.4)),
        checker_m=_between(next(drawn), (0.7, 1.4)),
        checker_offset=(next(drawn), next(drawn)),
        checker_turn=_rotation(next(drawn)),
        solids=(),
    )
    solids: list[Solid] = []
    shape, color = divmod(nearest_class, len(COLORS))
    for _ in range(_PLACEMENTS):
        if len(solids) == count:
            return scene.with_solids(tuple(solids))
        place, size, kind, hue, turn = (next(drawn) for _ in range(5))
        radius_m = _RADII_M[int(len(_RADII_M) * size)]
        sideways = _between(place, (-_SIDEWAYS, _SIDEWAYS))
        far_m = nearest_m if not solids else _between(next(drawn), (nearest_m + 0.15, _DEEPEST_M))
        if solids:
            shape, color = int(len(SHAPES) * kind), int(len(COLORS) * hue)
        ground_m = math.sqrt(far_m**2 - (radius_m - camera.height_m) ** 2)
        forward_m = ground_m / math.sqrt(1 + sideways**2)
        solid = Solid(
            shape=SHAPES[shape],
            color=color,
            rgb=_RGB[color],
            x_m=sideways * forward_m,
            y_m=forward_m,
            radius_m=radius_m,
            turn=_rotation(turn),
        )
        if all(_apart(solid, other) for other in solids):
            solids.append(solid)
    return None


def _apart(first: Solid, second: Solid) -> bool:
    reach = first.radius_m + second.radius_m + _GAP_M
    return (first.x_m - second.x_m) ** 2 + (first.y_m - second.y_m) ** 2 > reach**2


def _all_visible(scene: Scene) -> bool:
    seen_HW = solid_at_pixels(scene, _JUDGED_PX)
    least = MIN_VISIBLE_FRACTION * seen_HW.size
    counts = np.bincount(seen_HW.ravel() + 1, minlength=len(scene.solids) + 1)
    return bool((counts[1:] >= least).all())


def _between(fraction: float, bounds: tuple[float, float]) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * fraction


def _rotation(fraction: float) -> tuple[float, float]:
    """Cosine and sine of an angle between 0 and 90 degrees, without calling either."""
    tangent = fraction * 0.41421356237
    scale = 1 + tangent**2
    half_cos, half_sin = (1 - tangent**2) / scale, 2 * tangent / scale
    return half_cos**2 - half_sin**2, 2 * half_cos * half_sin
