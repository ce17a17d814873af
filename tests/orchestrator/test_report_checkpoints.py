"""What is said of a sweep whose best trial was highest before its end: as picked, and never in the ranking."""

import json
import math

import pytest
from sweep_records import record_of, sweep_events, write_journal

from orchestrator.config import default_config
from orchestrator.protocol.events import Entry, GenerationDecided, WeightsTaken
from orchestrator.protocol.point import Point
from orchestrator.protocol.reports import BestCheckpoint
from orchestrator.report import load_sweep, recommend, summarize
from orchestrator.report.page.document import PageContent, render_page
from orchestrator.report.statistics.checkpoints import ProbeCurve, probe_curve
from orchestrator.sweep.core.fold import apply
from orchestrator.sweep.core.record import Takeover, TrialRecord

METRIC = "probe/linear/mean"
PEAK = 90.0
BEST = {"name": "best/step-0000000200", "images": 20_000, "value": PEAK}


def peaked_events(trial_id):
    """The sweep whose trial was probed at 90 % after 20,000 of its 40,000 images; its end is as it was."""
    events = sweep_events()
    for event in events:
        if event["kind"] == "report" and event["trial_id"] == trial_id and event["images"] >= 20_000:
            event["best"] = BEST
            if event["images"] == 20_000:
                event["rows"][0]["metrics"] |= {METRIC: PEAK}
    return events


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs with a sweep, its configuration, and the trial that it recommends."""
    config, record, _ = load_sweep(
        str(folder := tmp_path_factory.mktemp("plain")), write_journal(folder, sweep_events())
    )
    trial_id = recommend(summarize(config, record)).trial.trial_id
    folder = tmp_path_factory.mktemp("peaked")
    return folder, write_journal(folder, peaked_events(trial_id)), config, trial_id


@pytest.fixture
def cli(command, runs):
    return lambda *arguments: command(*arguments, "--runs", str(runs[0]))


@pytest.fixture(scope="module")
def summary(runs):
    folder, sweep_id, _, _ = runs
    config, record, _ = load_sweep(str(folder), sweep_id)
    return summarize(config, record)


def test_a_peak_moves_nothing_in_the_verdict(runs, summary):
    plain = summarize(runs[2], record_of(sweep_events()))
    assert summary.lines() == plain.lines()
    assert [each.mean for each in summary.verdict.ranking] == [each.mean for each in plain.verdict.ranking]
    equal_images = [each for each in summary.matched if each.budget == "images"]
    assert equal_images == [each for each in plain.matched if each.budget == "images"]


def test_best_names_the_checkpoint_and_marks_its_figure_as_picked(cli, runs):
    _, sweep_id, _, trial_id = runs
    text = cli("best", sweep_id).out
    assert (
        "best checkpoint: best/step-0000000200, after 20,000 of 40,000 images, probe/linear/mean 90.0 %, picked as the "
        "highest of 4 probes since warm-up, so it reads high; " in text
    )
    assert f"orchestrator export {sweep_id}/{trial_id}" in text
    told = json.loads(cli("best", sweep_id, "--json").out)
    assert told["best_checkpoint"] | BEST | {"picked": True, "num_probes": 4} == told["best_checkpoint"]
    assert told["mean"] < PEAK


def test_a_long_run_is_told_that_the_trials_curve_peaked_and_that_weights_are_not_taken_over(cli, runs):
    said = cli("train", "--from-best", runs[1], "--dry-run", "--set", "train.images=400000").err
    assert "Settings are taken over and no weights: it begins untrained." in said
    assert "picked as the highest of 4 probes" in said
    assert "peaked after 20,000 of 40,000 images with 90.0 % (picked of 4 probes) and came to" in said


def test_the_summary_says_which_curve_fell_furthest(summary):
    lines = summary.peak_lines()
    assert lines[0].startswith("1 of 59 curves peaked before the end. The one that fell furthest (")
    assert "(picked of 4 probes)" in lines[0]
    assert "the verdict compares values at the end" in lines[1]
    for text in (summary.text(), summary.markdown()):
        assert lines[0] in text
    told = {each["trial_id"]: each for each in summary.to_json()["trials"]}
    assert [each["best_checkpoint"] for each in told.values()].count(None) == 59


def test_the_page_names_the_checkpoint_of_the_recommended_trial_and_marks_picked_figures(summary):
    page = render_page(PageContent(summary=summary))
    section = page.split("<h2>Best checkpoints</h2>")[1].split("<h2>")[0]
    assert "best/step-0000000200, after 20,000 of 40,000 images" in section
    assert "90.0 (picked)" in section


def test_a_sweep_of_an_earlier_version_opens_and_says_that_none_is_kept(runs):
    plain = summarize(runs[2], record_of(sweep_events()))
    assert "<h2>Best checkpoints</h2>" not in render_page(PageContent(summary=plain))
    assert plain.peak_lines() == []
    assert "none is kept" in recommend(plain).text()


def curve(values, best=None):
    kept = None if best is None else BestCheckpoint(name="best/step-1", images=best, value=values[best])
    return ProbeCurve(metric=METRIC, total_images=400, values=values, best=kept)


@pytest.mark.parametrize(
    ("values", "best", "picked", "fall", "said"),
    [
        ({100: 10.0, 400: 20.0}, 400, False, 0.0, "the newest probe, and none since warm-up was higher"),
        ({100: 30.0, 400: 20.0}, 100, True, 10.0, "picked as the highest of 2 probes since warm-up"),
        ({100: 20.0, 400: 20.0}, 400, False, 0.0, "the newest probe"),
        (
            {100: 30.0, 200: 25.0, 400: 20.0},
            200,
            True,
            10.0,
            "picked as the highest whose weights were kept of 3",
        ),
        ({}, None, False, 0.0, "none is kept"),
    ],
)
def test_a_figure_is_picked_where_it_is_not_that_of_the_newest_probe(values, best, picked, fall, said):
    found = curve(values, best)
    assert (found.is_picked, found.fall) == (picked, fall)
    assert said in found.best_text()
    assert (found.peak_text() == "") == (fall == 0)


def test_probes_count_since_warm_up_and_since_weights_were_last_taken_over():
    config = default_config(["train.batch_size=10", "optimizer.warmup_fraction=0.25"])
    trial = TrialRecord(trial_id="t", index=0, point=Point({}), seed=0, total_images=400)
    trial.history = {images: {METRIC: float(images)} for images in (0, 90, 100, 200, 300)}
    trial.history |= {350: {METRIC: math.nan}, 400: {"train/loss": 1.0}}
    assert list(probe_curve(config, trial).values) == [100, 200, 300]
    trial.takeovers = [Takeover(images=200, parent="p", settings=Point({}))]
    assert list(probe_curve(config, trial).values) == [300]


def test_a_member_that_takes_over_weights_gives_up_its_best():
    record = record_of(peaked_events("t0000000"))
    assert record.trials["t0000000"].best == BestCheckpoint(**BEST)
    taken = WeightsTaken(trial_id="t0000000", parent="t0000001", settings=Point({}))
    decided = GenerationDecided(generation=1, images=40_000, ranking=(), takeovers=(taken,), reason="")
    apply(record, Entry(sequence=0, time_ms=0, event=decided))
    assert record.trials["t0000000"].best is None
