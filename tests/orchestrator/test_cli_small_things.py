"""What a user meets at every turn: counts with their nouns, kinds of runs, hours, words in place of dictionaries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command
from sweep_records import entries, record_of, sweep_config, sweep_events, write_journal

from orchestrator.cli.views import seconds_left
from orchestrator.config import dump
from orchestrator.protocol.intervals import Interval
from orchestrator.protocol.point import Point
from orchestrator.report.statistics.matched import MatchedResult, grouped_sentences
from orchestrator.report.words.summary import summarize
from orchestrator.report.words.winner import trial_config
from orchestrator.sweep.watch.status import event_line
from orchestrator.text import counted

HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 images"),
        (1, "1 image"),
        (1.0, "1 image"),
        (2, "2 images"),
        (1200, "1,200 images"),
        (0.5, "0.5 images"),
    ],
)
def test_a_count_agrees_with_its_noun(count: float, text: str) -> None:
    assert counted(count, "image") == text


def _begun(origin: str, *, searches: bool) -> dict[str, Any]:
    config = sweep_config()
    text = dump(config if searches else trial_config(config, Point({}), 0))
    return {**sweep_events()[0], "config": text, "origin": origin}


@pytest.mark.parametrize(
    ("origin", "searches", "kind"),
    [
        ("", True, "sweep"),
        ("", False, "run"),
        ("best of masks-1", False, "long run"),
        ("reproduction of masks-1/t0", False, "reproduction"),
    ],
)
def test_ls_tells_sweeps_runs_and_reproductions_apart(monkeypatch, capsys, tmp_path, origin, searches, kind):
    write_journal(tmp_path, [_begun(origin, searches=searches)])
    listed = run_command(monkeypatch, capsys, "ls", "--runs", str(tmp_path))
    assert f"  {kind}  " in listed.out
    (told,) = json.loads(run_command(monkeypatch, capsys, "ls", "--json", "--runs", str(tmp_path)).out)
    assert (told["kind"], told["origin"]) == (kind, origin)


def _extended_after(gap_ms: int) -> list[dict[str, Any]]:
    events = sweep_events()[:12]
    last = events[-1]["time_ms"]
    events.append({"kind": "sweep_ended", "state": "finished", "time_ms": last})
    events.append({"kind": "driver_started", "time_ms": last + gap_ms})
    events.append({"kind": "sweep_ended", "state": "finished", "time_ms": last + gap_ms + HOUR_MS})
    return events


def test_the_hours_of_an_extended_sweep_leave_out_the_time_in_which_nothing_ran() -> None:
    at_once, a_week_later = (record_of(_extended_after(gap)) for gap in (0, 168 * HOUR_MS))
    assert summarize(sweep_config(), a_week_later).seconds == summarize(sweep_config(), at_once).seconds
    assert a_week_later.idle_ms == 168 * HOUR_MS


def test_the_time_left_does_not_count_the_time_in_which_nothing_ran() -> None:
    at_once, later = (record_of(_extended_after(gap)) for gap in (0, 168 * HOUR_MS))
    for record in (at_once, later):
        record.trials["t0000000"].state = "running"
    now_s = at_once.last_ms / 1000
    assert seconds_left(later, now_s + 168 * 3600) == seconds_left(at_once, now_s)


def test_an_event_is_told_in_words_and_not_as_a_dictionary() -> None:
    event = next(event for event in sweep_events() if event["kind"] == "trial_planned")
    (entry,) = entries([event])
    line = event_line(entry)
    assert "masks.target_scale 0.07-0.092; masks.target_aspect_ratio 0.417-0.6" in line
    assert not set("{}[]'") & set(line)


def test_a_plan_says_when_there_is_no_test_part(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "a.yaml"
    config.write_text("data: {test_split: held}")
    shown = run_command(monkeypatch, capsys, "plan", str(config))
    assert "note: there is no test part: data.test_split is 'held' and the data has train, test" in shown.out


def _result(second: str, budget: Any, **more: Any) -> MatchedResult:
    interval = Interval(low=1.0, high=3.0, level=0.95)
    given = {"word": "beats", "winner": "a", "difference": 2.0, "interval": interval, **more}
    return MatchedResult(first="a", second=second, budget=budget, at=100.0, **given)


def test_pairs_of_which_the_same_is_said_stand_together() -> None:
    budgets = ("images", "FLOPs")
    told = grouped_sentences([_result(second, budget) for budget in budgets for second in ("b", "c")])
    figures = "(+2.0 points, 95 % interval +1.0 to +3.0)"
    assert told == [f"a beats, at equal images and FLOPs:\n  b {figures}\n  c {figures}"]


def test_a_pair_of_its_own_keeps_its_sentence() -> None:
    result = _result("b", "images")
    assert grouped_sentences([result]) == [result.sentence()]


def test_an_audit_says_where_everything_is_that_it_wrote(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("name: a")
    shown = run_command(monkeypatch, capsys, "masks", "audit", "a.yaml")
    named = {Path(line.partition(": ")[2]) for line in shown.out.splitlines()[-3:]}
    assert named == set((tmp_path / "masks-a").iterdir())


def test_the_readme_checks_before_it_spends() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    on_your_images = text.partition("## On your images")[2]
    assert 0 < on_your_images.index("orchestrator doctor") < on_your_images.index("orchestrator sweep")


def test_doctor_without_a_file_obeys_what_is_set(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    shown = run_command(monkeypatch, capsys, "doctor", "--set", "train.batch_size=nothing")
    assert shown.code == 2
    assert "train.batch_size" in shown.err
