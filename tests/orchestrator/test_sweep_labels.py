"""A sweep without the labels that it is ranked by is refused before anything is spent, and a plan says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from image_data import image_folder
from tiny_sweeps import Remembering, tiny_config

from orchestrator.data import LabelInfo
from orchestrator.errors import DataError
from orchestrator.sweep.foresight.plan import describe_plan
from orchestrator.sweep.run.driver import SweepRequest, run_sweep
from orchestrator.sweep.run.labels import check_labels

SPACE = {"masks.num_target_blocks": {"choices": [1, 2]}}


def unlabelled(folder: Path, **overrides: Any) -> Any:
    images = image_folder(folder / "images") / "ant"
    return tiny_config(folder, data__source=str(images), **overrides)


def test_a_sweep_over_images_without_labels_is_refused_before_they_are_packed(tmp_path: Path) -> None:
    config = unlabelled(tmp_path, sweep__space=SPACE)
    with pytest.raises(DataError, match=r"the images have no labels.*`orchestrator train`"):
        run_sweep(SweepRequest(config=config, observer=Remembering(), sweep_id="s"))
    left = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert left == ["check.lock"]  # of the check that the cache can be written


def test_one_configuration_may_be_trained_without_labels(tmp_path: Path) -> None:
    config = unlabelled(tmp_path)
    check_labels(config, {})
    assert "nothing is probed" in describe_plan(config).notes[0]


@pytest.mark.parametrize("overrides", [{"probe__labels": ["colour"]}, {"sweep__metric": "probe/knn/colour"}])
def test_a_label_that_the_data_lack_is_named_beside_those_there_are(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    config = tiny_config(tmp_path, sweep__space=SPACE, **overrides)
    with pytest.raises(DataError, match=r"has no label colour .*there are: class, count"):
        check_labels(config, {name: LabelInfo(num_classes=3) for name in ("class", "count")})


def test_a_plan_says_when_fewer_images_are_there_than_the_probe_asks_for(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, probe__test_images=3000)
    notes = "\n".join(describe_plan(config).notes)
    assert "images and probe.test_images asks for 3,000" in notes
    assert "probe.train_images" not in notes
