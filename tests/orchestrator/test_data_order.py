from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.read.order import ORDER_VERSION, GlobalOrder, hash_each, hash_of, uniform, uniforms

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda values: sum(values) > 0)
seeds = st.integers(0, 2**63 - 1)


@examples(100)
@given(sizes, seeds, st.integers(1, 14), st.integers(0, 50))
def test_every_epoch_is_a_permutation(shard_sizes: list[int], seed: int, window: int, epoch: int) -> None:
    order = GlobalOrder(shard_sizes, seed=seed, window_shards=window, first_id=7)
    total = sum(shard_sizes)
    epochs, ids = order.locate(np.arange(epoch * total, (epoch + 1) * total))
    assert sorted(ids.tolist()) == list(range(7, 7 + total))
    assert set(epochs.tolist()) == {epoch}


@examples(50)
@given(sizes, seeds, st.integers(1, 14), st.integers(0, 300), st.integers(1, 64))
def test_a_position_does_not_depend_on_what_is_read_with_it(
    shard_sizes: list[int], seed: int, window: int, start: int, count: int
) -> None:
    together = GlobalOrder(shard_sizes, seed=seed, window_shards=window).locate(
        np.arange(start, start + count)
    )
    alone = GlobalOrder(shard_sizes, seed=seed, window_shards=window)
    single = [alone.locate(np.array([position])) for position in reversed(range(start, start + count))]
    assert [int(ids[0]) for _, ids in reversed(single)] == together[1].tolist()
    assert [int(epochs[0]) for epochs, _ in reversed(single)] == together[0].tolist()


def positions(order: GlobalOrder, epoch: int = 0) -> np.ndarray:
    return np.arange(order.num_samples) + epoch * order.num_samples


@examples(100)
@given(sizes, seeds, st.integers(1, 14), st.integers(1, 64), st.integers(0, 20))
def test_a_batch_is_its_positions_sorted_by_lane(
    shard_sizes: list[int], seed: int, window: int, batch_size: int, step: int
) -> None:
    order = GlobalOrder(shard_sizes, seed=seed, window_shards=window)
    batch = order.batch(step, batch_size)
    assert sorted(batch.tolist()) == list(range(step * batch_size, (step + 1) * batch_size))
    lanes = batch % order.num_samples % order.num_lanes
    assert np.all(np.diff(lanes) >= 0)


def test_ranks_that_divide_the_lanes_read_disjoint_shards() -> None:
    order = GlobalOrder([12] * 24, seed=1, window_shards=8)
    read = [set[int](), set[int]()]
    for step in range(24 * 12 // 16):
        batch = order.locate(order.batch(step, 16))[1]
        for rank in range(2):
            read[rank] |= set(order.shards_of(batch[8 * rank : 8 * rank + 8]))
    assert len(read[0]) == len(read[1]) == 12
    assert not read[0] & read[1]


@pytest.mark.parametrize("window", [1, 2, 16])
def test_as_many_shards_are_read_at_a_time_as_there_are_lanes(window: int) -> None:
    order = GlobalOrder([100] * 64, seed=1, window_shards=window)
    for step in range(0, 6400 // 64, 7):
        assert len(order.shards_of(order.locate(order.batch(step, 64))[1])) <= 2 * window


def test_neighbours_in_a_shard_come_as_far_apart_as_in_a_shuffle_of_the_window() -> None:
    order = GlobalOrder([100] * 64, seed=1, window_shards=16)
    place = np.argsort(order.locate(positions(order))[1])
    apart = np.abs(np.diff(place))[np.arange(1, 6400) % 100 != 0]
    assert apart.mean() == pytest.approx(1600 / 3, rel=0.1)


def test_samples_of_few_shards_are_shuffled_evenly_over_the_epoch() -> None:
    order = GlobalOrder([100] * 16, seed=0, window_shards=16)
    orders = [tuple(order.locate(positions(order, epoch))[1]) for epoch in range(2)]
    assert orders[0] != orders[1]
    moved = np.abs(np.array(orders[0]) - np.arange(1600)).mean() / 1600
    assert moved == pytest.approx(1 / 3, abs=0.03)  # of a uniform shuffle


def test_another_seed_is_another_order() -> None:
    orders = [GlobalOrder([9] * 9, seed=seed, window_shards=3) for seed in (0, 1)]
    assert not np.array_equal(*(order.locate(positions(order))[1] for order in orders))


def test_the_order_is_frozen() -> None:
    """A change here breaks the resuming of every run that was started before it."""
    assert ORDER_VERSION == 2
    _, ids = GlobalOrder([3, 4, 5], seed=42, window_shards=2).locate(np.arange(14))
    assert ids.tolist() == FROZEN_IDS
    _, ids = GlobalOrder([3, 4, 5], seed=42, window_shards=3).locate(np.arange(12))
    assert ids.tolist() == FROZEN_UNIFORM_IDS
    assert uniforms(1, 2, 3, stream=3, count=2).tolist() == pytest.approx(FROZEN_UNIFORMS, abs=0)
    assert [uniform(hash_of(1, 2, 3, 3), index) for index in (0, 1)] == FROZEN_UNIFORMS


def test_the_two_forms_of_the_hash_agree() -> None:
    values = np.array([0, 1, 2**62, 5], dtype=np.int64)
    assert hash_each(hash_of(9, 8), values).tolist() == [hash_of(9, 8, int(value)) for value in values]


def test_drawn_numbers_are_even_and_independent() -> None:
    drawn = np.stack([uniforms(0, 0, number, stream=3, count=4) for number in range(4000)])
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.02
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.06
    assert drawn.min() >= 0
    assert drawn.max() < 1


FROZEN_IDS = [4, 7, 3, 11, 6, 10, 5, 1, 8, 0, 9, 2, 4, 11]
FROZEN_UNIFORM_IDS = [8, 4, 9, 7, 11, 1, 0, 3, 6, 2, 10, 5]
FROZEN_UNIFORMS = [0.4358756731851098, 0.19218389281193948]
