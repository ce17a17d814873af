"""The spool against a real MLflow server that is killed, stopped and started again."""

import signal

import pytest
from mlflow_server import Server

from orchestrator.config.models import TrackingConfig
from orchestrator.protocol.reports import Row
from orchestrator.tracking import RunStatus, check_location, find_location, open_tracker
from orchestrator.tracking.client import open_client


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


def rows(steps: range) -> list[Row]:
    return [
        Row(images=step, timestamp_ms=1000 + step, metrics={"train/loss": 1 / (step + 1)}) for step in steps
    ]


def test_a_server_that_runs_passes_the_check_and_keeps_nothing_of_it(server, tmp_path):
    server.start()
    place = find_location(TrackingConfig(uri=server.uri), str(tmp_path))
    assert check_location(place) == ""
    client = open_client(place)
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert list(client.search_runs(["0"])) == []


def test_a_killed_and_a_hanging_server_lose_and_double_nothing(server, tmp_path):
    config = TrackingConfig(uri=server.uri)
    server.start()
    tracker = open_tracker(config, str(tmp_path), "masks", tmp_path / "spool")
    tracker.start_sweep("s", "sweep", {"sweep.search": "grid"}, {})
    tracker.start_trial("t0", "trial", {"masks.target_scale": (0.1, 0.2)}, {})
    tracker.log_rows("t0", rows(range(10)))
    assert tracker.flush(600)

    server.kill()
    tracker.log_rows("t0", rows(range(10, 20)))
    tracker.log_artifact("t0", "masks.png", b"picture")
    assert not tracker.flush(0.5)
    server.start()
    assert tracker.flush(600)

    server.signal(signal.SIGSTOP)
    for step in range(20, 30):
        tracker.log_rows("t0", rows(range(step, step + 1)))
    assert tracker.links().pending == 10  # every call returned though the server took none
    server.kill()
    tracker.finish_trial("t0", RunStatus.FINISHED)
    tracker.close(timeout_s=0.1)

    server.start()
    later = open_tracker(config, str(tmp_path), "masks", tmp_path / "spool")
    later.start_sweep("s", "sweep", {}, {})
    later.log_rows("t0", rows(range(30)))  # a restarted driver tells everything again
    later.close(timeout_s=600)

    client = open_client(find_location(config, "runs"))
    runs = client.search_runs([later.links().experiment_id])
    assert len(runs) == 2
    run_id = later.links().trial_run_ids["t0"]
    history = client.get_metric_history(run_id, "train/loss")
    assert sorted((point.step, point.timestamp) for point in history) == [
        (step, 1000 + step) for step in range(30)
    ]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [item.path for item in client.list_artifacts(run_id)] == ["masks.png"]
