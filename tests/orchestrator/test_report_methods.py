"""The report of a sweep over methods: no findings about masks, every method over its cost with intervals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from sweep_records import entries, sweep_events, write_journal
from tiny_sweeps import Remembering

from orchestrator.config import apply_overrides, dump, load_config
from orchestrator.protocol.hours import ShareHours
from orchestrator.protocol.point import Point
from orchestrator.report import load_sweep, summarize
from orchestrator.report.page.document import PageContent, render_page
from orchestrator.report.page.plots import figures
from orchestrator.report.statistics.compute import training_flops_per_image
from orchestrator.report.statistics.gains import method_gains
from orchestrator.report.statistics.matched import compare
from orchestrator.report.statistics.trials import TrialSummary, group_geometries
from orchestrator.report.words.summary import Summary
from orchestrator.report.words.terms import MASKS, METHODS, SETTINGS, terms_of
from orchestrator.sweep.watch.follower import Follower
from orchestrator.tracking import MemoryTracker

CONFIG = load_config(Path(__file__).parents[2] / "sweeps" / "methods.yaml")


def methods_events() -> list[dict[str, Any]]:
    """The synthetic sweep with a method in place of each of its first seven geometries, under three seeds."""
    points = [each.set for each in CONFIG.sweep.points]
    events = []
    for event in sweep_events():
        place = int(event.get("trial_id", "t0")[1:], 16)
        if event["kind"] == "sweep_started":
            events.append(event | {"config": dump(CONFIG), "sweep_id": "methods-s", "name": "methods"})
        elif place < 3 * len(points):
            events.append(event | ({"point": points[place // 3]} if "point" in event else {}))
    return events


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = tmp_path_factory.mktemp("methods")
    config, record, _ = load_sweep(str(folder), write_journal(folder, methods_events()))
    return summarize(config, record)


def test_what_a_sweep_is_about_follows_from_what_it_varies() -> None:
    assert terms_of(["objective.name", "masks.target_scale"]) is METHODS
    assert terms_of(["optimizer.learning_rate", "masks.target_scale"]) is MASKS
    assert terms_of([]) is MASKS
    assert terms_of(["optimizer.learning_rate"]) is SETTINGS


def test_a_sweep_over_methods_has_no_surface_and_speaks_of_methods(summary: Summary) -> None:
    assert summary.findings is None
    page = render_page(PageContent(summary=summary, mask_pictures={}))
    for words in ("Method sweep methods-s", "Which method", "Which methods", "for comparing 7 methods"):
        assert words in page
    for words in ("masks that the model really saw", "geometries", "Response surface", "context are what"):
        assert words not in page


def test_every_method_is_drawn_over_its_cost_by_name_with_its_interval(summary: Summary) -> None:
    drawn = figures(summary)
    assert set(drawn) == {"progress", "cost", "surface", "curves", "hours"}
    for point in CONFIG.sweep.points:
        for name in ("progress", "cost", "surface"):
            assert f">{point.name}<" in drawn[name].svg, (point.name, name)
    assert drawn["progress"].svg.count("<title>") == len(CONFIG.sweep.points)
    assert re.search(r" % \(\d+\.\d to \d+\.\d\) after ", drawn["progress"].svg)


def test_methods_that_differ_in_keys_have_a_name_for_a_parameter() -> None:
    tracker = MemoryTracker()
    tracker.start_sweep("methods-s", "methods-s", {}, {})
    Follower(CONFIG, tracker, Remembering()).follow(entries(methods_events()))
    params = [run.params for key, run in tracker.runs.items() if key is not None]
    assert {each["sweep.point"] for each in params} == {point.name for point in CONFIG.sweep.points}
    assert params[0] == {"sweep.point": "I-JEPA", "train.seed": "0"}


def test_methods_are_probed_often_enough_to_be_compared_at_equal_flops() -> None:
    images = CONFIG.train.images
    probes = range(0, images + 1, CONFIG.probe.every_images or images)
    trials = [
        TrialSummary(
            trial_id=f"{point.name}{seed}",
            name=point.name,
            label=point.name,
            point=Point(point.set),
            seed=seed,
            state="finished",
            value=50.0,
            images=images,
            total_images=images,
            curve=dict.fromkeys(probes, 50.0),
            flops_per_image=training_flops_per_image(apply_overrides(CONFIG, point.set)),
        )
        for point in CONFIG.sweep.points
        for seed in (0, 1)
    ]
    found = compare(group_geometries(trials), CONFIG.sweep.metric, budgets=("FLOPs",))
    assert len(found) == 21
    assert [each.sentence() for each in found if each.word == "not measured"] == []


def measured_trial(name: str, seed: int, *, untrained: float, after: float, knn: float) -> TrialSummary:
    metrics = {
        "probe/linear/class": after,
        "baseline/untrained/linear/class": untrained,
        "probe/linear/count": 40.0,
        "baseline/untrained/linear/count": 40.0,
        "probe/knn/class": knn,
        "baseline/untrained/knn/class": 20.0,
        "probe/knn/count": 30.0,
    }
    return TrialSummary(
        trial_id=f"{name}{seed}",
        name=name,
        label=name,
        point=Point({"objective.name": name}),
        seed=seed,
        state="finished",
        value=after,
        images=1000,
        total_images=1000,
        metrics=metrics,
        share=ShareHours(gpu=0.5),
        flops_per_image=2e9,
    )


def test_a_gain_is_paired_by_seed_and_its_interval_is_students() -> None:
    befores, afters = (10.0, 50.0, 90.0), (13.0, 54.0, 95.0)
    trials = [
        measured_trial("mae", seed, untrained=before, after=after, knn=15.0)
        for seed, (before, after) in enumerate(zip(befores, afters, strict=True))
    ]
    (found,) = method_gains(group_geometries(trials))
    gain = found.gains["linear"]["class"]
    expected = stats.ttest_rel(afters, befores).confidence_interval(0.95)
    assert (gain.points, gain.interval.low, gain.interval.high) == pytest.approx(
        (4.0, expected.low, expected.high)
    )
    assert (gain.untrained, gain.accuracy) == pytest.approx((50.0, 54.0))
    assert found.gains["linear"]["count"].points == 0
    assert found.gains["knn"]["class"].interval.high == -5.0
    assert list(found.gains["knn"]) == ["class"]  # nobody measured the other one's baseline
    assert found.shown == ("class",)
    assert (found.images, found.flops_per_image, found.device_hours) == (1000, 2e9, 0.5)


def test_one_seed_shows_no_gain() -> None:
    trial = measured_trial("mae", 0, untrained=10.0, after=90.0, knn=80.0)
    (found,) = method_gains(group_geometries([trial]))
    assert found.gains["linear"]["class"].points == 80
    assert found.shown == ()


def test_the_page_and_the_summary_show_gains_with_their_cost(summary: Summary) -> None:
    page = render_page(PageContent(summary=summary))
    table = page[page.index("Gain over the untrained encoder") : page.index("At equal compute")]
    gain = summary.gains[0].gains["linear"]["class"]
    assert gain.is_shown
    assert f"<b>{gain.points:+.1f} ({gain.interval.bounds('+.1f')})</b>" in table
    for words in ("class (untrained 29.0)", "GFLOP an image", "GPU h a trial"):
        assert words in table
    data = json.loads(json.dumps(summary.to_json(), allow_nan=False))["gains"]
    assert [each["name"] for each in data] == [each.name for each in summary.gains]
    told = data[0]["gains"]["linear"]["class"]
    assert (told["points"], told["low"], told["high"], told["level"]) == (
        gain.points,
        gain.interval.low,
        gain.interval.high,
        0.95,
    )
    assert data[0]["shown"] == ["class", "count", "distance"]
