"""The core on a machine that has torch, timm and numpy alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BLOCKED = """
import sys
BLOCKED = {"orchestrator", "ray", "mlflow", "pydantic", "boto3", "webdataset", "click", "rich", "matplotlib", "optuna",
           "scipy", "sklearn", "pandas", "transformers", "onnx", "onnxscript", "onnxruntime"}
class Wall:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Wall(finder) for finder in sys.meta_path]
"""

TRAIN = """
import pkgutil, jepa_core, torch
for found in pkgutil.walk_packages(jepa_core.__path__, "jepa_core."):
    __import__(found.name)
from jepa_core.measure import measure_step
from jepa_core.masks import MaskSettings, build_sampler
from core_models import tiny_state
state = tiny_state()
sampler = build_sampler(MaskSettings(), state.objective.context_encoder.grid)
found = measure_step(state, sampler, batch_size=2, num_steps=2)
assert found.images_per_s > 0 and 0 < found.utilisation and found.flops.total > 0
"""

BENCHMARKS = """
import importlib
for name in ("harness", "plain", "step", "ema", "optimizer", "masks"):
    importlib.import_module(name)
"""


GPU_TESTS = """
import pytest
class Found:
    def pytest_collection_finish(self, session):
        self.names = {item.originalname for item in session.items}
found = Found()
folder = "tests/jepa_core"
files = [f"{folder}/test_{name}.py" for name in ("step", "execution", "masks_exact", "phases")]
arguments = ["-c", "tests/gpu.ini", "--rootdir", ".", "--noconftest", "-q", "--collect-only", *files]
assert pytest.main(arguments, plugins=[found]) == 0
assert len(found.names) == 4, found.names
"""


@pytest.mark.parametrize(
    "code", [TRAIN, BENCHMARKS, GPU_TESTS], ids=["every-module-and-a-step", "benchmarks", "gpu-tests"]
)
def test_the_core_runs_with_everything_else_blocked(code: str) -> None:
    folders = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
