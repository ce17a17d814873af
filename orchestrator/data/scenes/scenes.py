"""The embedded data set: small rendered scenes in the manner of CLEVR, each a function of (seed, index, size).

One to five spheres, boxes or cylinders stand on a patterned ground, lit from one side with hard shadows, partly hiding
each other, seen from a camera that is higher or lower, nearer or farther, and tilted. All objects of a scene have one
shape, one color and one surface, and differ in size, shade and second color. So there is what natural images have and
masks can tell apart: patterns that can be predicted from the next patch, objects that can be predicted from others far
away, and views that move, so that one pixel says little.

Four questions are asked of each scene: the class of its objects (color and shape), their surface, how many there are,
and how far the nearest is. The answers are drawn first, evenly and independently of each other, and the scene is built
to them, so none can be guessed from another.

Pixels are the same on every platform: numbers come from a counter-based hash, and rendering uses only operations that
IEEE 754 rounds exactly (no sine, power or matrix product). Rendering itself is in `raycast`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.read import uniforms
from orchestrator.data.scenes.raycast import (
    SHAPES,
    Camera,
    Color,
    Ground,
    Scene,
    Solid,
    render,
    solid_at_pixels,
)
from orchestrator.data.scenes.textures import Pattern

COLORS = {
    "red": (0.80, 0.16, 0.14),
    "green": (0.16, 0.62, 0.22),
    "blue": (0.16, 0.30, 0.82),
    "yellow": (0.86, 0.74, 0.14),
}
SURFACES: tuple[Pattern, ...] = ("plain", "striped", "checked")
MAX_OBJECTS = 5
NEAREST_M = (3.0, 6.0)
NUM_DISTANCES = 5
MIN_VISIBLE_FRACTION = 0.012

_RADII_M = (0.6, 0.8, 1.05)
_GAP_M = 0.12
_DEEPEST_M = 8.5
_SIDEWAYS = 0.27
_JUDGED_PX = 32
_STREAM_SCENE = 103
_GROUNDS: tuple[Pattern, ...] = ("striped", "checked", "rough")
_ROLL_HALF_TANGENT = 0.2553  # 29 degrees to each side
_SHADE = 0.12
_DRAWN_BEFORE_OBJECTS, _DRAWN_AN_OBJECT = 30, 11
_DRAWN_LOOKS = 7
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
    "surface": SURFACES,
    "count": tuple(str(number) for number in range(1, MAX_OBJECTS + 1)),
    "distance": DISTANCE_NAMES,
}
SCENE_AMOUNTS = {"distance_m": "m"}
"""What a scene carries as a real number, with its unit."""


@dataclass(frozen=True)
class _Answers:
    """What a scene is built to."""

    count: int
    object_class: int
    nearest_m: float
    surface: Pattern


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an object would stand, and how large it would be."""

    x_m: float
    y_m: float
    radius_m: float


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
    drawn = iter(uniforms(seed, 0, index, stream=_STREAM_SCENE, count=4).tolist())
    answers = _Answers(
        count=1 + int(MAX_OBJECTS * next(drawn)),
        object_class=int(len(CLASS_NAMES) * next(drawn)),
        nearest_m=_between(next(drawn), NEAREST_M),
        surface=SURFACES[int(len(SURFACES) * next(drawn))],
    )
    numbers = _DRAWN_BEFORE_OBJECTS + _DRAWN_AN_OBJECT * _PLACEMENTS
    for attempt in range(1, _ATTEMPTS):
        drawn = iter(uniforms(seed, attempt, index, stream=_STREAM_SCENE, count=numbers).tolist())
        scene = _layout(drawn, answers)
        if scene is not None and _all_visible(scene):
            return scene
    raise AssertionError(f"scene {index} of seed {seed}: no layout of {answers.count} objects found")


def labels_of(scene: Scene) -> dict[str, int]:
    """The answers, read from the scene itself."""
    distances_m = [distance_m(scene.camera, solid) for solid in scene.solids]
    nearest = min(range(len(distances_m)), key=distances_m.__getitem__)
    solid = scene.solids[nearest]
    distance = int((distances_m[nearest] - NEAREST_M[0]) / _BIN_M)
    return {
        "class": SHAPES.index(solid.shape) * len(COLORS) + solid.color,
        "surface": SURFACES.index(solid.pattern),
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


def _layout(drawn: Iterator[float], answers: _Answers) -> Scene | None:
    """A scene from random numbers, its nearest object first; None when the objects find no room."""
    scene = _empty_scene(drawn)
    solids: list[Solid] = []
    places: list[_Place] = []
    for _ in range(_PLACEMENTS):
        if len(solids) == answers.count:
            return scene.with_solids(tuple(solids))
        far_m = _between(next(drawn), (answers.nearest_m + 0.15, _DEEPEST_M))
        place = _place(drawn, scene.camera, far_m=far_m if places else answers.nearest_m)
        looks = islice(drawn, _DRAWN_LOOKS)
        if all(_apart(place, other) for other in places):
            places.append(place)
            solids.append(_solid(looks, place, answers))
        else:
            deque(looks, maxlen=0)  # the next object's numbers come after this one's
    return None


def _empty_scene(drawn: Iterator[float]) -> Scene:
    """Camera, light, ground and sky from random numbers."""
    camera = Camera(
        x_m=0.0,
        y_m=0.0,
        height_m=_between(next(drawn), (1.5, 3.0)),
        look_at_m=_between(next(drawn), (3.6, 6.0)),
        half_view=_between(next(drawn), (0.32, 0.58)),
        roll=_rotation(_between(next(drawn), (-_ROLL_HALF_TANGENT, _ROLL_HALF_TANGENT))),
    )
    light = (_between(next(drawn), (-0.9, 0.9)), _between(next(drawn), (-0.9, 0.3)), 1.0)
    return Scene(
        camera=camera,
        light=light,
        ambient=_between(next(drawn), (0.3, 0.5)),
        ground=_ground(drawn),
        sky=tuple(_between(next(drawn), (0.4, 0.9)) for _ in range(3)),
        solids=(),
    )


def _ground(drawn: Iterator[float]) -> Ground:
    first = tuple(_between(next(drawn), (0.3, 0.8)) for _ in range(3))
    contrast = _between(next(drawn), (0.05, 0.2))
    other = tuple(_between(next(drawn), (0.3, 0.8)) for _ in range(3))
    second = tuple(
        0.6 * (1 - contrast) * one + 0.8 * contrast * two for one, two in zip(first, other, strict=True)
    )
    return Ground(
        rgb=first,
        second_rgb=second,
        pattern=_GROUNDS[int(len(_GROUNDS) * next(drawn))],
        cell_m=_between(next(drawn), (0.35, 0.8)),
        offset=(100 + next(drawn), 100 + next(drawn)),
        turn=_rotation(next(drawn)),
        seed=int(2**31 * next(drawn)),
    )


def _place(drawn: Iterator[float], camera: Camera, *, far_m: float) -> _Place:
    """A place whose object's centre is `far_m` from the camera."""
    radius_m = _RADII_M[int(len(_RADII_M) * next(drawn))]
    sideways = _between(next(drawn), (-_SIDEWAYS, _SIDEWAYS))
    ground_m = math.sqrt(far_m**2 - (radius_m - camera.height_m) ** 2)
    forward_m = ground_m / math.sqrt(1 + sideways**2)
    return _Place(x_m=sideways * forward_m, y_m=forward_m, radius_m=radius_m)


def _solid(looks: Iterator[float], place: _Place, answers: _Answers) -> Solid:
    """The object at a place."""
    shape, color = divmod(answers.object_class, len(COLORS))
    rgb = tuple(
        min(max(channel + _between(next(looks), (-_SHADE, _SHADE)), 0.05), 0.95) for channel in _RGB[color]
    )
    return Solid(
        shape=SHAPES[shape],
        color=color,
        rgb=rgb,
        second_rgb=_second_color(rgb, is_dark=next(looks) < 0.5),
        pattern=answers.surface,
        cell_m=_between(next(looks), (0.32, 0.56)) * place.radius_m,
        tilt=_rotation(next(looks)),
        x_m=place.x_m,
        y_m=place.y_m,
        radius_m=place.radius_m,
        turn=_rotation(next(looks)),
    )


def _second_color(rgb: Color, *, is_dark: bool) -> Color:
    """A dark shade of a color, or about its complement."""
    return tuple(0.35 * channel if is_dark else 0.72 * (1 - channel) for channel in rgb)


def _apart(first: _Place, second: _Place) -> bool:
    reach = first.radius_m + second.radius_m + _GAP_M
    return (first.x_m - second.x_m) ** 2 + (first.y_m - second.y_m) ** 2 > reach**2


def _all_visible(scene: Scene) -> bool:
    seen_HW = solid_at_pixels(scene, _JUDGED_PX)
    least = MIN_VISIBLE_FRACTION * seen_HW.size
    counts = np.bincount(seen_HW.ravel() + 1, minlength=len(scene.solids) + 1)
    return bool((counts[1:] >= least).all())


def _between(fraction: float, bounds: tuple[float, float]) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * fraction


def _rotation(half_tangent: float) -> tuple[float, float]:
    """Cosine and sine of an angle from the tangent of its half; 1 stands for 90 degrees."""
    scale = 1 + half_tangent**2
    return (1 - half_tangent**2) / scale, 2 * half_tangent / scale
