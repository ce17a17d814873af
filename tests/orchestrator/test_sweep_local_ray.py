"""A local Ray under the environments of other machines, in a process of its own: Ray keeps a token for each process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

_ADD_ON_A_WORKER = """
import ray
from orchestrator.cluster.connect import ray_cluster
with ray_cluster(num_cpus=1) as cluster:
    print("cpus", cluster.resources["CPU"], "sum", ray.get(ray.remote(lambda: 5).options(num_cpus=1).remote()))
"""


def test_a_local_ray_is_its_own_without_a_home_and_below_a_long_path(tmp_path: Path) -> None:
    long = tmp_path / "jobdir_0000000" / "a_scratch_folder_such_as_batch_systems_make_them"
    long.mkdir(parents=True)
    elsewhere = {"RAY_ADDRESS": "127.0.0.1:9", "HOME": "/proc/nowhere", "TMPDIR": str(long)}
    ended = subprocess.run(
        [sys.executable, "-c", _ADD_ON_A_WORKER],
        env={**os.environ, **elsewhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cpus 1.0 sum 5" in ended.stdout, ended.stderr
