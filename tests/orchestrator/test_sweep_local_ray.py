"""A local Ray starts whatever the environment says of others', of HOME and of temporary folders."""

from pathlib import Path

import pytest
import ray

from orchestrator.sweep.cluster import ray_cluster

pytestmark = pytest.mark.ray


def test_a_local_ray_is_its_own_without_a_home_and_below_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "jobdir_0000000" / "a_scratch_folder_such_as_batch_systems_make_them"
    long.mkdir(parents=True)
    for name, value in (("RAY_ADDRESS", "127.0.0.1:9"), ("HOME", "/proc/nowhere"), ("TMPDIR", str(long))):
        monkeypatch.setenv(name, value)
    with ray_cluster(num_cpus=1) as cluster:
        assert cluster.resources["CPU"] == 1
        assert ray.get(ray.remote(lambda: 5).options(num_cpus=1).remote()) == 5
