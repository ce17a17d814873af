"""The counter-based hash behind all draws."""

import torch

from jepa_core.masks.draws import (
    bits_for,
    mix,
    mix_32,
    mix_32_signed,
    mix_int,
    mix_signed,
    sample_keys,
    shuffled,
    smallest,
    streams,
    streams_32,
)


def test_the_tensor_hash_is_splitmix64():
    """The first outputs of SplitMix64 from seed 1234567, as published with the algorithm."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = mix(1234567 + streams(0, 3)).tolist()
    assert [value % (1 << 64) for value in found] == published


def test_the_integer_hash_agrees_with_the_tensor_hash():
    values = [0, 1, -1, 2**63 - 1, -(2**63), 987654321]
    assert mix(torch.tensor(values)).tolist() == [mix_int(value) for value in values]


def test_every_device_hashes_alike():
    values = torch.randint(-(2**63), 2**63 - 1, (3, 1000), generator=torch.Generator().manual_seed(0))
    assert torch.equal(mix(values.clone()), mix_signed(values.clone()))
    low = values.to(torch.int32)
    assert torch.equal(mix_32(low.clone()), mix_32_signed(low.clone()))


def test_keys_of_seeds_epochs_and_samples_are_all_different():
    ids_B = torch.arange(1000).repeat(10)
    epochs_B = torch.arange(10).repeat_interleave(1000)
    keys = torch.cat([sample_keys(seed, epochs_B, ids_B) for seed in range(10)])
    assert len(keys.unique()) == 100_000


def test_every_bit_of_a_draw_is_fair():
    draws = mix(torch.arange(20_000))
    shares = torch.stack([(draws >> bit) & 1 for bit in range(64)]).double().mean(1)
    assert float((shares - 0.5).abs().max()) < 0.02


def test_shuffles_put_every_patch_first_equally_often_and_pairs_either_way_round():
    keys_B = sample_keys(0, torch.zeros(30_000, dtype=torch.int64), torch.arange(30_000))
    ranks = shuffled(keys_B, streams_32(0, 16).view(1, 1, 16), torch.arange(16, dtype=torch.int32))[0]
    first = torch.bincount(ranks.argmin(-1), minlength=16).double() / 30_000
    assert float((first - 1 / 16).abs().max()) < 0.007
    before = (ranks[:, :, None] < ranks[:, None, :]).double().mean(0)
    assert float((before - 0.5)[~torch.eye(16, dtype=torch.bool)].abs().max()) < 0.015


def test_the_smallest_are_those_of_topk():
    ranks = torch.randint(
        0, 1 << 30, (2, 5, 100), dtype=torch.int32, generator=torch.Generator().manual_seed(0)
    )
    expected = ranks.topk(7, largest=False).values
    assert torch.equal(smallest(ranks.clone(), 7), expected)


def test_bits_hold_the_largest_number():
    assert [bits_for(count) for count in (1, 2, 3, 196, 256, 257)] == [1, 1, 2, 8, 8, 9]
