import json
import math
import shutil
from pathlib import Path

import pytest

from orchestrator.config.models import TrackingConfig
from orchestrator.errors import TrackingError
from orchestrator.protocol.reports import Row
from orchestrator.tracking import RunStatus, find_location, open_tracker
from orchestrator.tracking.client import open_client
from orchestrator.tracking.location import TrackingLocation
from orchestrator.tracking.mlflow import NOT_FINITE_TAG, MlflowTracker

PAIR = {"masks.target_scale": (0.15, 0.2), "train.seed": 0}


@pytest.fixture
def place(template_database: Path, tmp_path: Path) -> TrackingLocation:
    shutil.copy(template_database, tmp_path / "mlflow.db")
    return find_location(TrackingConfig(), str(tmp_path))


@pytest.fixture
def tracker(place: TrackingLocation) -> MlflowTracker:
    tracker = MlflowTracker(place, "masks")
    tracker.start_sweep("sweep-1", "masks", {"sweep.search": "grid"}, {"dataset": "scenes"})
    return tracker


def row(step: int, timestamp_ms: int = 1000, **metrics: float) -> Row:
    return Row(images=step, timestamp_ms=timestamp_ms, metrics=metrics)


def run_of(tracker: MlflowTracker, place: TrackingLocation, trial_id: str | None):
    links = tracker.links()
    run_id = links.sweep_run_id if trial_id is None else links.trial_run_ids[trial_id]
    return open_client(place).get_run(run_id)


def history(tracker: MlflowTracker, place: TrackingLocation, trial_id: str, key: str):
    run_id = tracker.links().trial_run_ids[trial_id]
    return [
        (m.step, m.value, m.timestamp)
        for m in sorted(open_client(place).get_metric_history(run_id, key), key=lambda m: m.step)
    ]


def test_a_trial_is_a_child_of_its_sweep_with_dotted_parameters(tracker, place):
    tracker.start_trial("t0", "scale 0.15-0.2", PAIR, {"orchestrator.state": "running"})
    run = run_of(tracker, place, "t0")
    assert run.data.tags["mlflow.parentRunId"] == tracker.links().sweep_run_id
    assert run.info.run_name == "scale 0.15-0.2"
    assert run.data.params == {
        "masks.target_scale": "[0.15, 0.2]",
        "masks.target_scale.mid": "0.175",
        "train.seed": "0",
    }


def test_a_restart_finds_its_own_runs(tracker, place):
    tracker.start_trial("t0", "one", PAIR, {})
    again = MlflowTracker(place, "masks")
    again.start_sweep("sweep-1", "masks", {}, {})
    again.start_trial("t0", "one", {**PAIR, "train.seed": 5}, {})
    assert again.links() == tracker.links()
    assert run_of(again, place, "t0").data.params["train.seed"] == "0"


def test_rows_sent_again_by_this_or_a_later_process_are_no_second_points(tracker, place):
    tracker.start_trial("t0", "one", PAIR, {})
    tracker.log_rows("t0", [row(10, loss=1.0), row(20, loss=0.5)])
    tracker.log_rows("t0", [row(20, 9000, loss=0.7)])
    again = MlflowTracker(place, "masks")
    again.start_sweep("sweep-1", "masks", {}, {})
    again.log_rows("t0", [row(10, 9500, loss=3.0), row(30, 9500, loss=0.25)])
    assert history(tracker, place, "t0", "loss") == [(10, 1.0, 1000), (20, 0.5, 1000), (30, 0.25, 9500)]


def test_more_rows_than_a_batch_holds_arrive_whole(tracker, place):
    tracker.start_trial("t0", "one", {f"a.k{i}": i for i in range(250)}, {})
    tracker.log_rows("t0", [row(step, a=step, b=-step) for step in range(700)])
    assert history(tracker, place, "t0", "b") == [(step, -step, 1000) for step in range(700)]
    assert len(run_of(tracker, place, "t0").data.params) == 250


def test_the_ranking_metric_comes_first_under_its_headline(place):
    tracker = MlflowTracker(place, "masks", headline="probe/linear/mean")
    tracker.start_sweep("s", "masks", {}, {})
    tracker.start_trial("t0", "one", PAIR, {})
    tracker.log_rows("t0", [Row(images=0, timestamp_ms=1, metrics={"a": 1, "probe/linear/mean": 0.5})])
    run_id = tracker.links().trial_run_ids["t0"]
    assert next(iter(open_client(place).get_run(run_id).data.metrics.items())) == ("accuracy", 0.5)


def test_infinity_is_sent_as_nan_and_named_in_a_tag(tracker, place):
    tracker.start_trial("t0", "one", PAIR, {})
    tracker.log_rows("t0", [row(10, loss=math.inf), row(20, loss=math.nan)])
    assert [math.isnan(value) for _, value, _ in history(tracker, place, "t0", "loss")] == [True, True]
    assert run_of(tracker, place, "t0").data.tags[NOT_FINITE_TAG] == "loss=inf at 10 images"


def test_an_artifact_comes_back_from_the_sqlite_store(tracker, place, tmp_path):
    tracker.log_artifact(None, "report/table.md", b"| a |")
    client = open_client(place)
    path = client.download_artifacts(tracker.links().sweep_run_id, "report/table.md", str(tmp_path))
    assert Path(path).read_bytes() == b"| a |"
    assert (tmp_path / "mlartifacts" / "masks").is_dir()


@pytest.mark.parametrize("path", ["../x", "/etc/x", ""])
def test_an_artifact_path_stays_inside_its_run(tracker, path):
    with pytest.raises(TrackingError):
        tracker.log_artifact(None, path, b"")


def test_statuses_and_times_are_those_given(tracker, place):
    tracker.start_trial("t0", "one", {}, {}, time_ms=5_000)
    tracker.finish_trial("t0", RunStatus.KILLED, time_ms=65_000)
    tracker.finish_sweep(RunStatus.FINISHED, time_ms=70_000)
    trial, sweep = run_of(tracker, place, "t0").info, run_of(tracker, place, None).info
    assert (trial.status, trial.start_time, trial.end_time) == ("KILLED", 5_000, 65_000)
    assert (sweep.status, sweep.end_time) == ("FINISHED", 70_000)


def test_a_trial_nobody_started_is_refused(tracker):
    with pytest.raises(TrackingError, match="t9"):
        tracker.log_rows("t9", [row(1, loss=1.0)])


def test_the_view_of_a_sweep_names_what_was_varied(tracker, place):
    tracker.start_trial("t0", "one", PAIR, {})
    experiment = open_client(place).get_experiment(tracker.links().experiment_id)
    columns = json.loads(experiment.tags["mlflow.sharedViewState.sweep-1"])["selectedColumns"]
    assert columns[0] == "metrics.`accuracy`"
    assert columns[-2:] == ["params.`masks.target_scale`", "params.`train.seed`"]


def test_two_sweeps_in_one_experiment_keep_apart(tracker, place):
    tracker.start_trial("t0", "one", PAIR, {})
    other = MlflowTracker(place, "masks")
    other.start_sweep("sweep-2", "masks", {}, {})
    other.start_trial("t0", "one", PAIR, {})
    assert other.links().trial_run_ids["t0"] != tracker.links().trial_run_ids["t0"]
    assert other.links().experiment_id == tracker.links().experiment_id


def test_open_tracker_delivers_a_sweep_to_sqlite(template_database, tmp_path, place):
    tracker = open_tracker(TrackingConfig(), str(tmp_path), "masks", tmp_path / "spool")
    tracker.start_sweep("s", "masks", {}, {})
    tracker.start_trial("t0", "one", PAIR, {})
    tracker.log_rows("t0", [row(10, loss=1.0)])
    tracker.log_artifact("t0", "masks.png", b"png")
    tracker.finish_trial("t0", RunStatus.FINISHED)
    tracker.close(timeout_s=600)
    links = tracker.links()
    assert links.pending == 0
    run = open_client(place).get_run(links.trial_run_ids["t0"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 1.0}
    assert not list((tmp_path / "spool").glob("artifact-*"))
