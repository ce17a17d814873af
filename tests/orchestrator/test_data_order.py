from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.data.order import GlobalOrder, hash_each, hash_of, uniforms

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda values: sum(values) > 0)
seeds = st.integers(0, 2**63 - 1)


@settings(max_examples=100, deadline=None)
@given(sizes, seeds, st.integers(1, 14), st.integers(0, 50))
def test_every_epoch_is_a_permutation(shard_sizes: list[int], seed: int, window: int, epoch: int) -> None:
    order = GlobalOrder(shard_sizes, seed=seed, window_shards=window, first_id=7)
    total = sum(shard_sizes)
    epochs, ids = order.locate(np.arange(epoch * total, (epoch + 1) * total))
    assert sorted(ids.tolist()) == list(range(7, 7 + total))
    assert set(epochs.tolist()) == {epoch}


@settings(max_examples=50, deadline=None)
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


def test_a_window_reads_only_its_own_shards() -> None:
    order = GlobalOrder([10] * 12, seed=1, window_shards=3)
    for window in range(4):
        _, ids = order.locate(np.arange(30 * window, 30 * window + 30))
        assert sorted(set((ids // 10).tolist())) == sorted(order.shards_at(30 * window))


def test_the_shards_ahead_go_on_into_the_next_epoch() -> None:
    order = GlobalOrder([10] * 4, seed=1, window_shards=2)
    assert order.shards_at(25, 2) == order.shards_at(20) + order.shards_at(40)


def test_epochs_and_seeds_differ_and_samples_travel_far() -> None:
    total = 16 * 100
    orders = {
        (seed, epoch): tuple(
            GlobalOrder([100] * 16, seed=seed, window_shards=16).locate(np.arange(total) + epoch * total)[1]
        )
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    moved = np.abs(np.array(orders[0, 0]) - np.arange(total)).mean() / total
    assert moved == pytest.approx(1 / 3, abs=0.03)  # of a uniform shuffle


def test_the_order_is_frozen() -> None:
    """A change here breaks the resuming of every run that was started before it."""
    _, ids = GlobalOrder([3, 4, 5], seed=42, window_shards=2).locate(np.arange(14))
    assert ids.tolist() == FROZEN_IDS
    assert uniforms(1, 2, 3, stream=3, count=2).tolist() == pytest.approx(FROZEN_UNIFORMS, abs=0)


def test_the_two_forms_of_the_hash_agree() -> None:
    values = np.array([0, 1, 2**62, 5], dtype=np.int64)
    assert hash_each(hash_of(9, 8), values).tolist() == [hash_of(9, 8, int(value)) for value in values]


def test_drawn_numbers_are_even_and_independent() -> None:
    drawn = np.stack([uniforms(0, 0, number, stream=3, count=4) for number in range(4000)])
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.02
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.06
    assert drawn.min() >= 0
    assert drawn.max() < 1


FROZEN_IDS = [8, 4, 9, 7, 11, 3, 6, 10, 5, 1, 0, 2, 10, 7]
FROZEN_UNIFORMS = [0.4358756731851098, 0.19218389281193948]
