"""What each entry loads: a command that reads a few files, or an actor that keeps count, must not load what trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_records import sweep_events, write_journal

TRAINING = ("torch", "torchvision", "timm", "triton")
REPORTING = ("mlflow", "matplotlib", "scipy", "sklearn", "optuna", "onnx", "transformers")
HEAVY = (*TRAINING, *REPORTING, "ray", "boto3", "pandas", "pyarrow", "PIL", "webdataset")
LOOP = ("orchestrator.train.loop.run", "orchestrator.train.evaluate.evaluation")
_ENTRY = """
import contextlib, io, json, sys
from importlib import import_module
heavy, entries = json.loads(sys.argv[1]), json.loads(sys.argv[2])
loaded, failed = {}, {}
def enter(entry):
    if isinstance(entry, str):
        import_module(entry)
        return
    from orchestrator.cli import main
    sys.argv = ["orchestrator", *entry]
    said = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as err:
            code = err.code
    if code:
        failed[" ".join(entry)] = [code, said.getvalue()]
for entry in entries:
    known = set(sys.modules)
    enter(entry)
    fresh = sorted(set(heavy) & (set(sys.modules) - known))
    if fresh:
        loaded[entry if isinstance(entry, str) else " ".join(entry)] = fresh
print(json.dumps([loaded, failed]))
"""


def _enter(*entries: str | list[str], heavy: tuple[str, ...]) -> tuple[dict[str, list[str]], dict[str, list]]:
    """Import modules and run commands in one process; what each loaded of `heavy`, and how commands failed."""
    command = [sys.executable, "-c", _ENTRY, json.dumps(heavy), json.dumps(entries)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded, failed = json.loads(done.stdout.splitlines()[-1])
    return loaded, failed


def test_reading_settings_and_records_loads_no_heavy_library(tmp_path: Path) -> None:
    sweep = write_journal(tmp_path, sweep_events())
    runs = ["--runs", str(tmp_path)]
    commands = [
        ["--help"],
        *([name, "--help"] for name in ("sweep", "pause", "resume", "cancel", "extend", "jobs", "submit")),
        ["ls", *runs],
        ["status", sweep, *runs],
        ["status", sweep, "--json", *runs],
        ["logs", sweep, *runs],
        ["config", "show", "sweeps/masks.yaml"],
        ["config", "explain", "masks.target_scale"],
        ["config", "reference"],
        ["config", "schema"],
    ]
    loaded, failed = _enter("orchestrator", "orchestrator.config", *commands, heavy=HEAVY)
    assert (loaded, failed) == ({}, {})


def test_a_refusal_loads_no_heavy_library(tmp_path: Path) -> None:
    sweep = write_journal(tmp_path, sweep_events())
    ended = ["pause", sweep, "--runs", str(tmp_path)]
    nobody = ["jobs", "ls", "--address", "http://127.0.0.1:1"]
    loaded, failed = _enter(ended, nobody, heavy=HEAVY)
    assert loaded == {}
    assert [code for code, _ in failed.values()] == [2, 7]


def test_the_coordinator_loads_no_heavy_library() -> None:
    assert _enter("orchestrator.sweep.run.coordinator", heavy=HEAVY) == ({}, {})


@pytest.mark.parametrize(
    ("entry", "heavy"),
    [
        ("orchestrator.sweep.search.tune_trial", (*TRAINING, *REPORTING, "boto3", "PIL")),
        ("orchestrator.train.ray.slot", (*REPORTING, "timm", "triton", "boto3")),
        ("orchestrator.sweep.run.driver", (*REPORTING, *LOOP, "timm", "triton", "boto3")),
        ("orchestrator.train.ray.launch", (*REPORTING, *LOOP, "timm", "triton", "boto3")),
    ],
)
def test_a_process_of_a_sweep_loads_what_it_needs(entry: str, heavy: tuple[str, ...]) -> None:
    assert _enter(entry, heavy=heavy) == ({}, {})


def test_an_s3_address_loads_boto3_when_it_is_opened() -> None:
    script = "from orchestrator.storage import open_store; import sys; open_store('s3://bucket/runs')"
    script += "; print('boto3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
