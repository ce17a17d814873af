"""A plan notes settings that do not follow the model, the length of the run or the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from image_data import image_folder
from tiny_sweeps import tiny_config

from orchestrator.config import apply_overrides, default_config
from orchestrator.data import LabelInfo, Survey, pack_dataset, survey_source
from orchestrator.errors import ConfigError
from orchestrator.sweep.foresight.defaults import default_notes
from orchestrator.sweep.foresight.plan import describe_plan


def notes_of(survey: Survey | None = None, **overrides: Any) -> str:
    config = apply_overrides(
        default_config(), {key.replace("__", "."): value for key, value in overrides.items()}
    )
    return "\n".join(default_notes(config, survey or Survey(source="x", kind="tars")))


def surveyed(num_train: int, num_classes: int, **fields: Any) -> Survey:
    labels = {"class": LabelInfo(num_classes=num_classes)}
    return Survey(source="x", kind="folder", num_samples={"train": num_train}, labels=labels, **fields)


def test_defaults_that_all_follow_are_not_noted() -> None:
    assert notes_of() == ""
    assert notes_of(encoder__name="vit_huge_patch14_224") == ""
    assert notes_of(surveyed(100_000, 10, image_size_px=(375, 500))) == ""


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (
            {"encoder.name": "vit_huge_patch14_224", "encoder.patch_size_px": 16},
            "encoder is not vit_huge_patch14_224 as timm defines it: patch_size_px 16 for its 14",
        ),
        ({"encoder.name": "vit_base_patch16_384"}, "image_size_px 224 for its 384"),
        ({"encoder.image_size_px": [224, 160]}, "image_size_px 224 x 160 for its 224"),
        ({"encoder.depth": 6}, "depth 6 for its 12"),
        (
            {"encoder.name": "vit_tiny_patch16_224"},
            "predictor.width 384 is above the encoder's 192; published ones are narrower",
        ),
        (
            {"train.images": 50_000},
            "beyond train.images (50,000), so once, at the end: train.checkpoint_every_images (100,000)",
        ),
    ],
)
def test_what_does_not_follow_is_noted(overrides: dict[str, Any], note: str) -> None:
    assert note in notes_of(**{key.replace(".", "__"): value for key, value in overrides.items()})


def test_a_predictor_that_the_method_does_not_read_is_not_noted() -> None:
    assert "predictor" not in notes_of(encoder__name="vit_tiny_patch16_224", objective__name="mae")


@pytest.mark.parametrize(
    ("survey", "note"),
    [
        (surveyed(200, 2), "train.batch_size 256 is above the 200 training images"),
        (surveyed(300, 100), "probe.knn_neighbors 20 is above the 3 images a class of class"),
        (
            surveyed(9000, 2, image_size_px=(32, 48)),
            "images of 32 x 48 px (height and width, median of a few) are scaled up to 224 x 224",
        ),
    ],
)
def test_what_the_data_do_not_bear_is_noted(survey: Survey, note: str) -> None:
    assert note in notes_of(survey)


def test_a_plan_shows_the_notes(tmp_path: Path) -> None:
    images = image_folder(tmp_path / "images", classes=("ant", "bee"), images=30)
    config = tiny_config(tmp_path, data__source=str(images))
    text = describe_plan(config).text()
    assert "note: encoder is not vit_small_patch16_224 as timm defines it: patch_size_px 4 for its 16" in text
    assert "are scaled up to 32 x 32" in text


def test_the_size_of_images_is_that_of_the_folder_and_of_its_shards(tmp_path: Path) -> None:
    images = image_folder(tmp_path / "images", images=10)
    pack_dataset(str(images), str(tmp_path / "shards"))
    for source in ("images", "shards"):
        config = tiny_config(tmp_path, data__source=str(tmp_path / source))
        assert survey_source(config).image_size_px == (24, 24)


def test_a_swept_name_brings_its_own_patches() -> None:
    huge = apply_overrides(default_config(), {"encoder.name": "vit_huge_patch14_224"})
    assert huge.encoder.grid.num_patches == 256
    assert apply_overrides(huge, {"encoder.name": "vit_base_patch16_224"}).encoder.grid.num_patches == 196


def test_heads_of_the_table_are_checked_for_every_model() -> None:
    with pytest.raises(ConfigError, match=r"predictor\.width"):
        apply_overrides(default_config(), {"encoder.name": "vit_base_patch16_plus_240"})
