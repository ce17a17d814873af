import base64
import json
from pathlib import Path

import pytest
from image_data import data_config, image_folder

from orchestrator.config import apply_overrides, default_config, dump
from orchestrator.config.models import StorageConfig
from orchestrator.data import prepare_data
from orchestrator.errors import NotFoundError
from orchestrator.protocol.events import (
    AttemptEnded,
    AttemptStarted,
    Reported,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialPlanned,
)
from orchestrator.protocol.reports import Decision, Row, TrialReport
from orchestrator.report import load_sweep, log_preview, log_report, summarize, write_report
from orchestrator.storage import open_store
from orchestrator.sweep.journal.log import Journal
from orchestrator.sweep.run.driver import SweepStart
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.tracking import MemoryTracker


def journal_a_sweep(folder) -> str:
    """A sweep of two finished trials, as its driver would have journalled it."""
    uri = str(folder / "masks-1")
    journal = Journal(open_store(uri, StorageConfig()))
    data, python = {"uri": "shards"}, {"python": "3.11"}
    journal.append(
        SweepStarted(
            sweep_id="masks-1",
            name="masks",
            config=dump(default_config()),
            environment=python,
            data=data,
            notes=(),
        )
    )
    for index, accuracy in enumerate((60.0, 40.0)):
        trial_id, point = f"t{index}", {"masks.target_scale": [0.1 * (index + 1), 0.3]}
        planned = {"index": index, "point": point, "seed": 0, "name": f"trial {index}"}
        journal.append(TrialPlanned(trial_id=trial_id, total_images=1000, **planned))
        journal.append(AttemptStarted(trial_id=trial_id, attempt_id="a", num_gpus=1.0, num_cpus=1.0))
        names = ("probe/linear/mean", "probe/linear/class")
        metrics = dict.fromkeys(names, accuracy) | {
            "baseline/untrained/linear/mean": 30.0,
            "baseline/untrained/linear/class": 30.0,
        }
        row = Row(images=1000, timestamp_ms=5, metrics=metrics)
        report = TrialReport(trial_id=trial_id, images=1000, rows=(row,))
        journal.append(Reported.of(report, Decision(), attempt_id="a", value=accuracy, rung=None))
        journal.append(AttemptEnded(trial_id=trial_id, attempt_id="a"))
        journal.append(TrialEnded(trial_id=trial_id, state="finished", reason=""))
    journal.append(SweepEnded(state="finished"))
    return uri


def test_a_report_is_written_from_the_journal_alone(tmp_path):
    journal_a_sweep(tmp_path)
    config, record, uri = load_sweep(str(tmp_path), "masks-1")
    assert write_report(config, record, uri).verdict.outcome == "winner"
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


def test_a_starting_sweep_leaves_pictures_and_audit_beside_its_runs_and_in_the_tracker(tmp_path):
    config = data_config(image_folder(tmp_path / "images"), tmp_path / "cache")
    space = {"masks.target_scale": {"choices": [[0.1, 0.15], [0.2, 0.25]]}}
    config = apply_overrides(config, {"sweep.space": space, "storage.uri": str(tmp_path)})
    tracker, plan, uri = MemoryTracker(), plan_sweep(config), str(tmp_path / "masks-1")
    tracker.start_sweep("masks-1", "masks", {}, {})
    log_preview(
        SweepStart(config=config, plan=plan, shards=prepare_data(config), tracker=tracker, run_uri=uri)
    )
    logged = tracker.runs[None].artifacts
    assert logged["masks/audit.html"].startswith(b"<!doctype html>")
    names = json.loads((tmp_path / "masks-1" / "report" / "masks" / "pictures.json").read_bytes())
    assert set(names) == {trial.trial_id for trial in plan.trials}
    assert all(f"masks/{name}.png" in logged for name in names.values())


def test_the_report_shows_the_pictures_of_the_best_and_the_worst_geometry(tmp_path):
    uri = journal_a_sweep(tmp_path)
    folder = tmp_path / "masks-1" / "report" / "masks"
    folder.mkdir(parents=True)
    (folder / "pictures.json").write_text(json.dumps({"t0": "000-first", "t1": "001-second"}))
    for name in ("000-first", "001-second"):
        (folder / f"{name}.png").write_bytes(name.encode())
    config, record, uri = load_sweep(str(tmp_path), "masks-1")
    write_report(config, record, uri)
    page = Path(uri, "report", "report.html").read_text()
    assert base64.b64encode(b"000-first").decode() in page
    assert "lowest: target scale 0.2-0.3" in page
