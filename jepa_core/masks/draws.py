"""Random draws as a function of what they are for: counter-based hashing in int64 tensor arithmetic.

A draw is `mix(key + stream * GOLDEN)`, where the key of a sample is a hash of (run seed, epoch, sample id). There is
no state to save, to share between workers or to restore, and integer arithmetic gives the same bits on every device.
The mixing function is that of `jepa_core.splitmix64`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jepa_core import splitmix64

GOLDEN = splitmix64.GOLDEN - splitmix64.LIMIT
_FACTOR_1 = splitmix64.FACTOR_1 - splitmix64.LIMIT
_FACTOR_2 = splitmix64.FACTOR_2 - splitmix64.LIMIT
RANK_LIMIT = 1 << 29
_EPOCH_FACTOR = 0xD1B54A32D192ED03 - (1 << 64)
_FACTOR_3 = 0x7FEB352D
_FACTOR_4 = 0x846CA68B - (1 << 32)


def mix(values: Tensor) -> Tensor:
    """Hash int64 values into int64 values whose 64 bits are all well mixed. Works in place on its argument.

    On a CPU NumPy does the same in half the time, having unsigned integers.
    """
    if values.device.type == "cpu":
        splitmix64.mix_bits(values.numpy().view(np.uint64))
        return values
    return mix_signed(values)


def mix_signed(values: Tensor) -> Tensor:
    """`mix` on any device."""
    values ^= (values >> 30) & ((1 << 34) - 1)
    values *= _FACTOR_1
    values ^= (values >> 27) & ((1 << 37) - 1)
    values *= _FACTOR_2
    values ^= (values >> 31) & ((1 << 33) - 1)
    return values


def mix_int(value: int) -> int:
    """`mix` of one Python integer, taken modulo 2**64; the result is in the range of int64."""
    mixed = splitmix64.mix_int(value % splitmix64.LIMIT)
    return mixed - splitmix64.LIMIT if mixed >> 63 else mixed


def mix_32(values: Tensor) -> Tensor:
    """Hash int32 values in place; the highest bits are the best. For the many draws of which only the order counts.

    Source: the multipliers are those of Wellons, "Prospecting for hash functions" (2018).
    """
    if values.device.type == "cpu":
        bits = values.numpy().view(np.uint32)
        bits ^= bits >> np.uint32(16)
        bits *= np.uint32(_FACTOR_3)
        bits ^= bits >> np.uint32(15)
        bits *= np.uint32(_FACTOR_4 & 0xFFFFFFFF)
        return values
    return mix_32_signed(values)


def mix_32_signed(values: Tensor) -> Tensor:
    """`mix_32` on any device."""
    values ^= (values >> 16) & 0xFFFF
    values *= _FACTOR_3
    values ^= (values >> 15) & 0x1FFFF
    values *= _FACTOR_4
    return values


def sample_keys(seed: int, epochs_B: Tensor, sample_ids_B: Tensor) -> Tensor:
    """The key of each (run seed, epoch, sample id): int64 [B]."""
    return mix(sample_ids_B * GOLDEN + (epochs_B * _EPOCH_FACTOR + mix_int(seed + GOLDEN)))


def streams(first: int, count: int) -> Tensor:
    """Offsets of the streams `first` to `first + count - 1`, to add to keys: int64 [count]."""
    return torch.arange(first + 1, first + 1 + count) * GOLDEN


def streams_32(first: int, count: int) -> Tensor:
    """Offsets of streams to add to the low halves of keys, all different: int32 [count]."""
    return (torch.arange(first, first + count) * 0x9E3779B9).to(torch.int32)


def shuffled(keys_B: Tensor, offsets: Tensor, patches: Tensor) -> Tensor:
    """A random number below `RANK_LIMIT` for each patch, whose lowest bits are the patch: int32 [blocks, B, N].

    `offsets` are streams [blocks, 1, N], `patches` the int32 numbers 0 to N - 1.
    """
    ranks = mix_32(offsets + keys_B.to(torch.int32)[:, None])
    ranks &= RANK_LIMIT - (1 << bits_for(len(patches)))
    ranks |= patches
    return ranks


def smallest(ranks: Tensor, count: int) -> Tensor:
    """The smallest int32 numbers of each row in ascending order; changes its argument.

    On a CPU a full sort by NumPy, which uses vector instructions, is ten times faster than `topk`.
    """
    if ranks.device.type == "cpu":
        ranks.numpy().sort(axis=-1)
        return ranks[..., :count]
    return ranks.topk(count, dim=-1, largest=False).values


def bits_for(count: int) -> int:
    """Bits that hold the numbers 0 to count - 1."""
    return max(1, (count - 1).bit_length())


def low_bits(draws: Tensor, num_bits: int) -> Tensor:
    """The lowest bits of draws, as int64 from 0 to 2**num_bits - 1."""
    return draws & ((1 << num_bits) - 1)


def below(bits_31: Tensor, limit: Tensor | int) -> Tensor:
    """A whole number from 0 to limit - 1, uniform, from 31 random bits. `limit` is far below 2**31."""
    return (bits_31 * limit) >> 31
