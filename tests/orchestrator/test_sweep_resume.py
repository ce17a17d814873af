"""One driver at a time, and the same sweep when it goes on."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from command_line import run_command

from orchestrator.config import apply_overrides, default_config, dump
from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError, NotFoundError, StorageError
from orchestrator.protocol.events import SweepResumed
from orchestrator.protocol.point import Point
from orchestrator.storage import Store, open_store
from orchestrator.sweep.core.record import SweepRecord, TrialRecord, TrialState
from orchestrator.sweep.journal.lease import driver_lease, driver_text
from orchestrator.sweep.journal.log import Journal
from orchestrator.sweep.journal.requests import leave_request, take_request
from orchestrator.sweep.journal.resume import (
    check_same_sweep,
    check_something_left,
    read_sweep,
    stopped_trial_id_of,
)

HOLD = """
import sys, time
from orchestrator.storage import open_store
from orchestrator.sweep.journal.lease import driver_lease
with driver_lease(open_store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    uri = str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3_bucket")
    return open_store(f"{uri}/sweep")


def test_a_second_driver_is_refused_and_told_who_holds_the_sweep(store: Store) -> None:
    with (
        driver_lease(store),
        pytest.raises(StorageError, match=f"runs this sweep already, process {os.getpid()}"),
        driver_lease(store),
    ):
        pass
    with driver_lease(store):
        pass


def test_a_killed_driver_of_this_machine_is_followed_at_once(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, store.uri], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(StorageError, match=str(process.pid)), driver_lease(store):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with driver_lease(store, watch_s=600):
        assert driver_text(store) == f"process {os.getpid()}"


def test_a_driver_elsewhere_is_dead_when_its_lease_stands_still(store: Store) -> None:
    holder = {"token": "x", "count": 3, "host": "elsewhere", "pid": 1, "process_started": "7"}
    store.write("driver/00000003.json", json.dumps(holder).encode())
    with driver_lease(store, watch_s=0.2):
        assert driver_text(store) == f"process {os.getpid()}"


def test_a_lease_of_a_newer_version_says_who_holds_the_sweep_and_a_damaged_one_does_not(
    tmp_path: Path,
) -> None:
    store = open_store(str(tmp_path))
    with driver_lease(store):
        (name,) = [info.key for info in store.list("driver/")]
        holder = json.loads(store.read(name))
        store.write(name, json.dumps(holder | {"added_later": 1}).encode())
        assert driver_text(store) == f"process {os.getpid()}"
        for damaged in ([], {"token": "x"}, holder | {"pid": "one"}):
            store.write(name, json.dumps(damaged).encode())
            with pytest.raises(StorageError, match="is damaged, so who drives this sweep"):
                driver_text(store)
        store.write(name, json.dumps(holder).encode())


def test_of_two_drivers_that_take_over_at_once_one_is_refused(tmp_path: Path) -> None:
    class Slow(type(open_store(str(tmp_path)))):  # type: ignore[misc]
        """A driver that is overtaken between finding the holder dead and taking over."""

        def create(self, key: str, data: bytes) -> bool:
            stack.enter_context(driver_lease(store, watch_s=0.2))
            return bool(super().create(key, data))

    holder = {"token": "x", "count": 3, "host": "elsewhere", "pid": 1, "process_started": "7"}
    store = open_store(str(tmp_path))
    store.write("driver/00000003.json", json.dumps(holder).encode())
    with contextlib.ExitStack() as stack:
        with pytest.raises(StorageError, match="just taken"), driver_lease(Slow(str(tmp_path)), watch_s=0.2):
            pass
        assert [info.key for info in store.list("driver/")] == ["driver/00000004.json"]
        assert driver_text(store) == f"process {os.getpid()}"
    assert driver_text(store) == ""


def test_a_driver_elsewhere_that_renews_its_lease_is_alive(tmp_path: Path) -> None:
    class Elsewhere(type(open_store(str(tmp_path)))):  # type: ignore[misc]
        def read(self, key: str) -> bytes:
            Elsewhere.count += 1
            holder = {"token": "x", "count": self.count, "host": "far", "pid": 1, "process_started": "7"}
            return json.dumps(holder).encode()

    Elsewhere.count = 0
    store = Elsewhere(str(tmp_path))
    store.write("driver/00000001.json", b"{}")
    with pytest.raises(StorageError, match="on far"), driver_lease(store, watch_s=5.0):
        pass


def test_a_sweep_that_does_not_exist_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no sweep to go on with"):
        read_sweep(open_store(str(tmp_path)))


def test_another_configuration_is_refused_with_every_key_that_differs() -> None:
    config = default_config()
    record = SweepRecord(sweep_id="s", config_text=dump(config))
    check_same_sweep(apply_overrides(config, {"train.cpus_per_worker": 2.0}), record)
    with pytest.raises(ConfigError) as caught:
        check_same_sweep(apply_overrides(config, {"train.images": 512, "ema.start_momentum": 0.9}), record)
    assert [fault.key for fault in caught.value.faults] == ["ema.start_momentum", "train.images"]
    assert "1000000" in str(caught.value)


def test_the_journal_of_a_bucket_refuses_a_second_writer(s3_bucket: str) -> None:
    store = open_store(f"{s3_bucket}/sweep")
    first, second = Journal(store), Journal(store)
    first.append(SweepResumed())
    with pytest.raises(StorageError, match="another driver"):
        second.append(SweepResumed())


def test_a_sweep_may_go_on_with_more_choices_and_seeds_but_not_with_others() -> None:
    axis = "sweep.space"
    config = apply_overrides(default_config(), {axis: {"masks.num_target_blocks": {"choices": [1, 2]}}})
    record = SweepRecord(sweep_id="s", config_text=dump(config))
    wider = {axis: {"masks.num_target_blocks": {"choices": [3, 1, 2]}}, "sweep.seeds": [0, 1]}
    check_same_sweep(apply_overrides(config, wider), record)
    other = {axis: {"masks.num_target_blocks": {"choices": [1, 3]}}}
    with pytest.raises(ConfigError):
        check_same_sweep(apply_overrides(config, other), record)


@pytest.mark.parametrize(
    ("before", "wider", "other"),
    [
        ({"log_uniform": [1e-3, 1e-2]}, {"log_uniform": [1e-4, 1e-2]}, {"log_uniform": [1e-4, 5e-3]}),
        ({"uniform": [0.1, 0.2]}, {"uniform": [0.1, 0.3]}, {"log_uniform": [0.1, 0.3]}),
    ],
)
def test_a_sweep_may_go_on_with_wider_ranges_but_not_with_others(
    before: dict[str, Any], wider: dict[str, Any], other: dict[str, Any]
) -> None:
    def config(axis: dict[str, Any]) -> RunConfig:
        space = {"optimizer.learning_rate": axis}
        changes = {"sweep.search": "optuna", "sweep.num_trials": 4, "sweep.space": space}
        return apply_overrides(default_config(), changes)

    record = SweepRecord(sweep_id="s", config_text=dump(config(before)))
    check_same_sweep(config(wider), record)
    with pytest.raises(ConfigError, match="cannot change in it"):
        check_same_sweep(config(other), record)


def test_what_was_cancelled_goes_on_only_with_more_to_do() -> None:
    config = default_config()
    record = SweepRecord(sweep_id="s", config_text=dump(config), state="cancelled")
    with pytest.raises(ConfigError, match="was cancelled"):
        check_something_left(config, record)
    check_something_left(apply_overrides(config, {"train.images": 2_000_000}), record)
    record.state = "paused"
    check_something_left(config, record)


def test_only_what_has_stopped_is_revived() -> None:
    trials = [
        TrialRecord(trial_id=f"t{index}", index=index, point=Point({}), seed=0, state=state)
        for index, state in enumerate(get_args(TrialState))
    ]
    record = SweepRecord(sweep_id="s", trials={trial.trial_id: trial for trial in trials})
    revivable = [trial.trial_id for trial in trials if trial.state in ("stopped", "failed")]
    assert [stopped_trial_id_of(record, trial_id) for trial_id in revivable] == revivable
    with pytest.raises(ConfigError, match=r"is finished; .*there are 003 \(t3\), 004 \(t4\)"):
        stopped_trial_id_of(record, "2")


def test_a_request_is_heard_once_and_nonsense_never(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert take_request(store) is None
    leave_request(store, "pause")
    assert take_request(store) == "pause"
    assert take_request(store) is None
    store.write("request.json", b'{"request": "explode"}')
    assert take_request(store) is None


def test_a_dry_run_of_going_on_says_that_there_is_no_such_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(dump(apply_overrides(default_config(), {"storage.uri": str(tmp_path / "runs")})))
    refused = run_command(monkeypatch, capsys, "sweep", str(file), "--resume", "nothere", "--dry-run")
    assert refused.code == 4
    assert "nothere: there is no sweep to go on with" in refused.err
    assert refused.out == ""
