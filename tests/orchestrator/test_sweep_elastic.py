"""How many workers a slot runs with, as tables of values; a real cluster that loses a node is in `two_raylets`."""

import pytest

from orchestrator.sweep.run.elastic import choose_size, count_workers, wait_for_size
from orchestrator.train.ray.launch import TrialResources


def _need(num_workers: int, min_workers: int | None = None, **more: object) -> TrialResources:
    sizes = {"cpus_per_worker": 1.0, "gpus_per_worker": 0.0, **more}
    return TrialResources(num_workers=num_workers, min_workers=min_workers, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("most", "least", "sizes"),
    [(4, None, (4,)), (4, 1, (4, 2, 1)), (12, 3, (12, 6, 4, 3)), (8, 8, (8,)), (1, 1, (1,))],
)
def test_a_slot_has_as_many_workers_as_share_a_batch_evenly(
    most: int, least: int | None, sizes: tuple[int, ...]
) -> None:
    assert _need(most, least).sizes == sizes


@pytest.mark.parametrize(
    ("need", "nodes", "num_workers"),
    [
        (_need(4), [{"CPU": 3.5}, {"CPU": 0.9}], 3),
        (_need(4, cpus_per_worker=0.1), [{"CPU": 0.3}], 3),
        (_need(4, gpus_per_worker=1.0), [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0}], 2),
        (_need(4, gpus_per_worker=0.25), [{"CPU": 8.0, "GPU": 0.75}], 3),
        (
            _need(4, gpus_per_worker=1.0, gpu_type="L4"),
            [{"CPU": 8.0, "GPU": 2.0, "accelerator_type:L4": 1.0}, {"CPU": 8.0, "GPU": 8.0}],
            2,
        ),
        (_need(4), [], 0),
    ],
)
def test_no_worker_is_spread_over_two_nodes(
    need: TrialResources, nodes: list[dict[str, float]], num_workers: int
) -> None:
    assert count_workers(need, nodes) == num_workers


@pytest.mark.parametrize(
    ("free", "held", "size"), [(4, 0, 4), (3, 0, 2), (1, 0, None), (1, 2, 2), (2, 2, 4), (9, 2, 4)]
)
def test_a_slot_takes_the_most_that_fit_beside_what_it_holds(free: int, held: int, size: int | None) -> None:
    assert choose_size(_need(4, 2), num_free=free, num_held=held) == size


def test_a_slot_that_fits_nowhere_asks_for_all_its_workers() -> None:
    assert wait_for_size(_need(4, 2), lambda: [{"CPU": 1.0}], settle_s=0.0).num_workers == 4
    assert wait_for_size(_need(4, 2), lambda: [{"CPU": 3.0}], settle_s=0.0).num_workers == 2


def test_what_is_freed_a_little_later_is_waited_for() -> None:
    seen = iter([[{"CPU": 2.0}], [{"CPU": 4.0}]])
    assert wait_for_size(_need(4, 1), lambda: next(seen), settle_s=60.0).num_workers == 4
