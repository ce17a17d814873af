"""Casting rays at spheres, boxes and cylinders on a patterned ground: pixels of a scene, with NumPy alone.

Every operation is elementwise and rounded exactly by IEEE 754 (add, multiply, divide, square root, comparisons), so
the same scene gives the same bytes on every platform and with every NumPy. Axes: x right, y forward, z up, in metres.

Shape suffixes: P rays (pixels, row by row).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.read import hash_of
from orchestrator.data.scenes.textures import Floats, Pattern, noise, share_of_second_color

Vector = tuple[Floats, Floats, Floats]
Shape = Literal["sphere", "box", "cylinder"]

SHAPES: tuple[Shape, ...] = ("sphere", "box", "cylinder")
_FLAT_SIDE = 0.85
_TINY = np.float32(1e-7)
_LIFT_M = np.float32(2e-3)
_HAZE_FROM_M, _HAZE_TO_M = np.float32(11.0), np.float32(30.0)
_FADE_FROM_M, _FADE_M, _LEAST_CONTRAST = np.float32(7.0), np.float32(14.0), np.float32(0.15)
_MOTTLE_CELLS, _MOTTLE_SEED = np.float32(0.15), 1
_CLOUDS_ACROSS, _CLOUDS_UP = np.float32(6.0), np.float32(14.0)
_FAR = np.float32(np.inf)

Color = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where the picture is taken from: looking forward at a point of the ground.

    `half_view` is the tangent of half the angle of view; `roll` (cosine, sine) turns the picture.
    """

    x_m: float
    y_m: float
    height_m: float
    look_at_m: float
    half_view: float
    roll: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Solid:
    """An object on the ground; boxes and cylinders have sides of 0.85 `radius_m`; `turn` is (cosine, sine).

    Its pattern shows `second_rgb` on `rgb`, in cells of `cell_m`, tilted to one side by `tilt` (cosine, sine).
    """

    shape: Shape
    color: int
    rgb: Color
    second_rgb: Color
    pattern: Pattern
    cell_m: float
    tilt: tuple[float, float]
    x_m: float
    y_m: float
    radius_m: float
    turn: tuple[float, float]

    @property
    def half_m(self) -> float:
        """Half of its height."""
        return self.radius_m if self.shape == "sphere" else _FLAT_SIDE * self.radius_m


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A pattern of two colours without end, in cells of `cell_m`; `seed` decides its noise."""

    rgb: Color
    second_rgb: Color
    pattern: Pattern
    cell_m: float
    offset: tuple[float, float]
    turn: tuple[float, float]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that decides a picture."""

    camera: Camera
    light: tuple[float, float, float]
    ambient: float
    ground: Ground
    sky: Color
    solids: tuple[Solid, ...]

    def with_solids(self, solids: tuple[Solid, ...]) -> Scene:
        """The same scene with these objects."""
        return replace(self, solids=solids)


def render(scene: Scene, image_size_px: int) -> NDArray[np.uint8]:
    """The picture [H, W, 3]."""
    origin, direction = _camera_rays(scene.camera, image_size_px)
    depth_P, owner_P = _first_hits(scene, origin, direction)
    ground_P = _ground_depth(origin, direction)
    depth_P = np.where(owner_P < 0, ground_P, depth_P)
    is_sky_P = depth_P == _FAR
    depth_P[is_sky_P] = 1
    point = _along(origin, direction, depth_P)
    normal = _upward(depth_P)
    color = _ground_color(scene.ground, point, depth_P)
    for number, solid in enumerate(scene.solids):
        mine = np.flatnonzero(owner_P == number)
        there = (point[0][mine], point[1][mine], point[2][mine])
        for whole, part in zip(
            (*normal, *color), (*_normals(solid, there), *_solid_color(solid, there)), strict=True
        ):
            whole[mine] = part
    light_P = _lighting(scene, point, normal)
    haze_P = np.clip((depth_P - _HAZE_FROM_M) / (_HAZE_TO_M - _HAZE_FROM_M), 0, 1)
    haze_P[owner_P >= 0] = 0
    haze_P[is_sky_P] = 1
    clouds_P = _clouds(scene.ground.seed, direction)
    mixed = [
        channel_P * light_P * (1 - haze_P) + np.float32(sky) * clouds_P * haze_P
        for channel_P, sky in zip(color, scene.sky, strict=True)
    ]
    scaled_P3 = np.rint(np.clip(np.stack(mixed, axis=1), 0, 1) * np.float32(255))
    pixels_P3: NDArray[np.uint8] = scaled_P3.astype(np.uint8)
    return pixels_P3.reshape(image_size_px, image_size_px, 3)


def solid_at_pixels(scene: Scene, image_size_px: int) -> NDArray[np.int64]:
    """Which object each pixel [H, W] shows, by its place in `scene.solids`; -1 for none."""
    origin, direction = _camera_rays(scene.camera, image_size_px)
    return _first_hits(scene, origin, direction)[1].reshape(image_size_px, image_size_px)


def _camera_rays(camera: Camera, side_px: int) -> tuple[Vector, Vector]:
    """The camera's place, and directions of length 1 through the centres of the pixels."""
    length = math.sqrt(camera.look_at_m**2 + camera.height_m**2)
    forward_y = np.float32(camera.look_at_m / length)
    forward_z = np.float32(-camera.height_m / length)
    half = np.float32(camera.half_view)
    steps = (2 * np.arange(side_px, dtype=np.float32) + 1) / np.float32(side_px) - 1
    column_P, row_P = np.tile(steps * half, side_px), np.repeat(-steps * half, side_px)
    across_P, upward_P = _rotated(column_P, row_P, (camera.roll[0], -camera.roll[1]))
    y_P = forward_y - upward_P * forward_z
    z_P = forward_z + upward_P * forward_y
    norm_P = np.sqrt(across_P * across_P + y_P * y_P + z_P * z_P)
    return _vector(camera.x_m, camera.y_m, camera.height_m), (across_P / norm_P, y_P / norm_P, z_P / norm_P)


def _vector(x: float, y: float, z: float) -> Vector:
    """One vector for all rays."""
    x_1, y_1, z_1 = (np.array([value], dtype=np.float32) for value in (x, y, z))
    return x_1, y_1, z_1


def _along(origin: Vector, direction: Vector, depth_P: Floats) -> Vector:
    x_P, y_P, z_P = (start + step * depth_P for start, step in zip(origin, direction, strict=True))
    return x_P, y_P, z_P


def _ground_depth(origin: Vector, direction: Vector) -> Floats:
    """Distance of the ground; infinite above the horizon."""
    down_P = np.minimum(direction[2], -_TINY)
    return np.where(direction[2] < -_TINY, -origin[2] / down_P, _FAR)


def _first_hits(scene: Scene, origin: Vector, direction: Vector) -> tuple[Floats, NDArray[np.int64]]:
    """Distance of the first object along each ray, and which it is; infinite and -1 for none."""
    depth_P = np.full(direction[0].shape, _FAR)
    owner_P = np.full(direction[0].shape, -1, dtype=np.int64)
    for number, solid in enumerate(scene.solids):
        found_P = _hit(solid, origin, direction)
        owner_P[found_P < depth_P] = number
        depth_P = np.minimum(found_P, depth_P)
    return depth_P, owner_P


def _hit(solid: Solid, origin: Vector, direction: Vector) -> Floats:
    """Distance along each ray at which it enters a solid; infinite where it passes or starts inside."""
    start, step = _local(solid, origin), _turned(solid, direction)
    enter_P, leave_P = _SPANS[solid.shape](np.float32(solid.half_m), start, step)
    return np.where((enter_P < leave_P) & (enter_P > 0), enter_P, _FAR)


def _sphere_span(half: np.float32, start: Vector, step: Vector) -> tuple[Floats, Floats]:
    middle_P: Floats = -(start[0] * step[0] + start[1] * step[1] + start[2] * step[2])
    excess_P: Floats = start[0] * start[0] + start[1] * start[1] + start[2] * start[2] - half * half
    under_P = middle_P * middle_P - excess_P
    root_P: Floats = np.sqrt(np.maximum(under_P, 0))
    enter_P: Floats = np.where(under_P > 0, middle_P - root_P, _FAR)
    return enter_P, middle_P + root_P


def _box_span(half: np.float32, start: Vector, step: Vector) -> tuple[Floats, Floats]:
    spans = [_slab(half, start[axis], step[axis]) for axis in range(3)]
    enter_P = np.maximum(np.maximum(spans[0][0], spans[1][0]), spans[2][0])
    return enter_P, np.minimum(np.minimum(spans[0][1], spans[1][1]), spans[2][1])


def _cylinder_span(half: np.float32, start: Vector, step: Vector) -> tuple[Floats, Floats]:
    across_P = np.maximum(step[0] * step[0] + step[1] * step[1], _TINY)
    middle_P = -(start[0] * step[0] + start[1] * step[1]) / across_P
    excess_P = (start[0] * start[0] + start[1] * start[1] - half * half) / across_P
    under_P = middle_P * middle_P - excess_P
    root_P = np.sqrt(np.maximum(under_P, 0))
    low_P, high_P = _slab(half, start[2], step[2])
    enter_P = np.where(under_P > 0, np.maximum(middle_P - root_P, low_P), _FAR)
    return enter_P, np.minimum(middle_P + root_P, high_P)


_SPANS = {"sphere": _sphere_span, "box": _box_span, "cylinder": _cylinder_span}


def _slab(half: np.float32, start_P: Floats, step_P: Floats) -> tuple[Floats, Floats]:
    """Where rays enter and leave the space between two planes at -half and +half."""
    safe_P: Floats = np.where(np.abs(step_P) < _TINY, _TINY, step_P)
    middle_P: Floats = -start_P / safe_P
    reach_P: Floats = np.abs(half / safe_P)
    return middle_P - reach_P, middle_P + reach_P


def _local(solid: Solid, point: Vector) -> Vector:
    """Points in a solid's own axes, seen from its centre."""
    return _turned(
        solid,
        (
            point[0] - np.float32(solid.x_m),
            point[1] - np.float32(solid.y_m),
            point[2] - np.float32(solid.half_m),
        ),
    )


def _turned(solid: Solid, vector: Vector) -> Vector:
    """Vectors in a solid's own axes; only a box has a side that faces somewhere."""
    if solid.shape != "box":
        return vector
    return *_rotated(vector[0], vector[1], solid.turn), vector[2]


def _rotated(x_P: Floats, y_P: Floats, turn: tuple[float, float]) -> tuple[Floats, Floats]:
    """Points of a plane in axes that are turned by an angle, given as (cosine, sine)."""
    cosine, sine = (np.float32(value) for value in turn)
    return cosine * x_P + sine * y_P, cosine * y_P - sine * x_P


def _normals(solid: Solid, point: Vector) -> Vector:
    """Outward normals at points of a solid's surface."""
    x_P, y_P, z_P = _local(solid, point)
    half = np.float32(solid.half_m)
    if solid.shape == "sphere":
        return x_P / half, y_P / half, z_P / half
    if solid.shape == "cylinder":
        on_side_P = np.sqrt(x_P * x_P + y_P * y_P) > np.abs(z_P)
        return (
            np.where(on_side_P, x_P / half, 0),
            np.where(on_side_P, y_P / half, 0),
            np.where(on_side_P, 0, np.sign(z_P)),
        )
    far_P = np.maximum(np.maximum(np.abs(x_P), np.abs(y_P)), np.abs(z_P))
    x_P, y_P, z_P = (np.where(np.abs(value) == far_P, np.sign(value), 0) for value in (x_P, y_P, z_P))
    cosine, sine = (np.float32(value) for value in solid.turn)
    return cosine * x_P - sine * y_P, sine * x_P + cosine * y_P, z_P


def _upward(like_P: Floats) -> Vector:
    """The normals of the ground."""
    return np.zeros_like(like_P), np.zeros_like(like_P), np.ones_like(like_P)


def _ground_color(ground: Ground, point: Vector, depth_P: Floats) -> Vector:
    """Colours of the ground: a pattern that loses contrast with distance, on light and dark patches."""
    cell = np.float32(ground.cell_m)
    x_P, y_P = _rotated(point[0], point[1], ground.turn)
    x_P, y_P = x_P / cell + np.float32(ground.offset[0]), y_P / cell + np.float32(ground.offset[1])
    second_P = share_of_second_color(ground.pattern, x_P, y_P, np.zeros_like(x_P), seed=ground.seed)
    contrast_P = np.clip(1 - (depth_P - _FADE_FROM_M) / _FADE_M, _LEAST_CONTRAST, 1)
    mottle_P = noise(_MOTTLE_CELLS * x_P, _MOTTLE_CELLS * y_P, seed=hash_of(_MOTTLE_SEED, ground.seed))
    half = np.float32(0.5)
    red_P, green_P, blue_P = (
        color_P * (1 - half * half + half * mottle_P)
        for color_P in _mixed(ground.rgb, ground.second_rgb, half + (second_P - half) * contrast_P)
    )
    return red_P, green_P, blue_P


def _solid_color(solid: Solid, point: Vector) -> Vector:
    """Colours at points of a solid's surface."""
    x_P, y_P, z_P = (axis_P / np.float32(solid.cell_m) for axis_P in _local(solid, point))
    x_P, z_P = _rotated(x_P, z_P, solid.tilt)
    second_P = share_of_second_color(solid.pattern, x_P, y_P, z_P, seed=0)
    return _mixed(solid.rgb, solid.second_rgb, second_P)


def _mixed(first: Color, second: Color, share_P: Floats) -> Vector:
    red_P, green_P, blue_P = (
        (1 - share_P) * np.float32(one) + share_P * np.float32(other)
        for one, other in zip(first, second, strict=True)
    )
    return red_P, green_P, blue_P


def _clouds(seed: int, direction: Vector) -> Floats:
    """Brightness of the sky, from 0.8 to 1.2."""
    seen_P = noise(_CLOUDS_ACROSS * direction[0], _CLOUDS_UP * direction[2], seed=seed)
    return np.float32(0.8) + np.float32(0.4) * seen_P


def _lighting(scene: Scene, point: Vector, normal: Vector) -> Floats:
    """Brightness of points: ambient light, and the lamp's where it shines on them and nothing stands between."""
    norm = math.sqrt(sum(value**2 for value in scene.light))
    lamp = _vector(*(value / norm for value in scene.light))
    facing_P = np.maximum(normal[0] * lamp[0] + normal[1] * lamp[1] + normal[2] * lamp[2], 0)
    lifted = _along(point, normal, np.full_like(facing_P, _LIFT_M))
    everywhere = (
        np.broadcast_to(lamp[0], facing_P.shape),
        np.broadcast_to(lamp[1], facing_P.shape),
        np.broadcast_to(lamp[2], facing_P.shape),
    )
    blocked_P = _first_hits(scene, lifted, everywhere)[1] >= 0
    ambient = np.float32(scene.ambient)
    return ambient + (np.float32(1.15) - ambient) * np.where(blocked_P, 0, facing_P)
