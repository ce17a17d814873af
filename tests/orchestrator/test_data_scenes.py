import hashlib

import numpy as np
import pytest

from orchestrator.config.models import DataConfig
from orchestrator.data.pack.sources import ScenesSource
from orchestrator.data.scenes.raycast import Camera, Ground, Scene, Solid, render, solid_at_pixels
from orchestrator.data.scenes.scenes import (
    CLASS_NAMES,
    COLORS,
    MAX_OBJECTS,
    MIN_VISIBLE_FRACTION,
    NEAREST_M,
    SCENE_LABELS,
    SURFACES,
    amounts_of,
    build_scene,
    distance_m,
    labels_of,
    render_scene,
)
from orchestrator.data.scenes.textures import noise, share_of_second_color

NUM_SCENES = 600


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [build_scene(0, index) for index in range(NUM_SCENES)]


def lone(shape: str, *, y_m: float = 6.0, roll: tuple[float, float] = (1.0, 0.0)) -> Scene:
    """One red solid of 1 m straight ahead, lit from above, on plain grey ground."""
    solid = Solid(
        shape=shape,  # type: ignore[arg-type]
        color=0,
        rgb=(1.0, 0.0, 0.0),
        second_rgb=(0.0, 0.0, 1.0),
        pattern="plain",
        cell_m=0.5,
        tilt=(1.0, 0.0),
        x_m=0.0,
        y_m=y_m,
        radius_m=1.0,
        turn=(1.0, 0.0),
    )
    return Scene(
        camera=Camera(x_m=0.0, y_m=0.0, height_m=3.0, look_at_m=7.0, half_view=0.4, roll=roll),
        light=(0.0, 0.0, 1.0),
        ambient=0.3,
        ground=Ground(
            rgb=(0.5, 0.5, 0.5),
            second_rgb=(0.5, 0.5, 0.5),
            pattern="plain",
            cell_m=1.0,
            offset=(0.0, 0.0),
            turn=(1.0, 0.0),
            seed=0,
        ),
        sky=(0.2, 0.4, 0.8),
        solids=(solid,),
    )


def test_a_scene_is_a_function_of_seed_and_number() -> None:
    pixels, labels = render_scene(3, 7, 48)
    again, same_labels = render_scene(3, 7, 48)
    assert pixels.shape == (48, 48, 3)
    assert np.array_equal(pixels, again)
    assert labels == same_labels
    assert not np.array_equal(pixels, render_scene(4, 7, 48)[0])
    assert not np.array_equal(pixels, render_scene(3, 8, 48)[0])


def test_pixels_are_the_same_on_every_platform() -> None:
    hashed = hashlib.sha256()
    for index in range(40):
        hashed.update(render_scene(0, index, 48)[0].tobytes())
    assert hashed.hexdigest() == "e17042b0528115aeaed8dc656acdc18c25b0ec07dd3cbd020aefe48ce9105b7f"


def test_labels_do_not_depend_on_the_image_size() -> None:
    assert [render_scene(0, index, 24)[1] for index in range(20)] == [
        render_scene(0, index, 96)[1] for index in range(20)
    ]


def test_class_and_surface_are_those_of_every_object(scenes: list[Scene]) -> None:
    for scene in scenes[:200]:
        labels = labels_of(scene)
        named = {f"{list(COLORS)[solid.color]} {solid.shape}" for solid in scene.solids}
        assert named == {CLASS_NAMES[labels["class"]]}
        assert {solid.pattern for solid in scene.solids} == {SURFACES[labels["surface"]]}


def test_plain_objects_are_drawn_in_a_shade_of_their_color(scenes: list[Scene]) -> None:
    plain = [(index, scene) for index, scene in enumerate(scenes[:120]) if scene.solids[0].pattern == "plain"]
    assert len(plain) > 20
    for index, scene in plain:
        seen = render_scene(0, index, 64)[0][solid_at_pixels(scene, 64) == 0].astype(int)
        expected = np.array(COLORS[CLASS_NAMES[labels_of(scene)["class"]].split()[0]])
        shown = seen.mean(axis=0) / np.linalg.norm(seen.mean(axis=0))
        assert shown @ expected / np.linalg.norm(expected) > 0.95


def test_striped_and_checked_objects_show_their_second_color(scenes: list[Scene]) -> None:
    for index, scene in enumerate(scenes[:60]):
        nearest = scene.solids[0]
        seen = render_scene(0, index, 64)[0][solid_at_pixels(scene, 64) == 0].astype(float)
        first, second = np.array(nearest.rgb), np.array(nearest.second_rgb)
        hue = seen / np.linalg.norm(seen, axis=1, keepdims=True).clip(1)
        if first @ second < 0.9 * np.linalg.norm(first) * np.linalg.norm(second):  # else the same hue, darker
            is_second = hue @ (second / np.linalg.norm(second)) > hue @ (first / np.linalg.norm(first))
            assert is_second.any() == (nearest.pattern != "plain")


def test_count_is_the_number_of_objects_that_can_be_seen(scenes: list[Scene]) -> None:
    for scene in scenes[:200]:
        areas = np.bincount(solid_at_pixels(scene, 64).ravel() + 1)[1:] / 64**2
        assert np.count_nonzero(areas > MIN_VISIBLE_FRACTION / 2) == labels_of(scene)["count"] + 1


def test_distance_is_the_bin_of_the_nearest_object(scenes: list[Scene]) -> None:
    width_m = (NEAREST_M[1] - NEAREST_M[0]) / len(SCENE_LABELS["distance"])
    for scene in scenes[:200]:
        found_m = min(distance_m(scene.camera, solid) for solid in scene.solids)
        low_m = NEAREST_M[0] + width_m * labels_of(scene)["distance"]
        assert low_m - 1e-6 <= found_m <= low_m + width_m + 1e-6
        assert amounts_of(scene) == {"distance_m": pytest.approx(found_m, abs=5e-4)}


def test_objects_do_not_touch(scenes: list[Scene]) -> None:
    for scene in scenes[:200]:
        for number, solid in enumerate(scene.solids):
            for other in scene.solids[:number]:
                gap_m = np.hypot(solid.x_m - other.x_m, solid.y_m - other.y_m)
                assert gap_m > solid.radius_m + other.radius_m


@pytest.mark.parametrize("label", SCENE_LABELS)
def test_every_answer_is_about_as_frequent_as_the_others(label: str, scenes: list[Scene]) -> None:
    num_classes = len(SCENE_LABELS[label])
    counts = np.bincount([labels_of(scene)[label] for scene in scenes], minlength=num_classes)
    expected = NUM_SCENES / num_classes
    assert (((counts - expected) ** 2 / expected).sum()) < 3 * num_classes + 10


def test_answers_tell_nothing_about_each_other(scenes: list[Scene]) -> None:
    found = np.array([[labels_of(scene)[name] for name in ("count", "distance")] for scene in scenes])
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.12


@pytest.mark.parametrize("shape", ["sphere", "box", "cylinder"])
def test_a_solid_covers_its_projection(shape: str) -> None:
    seen = solid_at_pixels(lone(shape), 96) == 0
    rows, columns = np.nonzero(seen)
    assert abs((columns.min() + columns.max()) / 2 - 47.5) <= 1
    half_m = 1.0 if shape == "sphere" else 0.85
    expected_px = 96 * half_m / (0.4 * np.hypot(6.0, 2.0))
    assert columns.max() - columns.min() == pytest.approx(expected_px, rel=0.2)
    assert rows.max() - rows.min() > expected_px * 0.8


def test_a_farther_object_is_hidden_by_a_nearer_one() -> None:
    scene = lone("box")
    hidden = scene.with_solids((lone("box", y_m=9.0).solids[0], scene.solids[0]))
    assert (solid_at_pixels(hidden, 64) == 0).sum() < (solid_at_pixels(hidden, 64) == 1).sum() / 3


def test_an_object_throws_a_shadow_on_the_ground() -> None:
    empty, full = render(lone("box").with_solids(()), 64), render(lone("sphere"), 64)
    ground = solid_at_pixels(lone("sphere"), 64) < 0
    darker = (full[ground].astype(int).sum(axis=1) < empty[ground].astype(int).sum(axis=1) - 60).sum()
    assert 20 < darker < 1000


def test_a_rolled_camera_turns_the_picture() -> None:
    upright, quarter = (solid_at_pixels(lone("sphere", roll=roll), 64) for roll in ((1.0, 0.0), (0.0, 1.0)))
    assert np.array_equal(np.rot90(upright), quarter) or np.array_equal(np.rot90(upright, -1), quarter)


def test_patterns_have_the_size_of_their_cells() -> None:
    x_P, zero_P = np.arange(8, dtype=np.float32) / 2, np.zeros(8, dtype=np.float32)
    stripes_P = share_of_second_color("striped", x_P, zero_P, zero_P, seed=0)
    assert stripes_P.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    checks_P = share_of_second_color("checked", x_P, zero_P + 1, zero_P, seed=0)
    assert checks_P.tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert share_of_second_color("plain", x_P, zero_P, zero_P, seed=0).tolist() == [0] * 8


def test_noise_is_smooth_and_fills_its_range() -> None:
    x_P, y_P = (axis.ravel().astype(np.float32) / 8 for axis in np.meshgrid(range(160), range(160)))
    noise_HW = noise(x_P - 10, y_P - 10, seed=4).reshape(160, 160)
    assert noise_HW.dtype == np.float32
    assert 0 <= noise_HW.min() < 0.05
    assert 0.95 < noise_HW.max() <= 1
    assert np.abs(np.diff(noise_HW, axis=0)).max() < 0.2
    assert abs(noise_HW.mean() - 0.5) < 0.05
    assert not np.allclose(noise_HW.ravel(), noise(x_P - 10, y_P - 10, seed=5))


def test_more_objects_than_fit_are_never_asked_for() -> None:
    counts = {len(build_scene(9, index).solids) for index in range(60)}
    assert counts == set(range(1, MAX_OBJECTS + 1))


def test_the_number_of_rendering_processes_changes_nothing() -> None:
    data = DataConfig(scenes_train_images=160, scenes_test_images=100, scenes_image_size_px=16)
    alone, together = (ScenesSource(data=data, processes=number) for number in (1, 2))
    assert [load() for load in alone.samples("train")] == [load() for load in together.samples("train")]
    assert [load() for load in together.samples("train", 60)] == [load() for load in alone.samples("train")][
        60:
    ]
