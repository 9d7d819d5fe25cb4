"""What the machine can do: the rates beside which the times of a run are read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def measure(run: Callable[[], Any], repeat: int, warm_up: int = 1) -> list[float]:
    """Seconds of ``repeat`` calls, after ``warm_up`` that are not counted."""
    for _ in range(warm_up):
        run()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def sgemm_rate(repeat: int = 5, size: int = 2048) -> float:
    """GFLOP/s of a square product of NumPy's BLAS in float32, the best of ``repeat``."""
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    out = np.empty_like(a)
    return 2 * size**3 / min(measure(lambda: np.matmul(a, a, out=out), repeat)) / 1e9


def product_rate(repeat: int = 5, size: int = 2048) -> float:
    """GFLOP/s of the faster of BLAS and caffe_lite's own product: what the machine can do, whoever multiplies."""
    from caffe_lite import gemm
    from caffe_lite.device import CPU

    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    out = np.empty_like(a)
    own = 2 * size**3 / min(measure(lambda: gemm.multiply(CPU, a, a, out), repeat)) / 1e9
    return max(own, sgemm_rate(repeat, size))


def copy_bandwidth(repeat: int = 5, megabytes: int = 256) -> float:
    """GB/s read and written together by a copy that no cache holds, by as many threads as numba has."""
    import numba

    @numba.njit(parallel=True)
    def copy(source: np.ndarray, target: np.ndarray) -> None:
        for i in numba.prange(source.size):
            target[i] = source[i]

    source = np.ones(megabytes << 18, dtype=np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / min(measure(lambda: copy(source, target), repeat)) / 1e9
