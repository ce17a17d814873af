import os
import re
import shutil

import pytest
from open_files import no_open_files_left
from sqlalchemy import make_url

from orchestrator.config.models import TrackingConfig
from orchestrator.config.uris import check_tracking_uri
from orchestrator.errors import TrackingError
from orchestrator.tracking import (
    Links,
    UnavailableError,
    check_reachable,
    find_location,
    ui_command,
    ui_environment,
)
from orchestrator.tracking.base import expand_params, parameter_text
from orchestrator.tracking.mlflow import MlflowTracker


def test_the_default_store_lies_beside_the_runs(tmp_path):
    place = find_location(TrackingConfig(), str(tmp_path / "my runs"))
    assert place.uri == f"sqlite:///{tmp_path}/my runs/mlflow.db"
    assert place.artifact_location("a/b") == f"file://{tmp_path}/my%20runs/mlartifacts/a%2Fb"


@pytest.mark.parametrize("uri", ["store", "sqlite:///store/mlflow.db"])
def test_a_folder_means_an_sqlite_file_in_it(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = find_location(TrackingConfig(uri=uri), "runs")
    assert place.uri == f"sqlite:///{tmp_path}/store/mlflow.db"


@pytest.mark.parametrize("name", ["feature%2Flogin", "what?", "a#b", "50 %", "my runs", "größe", "a@b:c+d"])
def test_a_database_lies_where_its_folder_is_called(name, tmp_path):
    place = find_location(TrackingConfig(), str(tmp_path / name))
    assert place.database == tmp_path / name / "mlflow.db"
    assert make_url(place.uri).database == str(tmp_path / name / "mlflow.db")
    again = find_location(TrackingConfig(uri=place.uri), "elsewhere")
    assert (again.uri, again.artifact_root) == (place.uri, (tmp_path / name / "mlartifacts").as_uri())


def test_a_run_and_its_files_come_back_from_a_folder_with_an_odd_name(template_database, tmp_path):
    runs = tmp_path / "50% of what?#1%2F2"
    runs.mkdir()
    shutil.copy(template_database, runs / "mlflow.db")
    tracker = MlflowTracker(find_location(TrackingConfig(), str(runs)), "odd")
    tracker.start_sweep("s", "s", {}, {})
    tracker.log_artifact(None, "a.txt", b"text")
    assert [path.read_text() for path in runs.rglob("a.txt")] == ["text"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [runs.name]


def test_a_folder_whose_name_is_not_utf8_is_refused_by_name(tmp_path):
    runs = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(TrackingError, match=r"caf\\xe9.*not UTF-8; rename the folder, or set tracking.uri"):
        find_location(TrackingConfig(), runs)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("127.0.0.1:5000", "write `http://127.0.0.1:5000`"),
        ("http:/host:5000", "must have `://` after the scheme"),
        ("http://:5000", "must name a host"),
        ("http://host:port", "a port by number"),
        ("http://host:5000/#/experiments/1", "not that of one of its pages"),
        ("sqlite://store.db", "must name a file after three slashes"),
        ("sqlite:store.db", "must have `://`"),
        ("sqlite:///:memory:", "must name a file after three slashes"),
        ("sqlite:///a.db?timeout=9", "write `%3F` for a `?` in a name"),
    ],
)
def test_an_address_with_a_typing_error_is_a_fault_of_the_configuration(uri, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_tracking_uri(uri)


@pytest.mark.parametrize(
    "uri", ["HTTP://host:5000", "https://[::1]:5000/mlflow", "sqlite:////a/b.db", "./a:1"]
)
def test_an_address_without_one_is_taken(uri):
    assert check_tracking_uri(uri) == uri
    find_location(TrackingConfig(uri=uri), "runs")


def test_a_scheme_may_be_written_in_capitals():
    assert find_location(TrackingConfig(uri="HTTP://host:5000"), "runs").remote


def test_runs_in_a_bucket_keep_the_default_store_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_location(TrackingConfig(), "s3://bucket/x").uri == f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_a_server_keeps_its_own_artifacts():
    place = find_location(TrackingConfig(uri="http://host:5000/"), "runs")
    assert place.remote
    assert place.uri == "http://host:5000"
    assert place.artifact_location("x") is None


def test_the_page_is_bound_to_loopback_without_jobs_or_telemetry():
    command = ui_command("sqlite:////x/mlflow.db", port=5055)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5055"
    assert ui_environment()["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert ui_environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_remote_store_has_no_page_of_ours():
    with pytest.raises(ValueError, match="open it in a browser"):
        ui_command("https://host")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-4, "0.0001"),
        (0.1 + 0.2, "0.3"),
        (True, "true"),
        (None, "null"),
        ("https://me:secret@host/x", "https://***@host/x"),
        ((0.85, 1.0), "[0.85, 1]"),
        ([1, "a", None], "[1, a, null]"),
        ((0.1, 1 / 3), "[0.1, 0.333333333333]"),
    ],
)
def test_a_parameter_reads_as_in_yaml(value, text):
    assert parameter_text(value) == text


def test_the_middle_of_a_ratio_is_geometric():
    assert expand_params({"masks.target_aspect_ratio": (0.5, 2.0)})["masks.target_aspect_ratio.mid"] == "1"
    assert expand_params({"masks.target_scale": (0.5, 1.5)})["masks.target_scale.mid"] == "1"
    assert list(expand_params({"a": (1, 2, 3), "b": (True, False)})) == ["a", "b"]


def test_pages_are_empty_until_ids_are_known():
    links = Links(tracking_uri="u", experiment="e", base_url="http://h")
    assert (links.experiment_url, links.run_url(), links.compare_url) == ("", "", "")
    known = Links(
        tracking_uri="u",
        experiment="e",
        base_url="http://h",
        sweep_id="s",
        experiment_id="1",
        sweep_run_id="p",
        trial_run_ids={"a": "x", "b": "y"},
    )
    assert known.run_url("a") == "http://h/#/experiments/1/runs/x"
    assert (
        known.compare_url == "http://h/#/compare-runs?runs=%5B%22x%22%2C%22y%22%5D&experiments=%5B%221%22%5D"
    )
    assert (
        known.trials_url == "http://h/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=s"
    )


def test_a_store_that_answers_is_reachable_and_a_dead_server_is_not(tmp_path):
    check_reachable(find_location(TrackingConfig(), str(tmp_path)))
    with pytest.raises(UnavailableError, match="cannot be reached"):
        check_reachable(find_location(TrackingConfig(uri="http://127.0.0.1:9"), str(tmp_path)))


def test_a_process_that_can_open_nothing_does_not_call_the_server_dead(tmp_path):
    place = find_location(TrackingConfig(uri="http://127.0.0.1:9"), str(tmp_path))
    with pytest.raises(UnavailableError, match="Connection refused"):
        check_reachable(place)
    with no_open_files_left(), pytest.raises(UnavailableError, match=r"Too many open files.*ulimit -n"):
        check_reachable(place)
