"""The finaliser of SplitMix64 (Steele, Lea and Flood 2014), behind every counter-based draw.

The same bits come of one integer and of an array. Tensors on other devices, which have no unsigned integers, are hashed
in `jepa_core.masks.draws`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LIMIT = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15
FACTOR_1 = 0xBF58476D1CE4E5B9
FACTOR_2 = 0x94D049BB133111EB
_MASK = LIMIT - 1


def mix_int(value: int) -> int:
    """Hash an integer from 0 to 2**64 - 1 into one whose 64 bits are all well mixed."""
    value ^= value >> 30
    value = (value * FACTOR_1) & _MASK
    value ^= value >> 27
    value = (value * FACTOR_2) & _MASK
    return value ^ (value >> 31)


def mix_bits(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`mix_int` of each value. Works in place on its argument."""
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(FACTOR_1)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(FACTOR_2)
    bits ^= bits >> np.uint64(31)
    return bits
