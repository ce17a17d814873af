"""`report`, `compare`, `best`, `reproduce` and `train --from-best` on a journalled sweep, through the command line."""

import json
import shutil
from types import SimpleNamespace

import pytest
from command_line import run_command
from sweep_records import entries, record_of, sweep_config, sweep_events, write_journal

from orchestrator.config import parse_config
from orchestrator.config.models import TrackingConfig
from orchestrator.report.reproduce import compare_outcomes
from orchestrator.sweep.watch.follower import Follower
from orchestrator.tracking import find_location
from orchestrator.tracking.client import open_client
from orchestrator.tracking.mlflow import MlflowTracker


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs with one sweep of 60 trials."""
    folder = tmp_path_factory.mktemp("runs")
    return SimpleNamespace(folder=folder, sweep_id=write_journal(folder, sweep_events()))


@pytest.fixture
def cli(command, runs):
    """Runs a command on the folder."""
    return lambda *arguments: command(*arguments, "--runs", str(runs.folder))


def test_best_names_a_geometry_with_its_settings_cost_and_checkpoints(cli, runs):
    outcome = cli("best", runs.sweep_id, "--json")
    data = json.loads(outcome.out)
    assert outcome.code == 0
    assert data["outcome"] == "tied"
    assert "none of them costs notably less" in data["reason"]
    assert set(data["point"]) == {"masks.target_scale", "masks.target_aspect_ratio"}
    assert data["checkpoints"].endswith(f"trials/{data['trial_id']}/checkpoints")
    cheapest = json.loads(cli("best", runs.sweep_id, "--json", "--pick", "cheapest").out)
    assert cheapest["mean"] < data["mean"]
    assert cheapest["gpu_hours"] < data["gpu_hours"]
    assert "cheapest of the" in cheapest["reason"]


def test_best_prints_a_configuration_that_runs_alone(cli, runs):
    config = parse_config(cli("best", runs.sweep_id, "--yaml").out)
    assert config.sweep.space == {}
    assert config.masks.target_scale != sweep_config().masks.target_scale


def test_compare_takes_trials_by_id_and_number_and_says_who_beats_whom(cli, runs):
    outcome = cli("compare", f"{runs.sweep_id}/0", f"{runs.sweep_id}/t0000018")
    assert outcome.code == 0
    assert "beats" in outcome.out
    assert "at equal FLOPs" in outcome.out


def test_compare_within_a_sweep_is_its_best_against_each_other_one(cli, runs):
    data = json.loads(cli("compare", runs.sweep_id, "--json").out)
    assert len(data["geometries"]) == 20
    assert len(data["results"]) == 3 * 19
    assert {each["first"] for each in data["results"]} == {data["geometries"][0]["name"]}


def test_two_seeds_of_one_geometry_are_nothing_to_compare(cli, runs):
    outcome = cli("compare", f"{runs.sweep_id}/0", f"{runs.sweep_id}/1")
    assert outcome.code == 4
    assert "one geometry" in outcome.err


@pytest.mark.parametrize(("name", "message"), [("nope", "no sweep"), ("{}/zz", "no trial 'zz'")])
def test_a_run_that_is_not_there_is_said_so(cli, runs, name, message):
    outcome = cli("compare", name.format(runs.sweep_id))
    assert outcome.code == 4
    assert message in outcome.err


def test_reproduce_needs_to_know_which_trial(cli, runs):
    assert "has 60 trials; name one" in cli("reproduce", runs.sweep_id).err
    shown = cli("reproduce", f"{runs.sweep_id}/4", "--dry-run").out
    assert parse_config(shown).train.seed == 1


def test_the_long_run_says_what_changes_with_scale_and_what_it_will_cost(cli, runs):
    outcome = cli(
        *("train", "--from-best", runs.sweep_id, "--dry-run", "--set", "train.images=400000"),
        *("--set", "encoder.width=192", "--set", "encoder.image_size_px=96"),
    )
    assert outcome.code == 0
    assert "10 times the trial's 40,000" in outcome.err
    assert "12x12 patches become 24x24" in outcome.err
    assert "smaller encoder" in outcome.err
    assert "GPU hours" in outcome.err


def test_a_long_run_that_scales_nothing_says_so(cli, runs):
    assert "Nothing is scaled up" in cli("train", "--from-best", runs.sweep_id, "--dry-run").err


def test_train_wants_a_file_or_a_sweep(cli):
    assert cli("train").code == 2


class Silent:
    """Watches nothing."""

    def on_event(self, entry, record) -> None: ...

    def on_message(self, text) -> None: ...


def test_a_report_written_again_links_to_the_runs_and_is_put_on_the_sweeps(
    monkeypatch, capsys, runs, template_database, tmp_path
):
    shutil.copytree(runs.folder / runs.sweep_id, tmp_path / runs.sweep_id)
    shutil.copy(template_database, tmp_path / "mlflow.db")
    place = find_location(TrackingConfig(), str(tmp_path))
    tracker = MlflowTracker(place, "masks")
    tracker.start_sweep(runs.sweep_id, runs.sweep_id, {}, {})
    kinds = ("sweep_started", "trial_planned", "attempt_started")
    begun = [event for event in sweep_events() if event["kind"] in kinds]
    Follower(sweep_config(), tracker, Silent()).follow(entries(begun[:5]))
    run_id = tracker.links().trial_run_ids["t0000001"]

    outcome = run_command(monkeypatch, capsys, "report", runs.sweep_id, "--runs", str(tmp_path))
    assert outcome.code == 0
    page = (tmp_path / runs.sweep_id / "report" / "report.html").read_text()
    assert f"/runs/{run_id}" in page
    client = open_client(place)
    names = {item.path for item in client.list_artifacts(tracker.links().sweep_run_id, "report")}
    assert {"report/report.html", "report/trials.csv", "report/map.png"} <= names
    assert client.get_run(run_id).inputs.dataset_inputs[0].dataset.digest == "0123456789abcdef"

    shown = run_command(monkeypatch, capsys, "reproduce", run_id, "--runs", str(tmp_path), "--dry-run")
    assert parse_config(shown.out).train.seed == 1


def test_a_repetition_is_identical_within_noise_or_different():
    record = record_of(sweep_events())
    trial = record.trials["t0000000"]

    def again(shift: float):
        other = record_of(sweep_events()).trials["t0000000"]
        other.metrics = {name: value + shift for name, value in trial.metrics.items()}
        return compare_outcomes(trial, other, then=record, now=record).sameness

    assert [again(shift) for shift in (0.0, 0.5, 3.0)] == ["identical", "within noise", "different"]


def test_what_changed_since_is_named():
    then, now = record_of(sweep_events()), record_of(sweep_events())
    now.environment["packages"] = {"torch": "2.15.0"}
    now.data["digest"] = "ffff"
    trial = then.trials["t0000000"]
    changes = compare_outcomes(trial, trial, then=then, now=now).changes
    assert changes == ("data digest was 0123456789abcdef, is ffff", "torch was 2.14.1, is 2.15.0")
