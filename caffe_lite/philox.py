"""Philox4x32-10: random numbers by counter, the same on every device and in any order.

Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011). A layer draws one 64-bit key from the
process's stream a forward; word i % 4 of counter i // 4 under that key is the random number of element i.
``prelude.cuh`` has the same function for kernels.
"""

from __future__ import annotations

import numba
import numpy as np

WORD = np.uint64(0xFFFFFFFF)


def draw_key(rng: np.random.Generator) -> tuple[np.uint64, np.uint64]:
    """The low and the high word of a new key."""
    key = int(rng.integers(0, 2**64, dtype=np.uint64))
    return np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)


def signed(*words: int | np.uint64) -> tuple[int, ...]:
    """32-bit words as the signed integers of the same bits, which is what kernels take."""
    return tuple(int(np.uint32(word).view(np.int32)) for word in words)


@numba.njit(cache=True, inline="always")
def philox4x32(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Four random words from a counter of four and a key of two; 32-bit words, held in uint64."""
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> np.uint64(32)) ^ c1 ^ k0, p1 & WORD, (p0 >> np.uint64(32)) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & WORD, (k1 + np.uint64(0xBB67AE85)) & WORD
    return c0, c1, c2, c3
