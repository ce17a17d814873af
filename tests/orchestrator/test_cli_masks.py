from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from image_data import image_folder
from PIL import Image

SWEEP = """
name: try
data: {{source: {source}, cache_dir: {cache}}}
encoder: {{name: vit_tiny_patch16_224, image_size_px: 64, patch_size_px: 8}}
sweep:
  space:
    masks.target_scale: {{choices: [[0.1, 0.15], [0.2, 0.25]]}}
    masks.context_scale: {{choices: [[0.7, 0.8], [0.85, 1.0]]}}
"""


@pytest.fixture
def run(command, tmp_path):
    """Run a command on a sweep over four geometries of a folder of images."""
    source = image_folder(tmp_path / "images", images=8)
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.format(source=source, cache=tmp_path / "cache"))
    return lambda *arguments: command(*[str(file) if each == "FILE" else each for each in arguments])


def test_an_audit_prints_a_table_and_writes_a_page_of_its_own(run, tmp_path):
    done = run("masks", "audit", "FILE", "--out", str(tmp_path / "out"))
    rows = [line for line in done.out.splitlines() if line.startswith("target scale 0.")]
    assert done.code == 0
    assert len(rows) == 4
    page = (tmp_path / "out" / "audit.html").read_text()
    HTMLParser().feed(page)
    assert page.count("data:image/png;base64") == 8
    assert "http" not in page
    assert len(json.loads((tmp_path / "out" / "audit.json").read_text())["geometries"]) == 4


def test_the_audit_of_one_geometry_shows_its_coverage_here(run, tmp_path):
    done = run("masks", "audit", "FILE", "--set", "sweep.space={}", "--out", str(tmp_path / "out"))
    digits = [line for line in done.out.splitlines() if line.replace(" ", "").isdigit()]
    assert len(digits) == 8
    assert all(len(line.split()) == 16 for line in digits)


def test_a_preview_draws_every_geometry_on_images_of_the_data(run, tmp_path):
    done = run(
        "masks", "preview", "FILE", "--out", str(tmp_path / "out"), "--most", "3", "--images", "2", "--json"
    )
    data = json.loads(done.out)
    assert data["geometries_left_out"] == 1
    assert len(data["pictures"]) == 3
    assert all(Image.open(path).width > 200 for path in data["pictures"])


def test_a_folder_that_cannot_be_written_is_an_error_of_storage(run, tmp_path):
    Path(tmp_path, "taken").write_bytes(b"")
    done = run("masks", "audit", "FILE", "--out", str(tmp_path / "taken" / "below"))
    assert done.code == 4
    assert "choose another --out" in done.err


def test_a_geometry_that_cannot_be_sampled_is_refused_with_the_nearest_that_can(run):
    done = run("masks", "audit", "FILE", "--set", "masks.context_keep=0.9", "--set", "sweep.space={}")
    assert done.code == 2
    assert "masks.context_keep" in done.err
    assert "try context_keep: 0.8" in done.err


def test_plan_prints_trials_data_cost_and_checkpoints_and_writes_nothing(run, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = run("plan", "FILE")
    assert done.code == 0
    for part in ("4 trials by grid search", "packed on first use", "PFLOP of training", "kept a trial"):
        assert part in done.out
    assert sorted(tmp_path.rglob("*")) == before


def test_plan_and_dry_run_are_the_same_description(run):
    plan, dry = run("plan", "FILE", "--json").out, run("sweep", "FILE", "--dry-run", "--json").out
    assert json.loads(plan) == json.loads(dry)
    assert len(json.loads(plan)["trials"]) == 4
