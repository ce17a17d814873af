"""A whole sweep in a network namespace with no way out, with canary secrets planted and searched for afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from image_data import image_folder
from tiny_sweeps import TINY

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CANARIES = {
    "AWS_ACCESS_KEY_ID": "AKIACANARY0000000001",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-secret-0123456789abcdef",
    "AWS_SESSION_TOKEN": "canary-aws-session-0123456789abcdef",
    "MLFLOW_TRACKING_PASSWORD": "canary-mlflow-password-0123456789",
    "RAY_AUTH_TOKEN": "canary0ray0token0123456789abcdef0123456789",
    "DATABASE_PASSWORD": "canary-database-password-0123456789",
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The outcome of `orchestrator sweep` without a network, and the folder that holds all it wrote."""
    folder = Path(tmp_path_factory.mktemp("s"))
    image_folder(folder / "data", images=24)
    sections: dict[str, dict[str, object]] = {"sweep": {"space": {"train.seed": {"choices": [0]}}}}
    for key, value in {
        **TINY,
        "data.source": str(folder / "data"),
        "storage.uri": str(folder / "runs"),
    }.items():
        section, _, name = key.rpartition(".")
        if section:
            sections.setdefault(section, {})[name] = value
    sections["sweep"] = {"space": {"optimizer.learning_rate": {"choices": [0.001, 0.002]}}}
    (folder / "sweep.json").write_text(json.dumps({"name": "tiny", **sections}))  # JSON is YAML
    temporary = Path("/tmp") / f"o{os.getpid()}"  # Ray's socket paths must be short
    temporary.mkdir()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))},
        **CANARIES,
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "RAY_TMPDIR": str(temporary),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    isolated = (
        ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    )
    script = 'ip link set lo up && exec "$@"'
    command = [sys.executable, "-m", "orchestrator", "-v", "sweep", "sweep.json", "--num-cpus", "2"]
    done = subprocess.run(
        [*isolated, "sh", "-c", script, "sh", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    temporary.rename(folder / "temporary")
    return done, folder


def test_a_sweep_needs_no_network(swept: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = swept
    assert done.returncode == 0, done.stderr[-3000:]


def test_no_secret_of_the_environment_is_in_any_file_or_output(
    swept: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, folder = swept
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [
        (str(path.relative_to(folder)), name)
        for path in files
        for name, value in CANARIES.items()
        if value.encode() in path.read_bytes()
    ]
    assert any(path.name == "mlflow.db" for path in files)
    assert any("raylet" in path.name for path in files)
    assert found == []
    assert [name for name, value in CANARIES.items() if value in done.stdout + done.stderr] == []
