"""What fails a sweep at its start, found by `orchestrator doctor` and told by the sweep in the same words."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from command_line import run_command

from orchestrator.cli.doctor import examine
from orchestrator.cluster.local import find_ray_folder, ray_folder
from orchestrator.cluster.token import find_token, private_token
from orchestrator.config import apply_overrides, default_config
from orchestrator.errors import ClusterError, OrchestratorError
from orchestrator.sweep.run.checks import check_ray, check_start

LONG = "/tmp/a_scratch_folder_such_as_batch_systems_make_them/jobdir_0000000"
UNWRITABLE = "/proc/nowhere"

FAILS = [
    ({}, {"RAY_TMPDIR": LONG}, 7, "with a path of at most"),
    ({}, {"RAY_TMPDIR": UNWRITABLE}, 7, "/proc cannot be written; set RAY_TMPDIR"),
    ({}, {"RAY_AUTH_TOKEN_PATH": UNWRITABLE}, 7, "no token in RAY_AUTH_TOKEN_PATH"),
    ({"train.num_workers": 500, "train.batch_size": 500}, {}, 7, "one trial needs 500 CPUs"),
    ({"train.gpus_per_worker": 1}, {"CUDA_VISIBLE_DEVICES": ""}, 7, "and 1 GPU "),
    ({"storage.uri": UNWRITABLE}, {}, 4, "cannot write"),
    ({"data.cache_dir": UNWRITABLE}, {}, 4, "choose another data.cache_dir"),
    ({}, {"XDG_CACHE_HOME": UNWRITABLE}, 4, "choose another data.cache_dir"),
    ({"train.init_from": "nothing.pth"}, {}, 2, "train.init_from: must be a file that is there"),
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("values", "environment", "code", "words"), FAILS)
def test_what_fails_a_sweep_at_its_start_is_found_by_doctor(
    values: Mapping[str, object], environment: Mapping[str, str], code: int, words: str, monkeypatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = apply_overrides(default_config(), values)
    with pytest.raises(OrchestratorError, match=words) as refused:
        check_start(config)
    found = [finding for finding in examine(config) if finding.exit_code]
    assert found[0].exit_code == code == refused.value.exit_code
    assert re.search(words, found[0].text)
    assert all(words in f.text or f.name == "tracking" for f in found)  # MLflow's file lies beside the runs


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RAY_ADDRESS", "10.0.0.1:6379", "`--address 10.0.0.1:6379` joins it"),
        ("TMPDIR", LONG, "Ray's sockets and logs go to a folder of their own below /tmp"),
        ("TMPDIR", UNWRITABLE, "/proc cannot be written: Ray's sockets"),
    ],
)
def test_what_a_sweep_goes_round_is_a_warning(name: str, value: str, words: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv(name, value)
    assert words in "\n".join(check_ray(default_config()))
    done = run_command(monkeypatch, capsys, "doctor")
    assert done.code == 0
    assert words in done.out


def test_missing_data_and_a_missing_earlier_sweep_are_found_by_doctor() -> None:
    space = {"masks.num_target_blocks": {"choices": [1, 2]}}
    values = {
        "sweep.space": space,
        "sweep.search": "optuna",
        "sweep.num_trials": 2,
        "sweep.warm_start": "s-1",
    }
    found = examine(apply_overrides(default_config(), {**values, "data.source": "nowhere"}))
    assert {(f.name, f.exit_code) for f in found if f.exit_code} == {("plan", 2), ("data", 3)}


def test_the_folder_of_ray_is_its_own_where_that_works_and_a_private_one_where_not(
    monkeypatch, tmp_path
) -> None:
    assert find_ray_folder({}).path == Path("/tmp/ray")
    assert find_ray_folder({"TMPDIR": "/var/tmp"}).path == Path("/var/tmp/ray")
    monkeypatch.setenv("TMPDIR", LONG)
    with ray_folder() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        socket = folder / "session_2026-01-01_00-00-00_000000_4194304" / "sockets" / "plasma_store"
        assert len(os.fsencode(socket)) <= 107
    assert not folder.exists()


def test_a_home_that_cannot_be_written_costs_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", UNWRITABLE)
    with private_token() as token:
        assert find_token() is not None
        path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert path.read_text() == token.value
        assert path.stat().st_mode & 0o077 == 0
    assert not path.exists()
    assert find_token() is None


def test_ray_on_a_chosen_folder_that_is_too_long_says_what_to_set() -> None:
    with pytest.raises(ClusterError, match="set RAY_TMPDIR to a folder of yours with a path of at most"):
        find_ray_folder({"RAY_TMPDIR": LONG})
