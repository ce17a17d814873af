"""The process that a sweep reports to dies under the driver: an exit code on which a keeper starts the driver again."""

import os
import signal

import pytest
import ray

from orchestrator.cluster.connect import ray_cluster
from orchestrator.errors import ClusterError
from orchestrator.jobs.keeper import restart_delay_s


class Coordinator:
    def pid(self) -> int:
        return os.getpid()

    def events(self) -> list[str]:
        return []


def lose_the_coordinator() -> None:
    with ray_cluster(num_cpus=1):
        coordinator = ray.remote(Coordinator).options(num_cpus=0).remote()
        os.kill(ray.get(coordinator.pid.remote()), signal.SIGKILL)
        while True:
            ray.get(coordinator.events.remote())


@pytest.mark.ray
def test_a_coordinator_that_was_killed_is_a_lost_cluster() -> None:
    with pytest.raises(ClusterError, match="every checkpoint are safe") as caught:
        lose_the_coordinator()
    assert restart_delay_s(caught.value.exit_code, 0, 5) is not None
