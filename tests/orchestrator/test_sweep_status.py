"""What is said of a sweep from its folder, and what a replay of its curves finds; the commands that say it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import app_with_commands
from orchestrator.config import apply_overrides, default_config, dump
from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError, NotFoundError
from orchestrator.storage import open_store
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.foresight.replay import replay_sweep
from orchestrator.sweep.foresight.simulate import SimulatedCluster, simulate
from orchestrator.sweep.journal.lease import driver_lease
from orchestrator.sweep.journal.requests import take_request
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.sweep.space.points import TrialPlan, plan_sweep
from orchestrator.sweep.watch.status import SweepStatus, list_sweeps


class Heights:
    """Curves that rise to 40 + 2 points for each target block; a hundred images a second."""

    def metrics(self, trial: TrialPlan, images: int) -> Mapping[str, float]:
        height = 40 + 2 * trial.point["masks.num_target_blocks"]
        value = height * (1 - math.exp(-images / 3000))
        return {"probe/linear/mean": value, "train/images_per_s": 100.0, "train/loss": 0.2}

    def seconds(self, trial: TrialPlan, start_images: int, end_images: int) -> float:
        return (end_images - start_images) / 100


def _config(**overrides: object) -> RunConfig:
    values = {
        "train.images": 9000,
        "train.batch_size": 100,
        "train.report_every_images": 1000,
        "sweep.space": {"masks.num_target_blocks": {"choices": [1, 2, 3, 4]}},
        **{key.replace("__", "."): value for key, value in overrides.items()},
    }
    return apply_overrides(default_config(), values)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one finished sweep of four full trials."""
    config = _config()
    store = open_store(str(tmp_path / "simulated"))
    simulate(config, plan_sweep(config).trials, Heights(), SimulatedCluster(num_slots=1), store=store)
    return tmp_path


def _call(*arguments: str) -> str:
    result = CliRunner().invoke(app_with_commands(), arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_status_grows_with_the_journal_and_reads_nothing_twice(runs: Path) -> None:
    status = SweepStatus(open_store(str(runs / "simulated")))
    assert status.refresh()
    assert status.refresh() == []
    assert status.state == "finished"


def test_a_folder_without_a_sweep_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no sweep"):
        SweepStatus(open_store(str(tmp_path))).refresh()
    assert list_sweeps(open_store(str(tmp_path))) == []


def test_ls_and_status_tell_trials_and_hours(runs: Path) -> None:
    listed = _call("ls", "--runs", str(runs))
    assert "simulated" in listed
    assert "4 of 4 trials" in listed
    text = _call("status", "simulated", "--runs", str(runs))
    assert "finished, 4 of 4 trials done" in text
    assert "allocated and idle" in text
    told = json.loads(_call("status", "simulated", "--runs", str(runs), "--json"))
    assert [trial["state"] for trial in told["trials"]] == ["finished"] * 4
    assert told["ledger"]["hours"]["total"] == pytest.approx((4 * 90 + 15) / 3600, rel=1e-3)


def test_logs_print_one_line_an_event_and_can_be_of_one_trial(runs: Path) -> None:
    lines = _call("logs", "simulated", "--runs", str(runs), "--trial", "2").splitlines()
    assert any("trial_ended" in line and "state=finished" in line for line in lines)
    ids = {
        json.loads(line)["trial_id"]
        for line in _call("logs", "simulated", "--runs", str(runs), "--trial", "2", "--json").splitlines()
    }
    assert len(ids) == 1


def test_a_pause_is_left_for_a_driver_that_is_there(runs: Path) -> None:
    refused = CliRunner().invoke(app_with_commands(), ["pause", "simulated", "--runs", str(runs)])
    assert refused.exit_code == 1
    assert "nothing to pause" in refused.output
    store = open_store(str(runs / "simulated"))
    with driver_lease(store):
        assert "writes its checkpoint first" in _call("cancel", "simulated", "--runs", str(runs))
    assert take_request(store) == "cancel"


def test_a_running_sweep_whose_driver_is_gone_has_crashed(runs: Path) -> None:
    store = open_store(str(runs / "simulated"))
    last = store.list("journal/")[-1].key
    store.delete(last)
    status = SweepStatus(store)
    status.refresh()
    assert status.state == "crashed"
    with driver_lease(store):
        status.refresh()
        assert status.state == "running"


def test_a_sweep_whose_budget_is_spent_is_exhausted_until_it_goes_on(tmp_path: Path) -> None:
    config = _config(budget__gpu_hours=0.06)  # 216 s for four trials of 90 s
    store = open_store(str(tmp_path / "poor"))
    simulate(config, plan_sweep(config).trials, Heights(), SimulatedCluster(num_slots=1), store=store)
    told = json.loads(_call("status", "poor", "--runs", str(tmp_path), "--json"))
    assert told["state"] == "exhausted"
    assert "exhausted" in _call("ls", "--runs", str(tmp_path))
    Coordinator("memory", config, store=store).go_on({})
    with driver_lease(store):
        told = json.loads(_call("status", "poor", "--runs", str(tmp_path), "--json"))
    assert told["state"] == "running"


def test_a_trial_of_a_sweep_that_nobody_drives_is_not_said_to_run(runs: Path) -> None:
    store = open_store(str(runs / "simulated"))
    keys = [info.key for info in store.list("journal/")]
    cut = next(place for place, key in enumerate(keys) if b"attempt_ended" in store.read(key))
    for key in keys[cut - 1 :]:  # its end and all after it
        store.delete(key)

    def states() -> list[str]:
        told = json.loads(_call("status", "simulated", "--runs", str(runs), "--json"))
        return [trial["state"] for trial in told["trials"]]

    assert states() == ["pending"] * 4
    with driver_lease(store):
        assert states() == ["running", "pending", "pending", "pending"]


def test_a_replay_under_asha_finds_the_winner_for_less(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "asha.yaml"
    choices = {"masks.num_target_blocks": {"choices": [4, 1, 2, 3]}}
    asha = {"first_rung_images": 1000, "reduction_factor": 3}
    file.write_text(dump(_config(sweep__asha=asha, sweep__space=choices)))
    told = json.loads(_call("simulate", str(file), "--from", "simulated", "--runs", str(runs), "--json"))
    assert told["rank_of_winner"] == 1
    assert told["hours"] < 0.5 * told["recorded_hours"]
    assert sorted(told["states"].values()) == ["finished", "stopped", "stopped", "stopped"]
    assert "rank 1 of 4" in _call("simulate", str(file), "--from", "simulated", "--runs", str(runs))


def _recorded(runs: Path) -> SweepRecord:
    status = SweepStatus(open_store(str(runs / "simulated")))
    status.refresh()
    return status.record


@pytest.mark.parametrize(("key", "value"), [("train__images", 18_000), ("optimizer__learning_rate", 0.5)])
def test_a_replay_under_settings_that_were_not_recorded_is_refused(
    runs: Path, key: str, value: float
) -> None:
    with pytest.raises(ConfigError, match=f"{key.replace('__', '.')}.* when simulated was recorded"):
        replay_sweep(_config(**{key: value}), _recorded(runs), num_slots=1)


def test_the_points_that_a_search_proposed_are_replayed_as_they_were(runs: Path) -> None:
    asha = {"first_rung_images": 1000, "reduction_factor": 3}
    found = replay_sweep(
        _config(sweep__search="optuna", sweep__num_trials=3, sweep__asha=asha), _recorded(runs), num_slots=1
    )
    assert [trial.point["masks.num_target_blocks"] for trial in found.record.in_order()] == [1, 2, 3]
    assert "proposed then" in found.text()
    fewer = {"masks.num_target_blocks": {"choices": [1, 2, 3]}}
    found = replay_sweep(
        _config(sweep__search="optuna", sweep__num_trials=9, sweep__space=fewer), _recorded(runs), num_slots=1
    )
    assert len(found.record.trials) == 3
    assert "which are left out: 1" in found.text()


def test_a_replay_of_other_trials_is_refused(runs: Path) -> None:
    status = SweepStatus(open_store(str(runs / "simulated")))
    status.refresh()
    other = _config(sweep__space={"masks.num_target_blocks": {"choices": [6]}})
    with pytest.raises(ConfigError, match="no curve of any trial"):
        replay_sweep(other, status.record, num_slots=1)


def test_simulate_takes_the_configuration_of_the_sweep_itself(runs: Path) -> None:
    told = json.loads(_call("simulate", "--from", "simulated", "--runs", str(runs), "--json"))
    assert set(told["states"].values()) == {"finished"}
    assert len(told["states"]) == 4
