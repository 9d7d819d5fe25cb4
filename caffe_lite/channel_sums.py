"""Sums over everything but the channel: the gradient of a bias, on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

STRETCH = 1024


def add_channel_sums(x: np.ndarray, out: np.ndarray) -> None:
    """Add the sum of x (N, C, ...) over all axes but the second to out (C,)."""
    if x.size:
        _add_channel_sums(x.reshape(*x.shape[:2], -1), out)


@njit(cache=True, parallel=True, fastmath={"reassoc"})  # vectorised: a fixed order, if not that of the numbers
def _add_channel_sums(x: np.ndarray, out: np.ndarray) -> None:
    for c in prange(x.shape[1]):
        total = np.float64(0)
        for n in range(x.shape[0]):
            for start in range(0, x.shape[2], STRETCH):  # short sums in x's own precision, and those in double
                part = x.dtype.type(0)
                for i in range(start, min(start + STRETCH, x.shape[2])):
                    part += x[n, c, i]
                total += part
        out[c] += total
