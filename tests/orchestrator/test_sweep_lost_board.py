"""The process that a sweep reports to dies under the driver: an exit code on which a keeper starts the driver again."""

import os
import signal

import pytest
import ray

from orchestrator.errors import ClusterError
from orchestrator.jobs.keeper import restart_delay_s
from orchestrator.sweep.cluster import ray_cluster


class Board:
    def pid(self) -> int:
        return os.getpid()

    def events(self) -> list[str]:
        return []


def lose_the_board() -> None:
    with ray_cluster(num_cpus=1):
        board = ray.remote(Board).options(num_cpus=0).remote()
        os.kill(ray.get(board.pid.remote()), signal.SIGKILL)
        while True:
            ray.get(board.events.remote())


@pytest.mark.ray
def test_a_board_that_was_killed_is_a_lost_cluster() -> None:
    with pytest.raises(ClusterError, match="every checkpoint are safe") as caught:
        lose_the_board()
    assert restart_delay_s(caught.value.exit_code, 0, 5) is not None
