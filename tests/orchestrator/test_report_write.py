import json

import pytest

from orchestrator.config import default_config, dump
from orchestrator.config.models import StorageConfig
from orchestrator.errors import NotFoundError
from orchestrator.report import load_sweep, log_report, summarize, write_report
from orchestrator.storage import open_store
from orchestrator.sweep.journal import Journal
from orchestrator.tracking import MemoryTracker


def journal_a_sweep(folder) -> str:
    """A sweep of two finished trials, as its driver would have journalled it."""
    uri = str(folder / "masks-1")
    journal = Journal(open_store(uri, StorageConfig()))
    journal.append(
        "sweep_started",
        sweep_id="masks-1",
        name="masks",
        config=dump(default_config()),
        environment={"python": "3.11"},
        data={"uri": "shards"},
        notes=[],
    )
    for index, accuracy in enumerate((60.0, 40.0)):
        trial_id, point = f"t{index}", {"masks.target_scale": [0.1 * (index + 1), 0.3]}
        journal.append(
            "trial_planned",
            trial_id=trial_id,
            index=index,
            point=point,
            seed=0,
            name=f"trial {index}",
            total_images=1000,
        )
        journal.append("attempt_started", trial_id=trial_id, attempt_id="a", num_gpus=1.0, num_cpus=1.0)
        names = ("probe/linear/mean", "probe/linear/class")
        metrics = dict.fromkeys(names, accuracy) | {
            "baseline/untrained/linear/mean": 30.0,
            "baseline/untrained/linear/class": 30.0,
        }
        row = {"images": 1000, "timestamp_ms": 5, "metrics": metrics}
        journal.append(
            "report",
            trial_id=trial_id,
            attempt_id="a",
            rows=[row],
            images=1000,
            correct={},
            rung=None,
            value=accuracy,
            action="continue",
            reason="",
        )
        journal.append("attempt_ended", trial_id=trial_id, attempt_id="a")
        journal.append("trial_ended", trial_id=trial_id, state="finished", reason="")
    journal.append("sweep_ended", state="finished")
    return uri


def test_a_report_is_written_from_the_journal_alone(tmp_path):
    journal_a_sweep(tmp_path)
    config, record, uri = load_sweep(str(tmp_path), "masks-1")
    page = write_report(config, record, uri)
    assert page == f"{uri}/report/report.html"
    names = {path.name for path in (tmp_path / "masks-1" / "report").iterdir()}
    assert {"report.html", "summary.md", "summary.json", "trials.csv", "surface.png", "cost.png"} <= names
    data = json.loads((tmp_path / "masks-1" / "report" / "summary.json").read_text())
    assert data["verdict"]["outcome"] == "winner"
    assert summarize(config, record).verdict.best.trial_ids == ("t0",)


def test_the_verdict_reaches_the_tracker_as_note_tags_and_artifacts(tmp_path):
    uri = journal_a_sweep(tmp_path)
    _, record, _ = load_sweep(str(tmp_path), "masks-1")
    tracker = MemoryTracker()
    tracker.start_sweep("masks-1", "masks", {}, {})
    for trial_id in ("t0", "t1"):
        tracker.start_trial(trial_id, trial_id, {}, {})
    log_report(record, tracker, uri)
    sweep = tracker.runs[None]
    assert "Winner: target scale 0.1-0.3" in sweep.tags["mlflow.note.content"]
    assert sweep.artifacts["report/report.html"].startswith(b"<!doctype html>")
    assert sweep.metrics["probe/linear/mean"] == {2000: (60.0, record.ended_ms)}
    assert tracker.runs["t0"].tags["orchestrator.rank"] == "1"
    assert tracker.runs["t1"].tags["orchestrator.tied"] == "false"


def test_a_sweep_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(NotFoundError, match="masks-9"):
        load_sweep(str(tmp_path), "masks-9")
