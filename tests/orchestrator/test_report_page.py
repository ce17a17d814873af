import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from orchestrator.config import default_config, dump
from orchestrator.protocol.point import Point
from orchestrator.report.page.document import PageContent, render_page
from orchestrator.report.page.plots import figures
from orchestrator.report.page.tables import ledger_table
from orchestrator.report.words.sentences import verdict_lines
from orchestrator.report.words.summary import Summary, summarize
from orchestrator.sweep.core.record import Attempt, Slot, SweepRecord, TrialRecord
from orchestrator.tracking import Links

SCALES = ((0.05, 0.1), (0.15, 0.2), (0.25, 0.3))
RATIOS = ((0.5, 1.0), (0.75, 1.5))
LABELS = ("class", "count")


def trial_record(
    index: int, point: Point, seed: int, final: float, *, state: str = "finished"
) -> TrialRecord:
    trial = TrialRecord(
        trial_id=f"t{index}", index=index, point=point, seed=seed, name=f"trial {index}", total_images=3000
    )
    for images in (0, 1000, 2000, 3000)[: 4 if state == "finished" else 2]:
        value = 30 + (final - 30) * images / 3000
        metrics = {f"probe/linear/{label}": value for label in LABELS} | {"probe/linear/mean": value}
        metrics |= {f"baseline/untrained/linear/{label}": 30.0 for label in LABELS}
        metrics |= {f"baseline/pixels/linear/{label}": 25.0 for label in LABELS}
        trial.history[images] = metrics | {"baseline/untrained/linear/mean": 30.0}
        trial.metrics.update(trial.history[images])
        trial.images = images
    trial.state, trial.reason = state, "" if state == "finished" else "below <the> cut"
    trial.attempts["a"] = Attempt(
        attempt_id="a", num_gpus=0.5, num_cpus=1, started=0, last_seen=9, ended=3600.0 * (index + 1)
    )
    hits = np.random.default_rng(index).random(2000) < trial.metrics["probe/linear/mean"] / 100
    trial.correct = {label: np.packbits(hits).tobytes().hex() for label in LABELS}
    return trial


def sweep_record(seeds: tuple[int, ...] = (0, 1)) -> SweepRecord:
    record = SweepRecord(sweep_id="masks-1", name="masks", state="finished", started_ms=0, ended_ms=60_000)
    record.config_text = dump(default_config())
    record.environment = {"python": "3.11"}
    record.notes = ["two points came to the same blocks"]
    points = [
        Point({"masks.target_scale": s, "masks.target_aspect_ratio": r}) for s in SCALES for r in RATIOS
    ]
    for place, point in enumerate(points):
        for seed in seeds:
            index = len(record.trials)
            final = (60.0 if point["masks.target_scale"] == SCALES[1] else 45.0) + place + 0.3 * seed
            state = "stopped" if place == 5 else "finished"
            record.trials[f"t{index}"] = trial_record(index, point, seed, final, state=state)
    return record


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarize(default_config(), sweep_record())


class Page(HTMLParser):
    """Collects what a page would fetch, and checks that its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        names = ("src", "href", "xlink:href", "data", "action")
        self.sources += [value for key, value in attrs if key in names and not value.startswith("#")]
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def content(summary: Summary, **fields) -> PageContent:
    svgs = {name: drawing.svg for name, drawing in figures(summary, fields.get("links")).items()}
    return PageContent(summary=summary, figures=svgs, config_text="masks: {}", notes=["a note"], **fields)


def test_the_verdict_comes_first_and_the_page_fetches_nothing(summary):
    text = render_page(content(summary))
    page = Page(text)
    assert page.open == []
    assert all(source.startswith("data:") for source in page.sources)
    assert text.count("<svg") == 6
    assert text.index(verdict_lines(summary.verdict)[0][:20]) < text.index("<table")
    assert "below &lt;the&gt; cut" in text


def test_a_sweep_that_never_reached_mlflow_names_no_page_but_what_sends_it(summary):
    links = Links(tracking_uri="http://host", experiment="masks", sweep_id="masks-1", base_url="http://host")
    text = render_page(content(summary, links=links))
    assert "orchestrator ui" not in text
    assert "<code>orchestrator deliver masks-1</code>, with the" in text
    assert "sends what waits" in text


def test_rows_link_to_their_runs(summary):
    links = Links(
        tracking_uri="sqlite:////x/mlflow.db",
        experiment="masks",
        sweep_id="masks-1",
        experiment_id="1",
        base_url="http://127.0.0.1:5000",
        trial_run_ids={"t4": "abc", "t5": "def"},
        ui_command=("mlflow",),
    )
    text = render_page(content(summary, links=links))
    assert 'href="http://127.0.0.1:5000/#/experiments/1/runs/abc"' in text
    assert "orchestrator ui" in text


def test_a_hostile_name_stays_text():
    record = sweep_record()
    record.trials["t0"].point = Point({"masks.target_scale": "<script>alert(1)</script>"})
    record.trials["t0"].name = "|<b>"
    summary = summarize(default_config(), record)
    text = render_page(content(summary, mask_pictures={"<script>alert(1)</script>": b""}))
    assert "<script>alert" not in text


def test_figures_are_pictures_of_the_sweep(summary):
    drawn = figures(summary)
    assert set(drawn) == {"map", "importance", "surface", "curves", "hours", "cost"}
    for drawing in drawn.values():
        pixels = np.asarray(Image.open(io.BytesIO(drawing.png)).convert("L"))
        assert pixels.shape[1] > 800
        assert pixels.std() > 5
        assert drawing.svg.startswith("<svg")
        assert "currentColor" in drawing.svg
    assert "0.15-0.2" in drawn["surface"].svg
    assert "stopped" in drawn["surface"].svg


def test_ids_are_unique_over_the_page_and_references_lead_somewhere(summary):
    text = render_page(content(summary))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_marks_say_what_they_are_and_lead_to_their_runs(summary):
    links = Links(
        tracking_uri="u", experiment="e", experiment_id="1", base_url="http://h", trial_run_ids={"t4": "abc"}
    )
    svg = figures(summary, links)["curves"].svg
    assert 'href="http://h/#/experiments/1/runs/abc"' in svg
    assert re.search(r'data-key="t4"><title>target scale .*seed 0: 62\.0 % \(finished\)</title>', svg)


def test_figures_of_one_axis_many_values_and_nothing_finished_are_drawn_or_left_out():
    config = default_config()
    one = SweepRecord(sweep_id="s")
    for index in range(3):
        point = Point({"masks.num_target_blocks": index + 1})
        one.trials[f"t{index}"] = trial_record(index, point, 0, 40.0 + index)
    assert "surface" in figures(summarize(config, one))
    many = SweepRecord(sweep_id="s")
    for index in range(12):
        point = Point({"masks.target_scale": (0.01 * index, 0.3), "optimizer.learning_rate": 1e-4 * index})
        state = "finished" if index else "failed"
        many.trials[f"t{index}"] = trial_record(index, point, 0, 40.0 + index, state=state)
    assert "surface" in figures(summarize(config, many))
    assert figures(summarize(config, SweepRecord(sweep_id="s"))) == {}


def test_the_table_is_aligned_and_puts_the_unfinished_last(summary):
    lines = summary.text().splitlines()
    assert lines[2].startswith("1")
    assert "target scale 0.15-0.2, target aspect ratio 0.75-1.5" in lines[2]
    table = lines[: 2 + len(summary.trials)]
    assert "stopped early" in table[-1]
    assert len({line.index("  target") for line in table[2:]}) == 1


def test_the_summary_as_json_and_csv_holds_every_trial(summary):
    data = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert len(data["trials"]) == 12
    assert data["verdict"]["ranking"][0]["labels"]["class"]["untrained"] == 30.0
    rows = list(csv.DictReader(io.StringIO(summary.csv())))
    assert [row["trial_id"] for row in rows] == [f"t{index}" for index in range(12)]
    assert rows[0]["masks.target_scale"] == "0.05-0.1"
    assert float(rows[0]["probe/linear/mean"]) == 45.0


def test_costs_add_up_over_trials_and_attempts(summary):
    assert summary.hours.gpu == pytest.approx(0.5 * sum(range(1, 13)))
    assert "39.00 GPU hours" in summary.cost_line()


def test_the_ledger_by_state_adds_up_to_what_the_trials_held_their_starts_too():
    record = sweep_record(seeds=(0,))
    for trial in record.trials.values():
        trial.timestamps_ms = {0: 900_000}  # a quarter of an hour until the first step
    summary = summarize(default_config(), record)
    assert sum(trial.share.gpu for trial in summary.trials) < summary.hours.gpu == record.hours.gpu
    assert ledger_table(summary).count(f">{summary.hours.gpu:.3f}<") == 1


def test_words_say_what_was_assumed_and_what_was_not():
    single = verdict_lines(summarize(default_config(), sweep_record(seeds=(0,))).verdict)
    double = verdict_lines(summarize(default_config(), sweep_record()).verdict)
    assert any("assumed, not measured" in line for line in single)
    assert any(re.search(r"measured with 5 degrees of freedom", line) for line in double)
    assert single[0].startswith("No winner can be named")
    assert any("stopped early and not ranked" in line for line in single)


def test_the_markdown_note_escapes_its_table(summary):
    note = summary.markdown()
    assert note.startswith("# masks-1")
    assert sum(line.startswith("|") for line in note.splitlines()) == 2 + len(summary.trials)


def test_the_front_keeps_what_nothing_beats_on_both(summary):
    front = summary.front()
    assert [result.share.counted for result in front] == sorted(result.share.counted for result in front)
    assert [result.mean for result in front] == sorted(result.mean for result in front)
    others = [result for result in summary.verdict.ranking if result not in front]
    assert others
    assert all(any(f.mean >= o.mean and f.share.counted <= o.share.counted for f in front) for o in others)


def test_the_ledger_counts_what_worker_groups_held_between_trials():
    record = sweep_record(seeds=(0,))
    record.slots["s"] = Slot(
        slot_id="s",
        num_gpus=2.0,
        num_cpus=4.0,
        periods=[[0.0, 3600.0], [7200.0, 9000.0]],
        sizes=[(2.0, 4.0), (2.0, 4.0)],
    )
    summary = summarize(default_config(), record)
    assert (summary.held.gpu, summary.held.cpu_core) == (3.0, 6.0)
    assert "held by worker groups" in render_page(PageContent(summary=summary))
