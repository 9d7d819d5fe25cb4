"""Stochastic pooling, which layers/pooling.py calls for pool: STOCHASTIC.

Zeiler and Fergus (2013); behaves as the GPU half of Caffe's PoolingLayer (there is no CPU half there). Values are
meant to be >= 0, as after a ReLU; sums run over the window, row by row, clipped to the image.
    TRAIN  draws one value of each window, with a probability proportional to the value: the first at which the
           running sum reaches u times the whole sum. u, in (0, 1], is a multiple of 2^-24 from caffe_lite.philox,
           so that every device draws the same. Mask as of MAX; the gradient goes to the value drawn.
    TEST   the mean of that, sum x^2 / sum x, or 0 where sum x is not above 0
Where no value can be drawn (an empty window, a negative or a NaN sum) TRAIN gives 0, or NaN for the NaN, and no
gradient.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.layer import Array, Layer
from caffe_lite.philox import WORD, draw_key, philox4x32, signed

kernels = Kernels(__file__)


def draw(layer: Layer, x: Array, y: Array, mask: Array, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    """TRAIN: write y and mask (h * W + w, or -1), both (N, C, OH, OW), from x (N, C, H, W)."""
    key = draw_key(layer.device.rng)
    if layer.device.is_gpu:
        sizes = (*x.shape[2:], *y.shape[2:], *kernel, *stride)
        kernels("stochastic_draw", y.size, x, *signed(*key), *sizes, y, mask, dtype=layer.dtype)
    else:
        _draw(x, *key, y, mask, *kernel, *stride)


def mean(layer: Layer, x: Array, y: Array, sums: Array, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    """TEST: write y and sums, the sum of each window."""
    if layer.device.is_gpu:
        sizes = (*x.shape[2:], *y.shape[2:], *kernel, *stride)
        kernels("stochastic_mean", y.size, x, *sizes, y, sums, dtype=layer.dtype)
    else:
        _mean(x, y, sums, *kernel, *stride)


def mean_backward(
    layer: Layer, x: Array, y: Array, sums: Array, dy: Array, dx: Array,
    kernel: tuple[int, int], stride: tuple[int, int],
) -> None:  # fmt: skip
    """Overwrite dx with the derivative of ``mean``: dy (2 x - y) / sum x, summed over the windows."""
    if layer.device.is_gpu:
        sizes = (*x.shape[2:], *y.shape[2:], *kernel, *stride)
        kernels("stochastic_mean_backward", x.size, x, y, sums, dy, *sizes, dx, dtype=layer.dtype)
    else:
        _mean_backward(x, y, sums, dy, dx, *kernel, *stride)


@numba.njit(cache=True)
def _draw(
    x: np.ndarray, key0: np.uint64, key1: np.uint64, y: np.ndarray, mask: np.ndarray,
    kernel_h: int, kernel_w: int, stride_h: int, stride_w: int,
) -> None:  # fmt: skip
    channels, height, width = x.shape[1:]
    windows_h, windows_w = y.shape[2:]
    zero = np.uint64(0)
    for index in range(y.size):
        i, j = index // windows_w % windows_h, index % windows_w
        plane = index // (windows_h * windows_w)
        values = x[plane // channels, plane % channels]
        h1, w1 = min(i * stride_h + kernel_h, height), min(j * stride_w + kernel_w, width)
        total = x.dtype.type(0)
        for h in range(i * stride_h, h1):
            for w in range(j * stride_w, w1):
                total += values[h, w]
        counter = np.uint64(index // 4)
        words = philox4x32(counter & WORD, counter >> np.uint64(32), zero, zero, key0, key1)
        u = x.dtype.type((words[index % 4] >> np.uint64(8)) + np.uint64(1)) * x.dtype.type(2.0**-24)
        threshold = u * total
        drawn, value, running = -1, (x.dtype.type(0) if total == total else total), x.dtype.type(0)
        for h in range(i * stride_h, h1):
            for w in range(j * stride_w, w1):
                running += values[h, w]
                if drawn < 0 and running >= threshold:
                    drawn, value = h * width + w, values[h, w]
        y[plane // channels, plane % channels, i, j] = value
        mask[plane // channels, plane % channels, i, j] = drawn


@numba.njit(cache=True)
def _mean(
    x: np.ndarray, y: np.ndarray, sums: np.ndarray, kernel_h: int, kernel_w: int, stride_h: int, stride_w: int
) -> None:
    for n, c, i, j in np.ndindex(y.shape):
        total, squares = x.dtype.type(0), x.dtype.type(0)
        for h in range(i * stride_h, min(i * stride_h + kernel_h, x.shape[2])):
            for w in range(j * stride_w, min(j * stride_w + kernel_w, x.shape[3])):
                total += x[n, c, h, w]
                squares += x[n, c, h, w] * x[n, c, h, w]
        y[n, c, i, j] = squares / total if total > 0 else 0
        sums[n, c, i, j] = total


@numba.njit(cache=True)
def _mean_backward(
    x: np.ndarray, y: np.ndarray, sums: np.ndarray, dy: np.ndarray, dx: np.ndarray,
    kernel_h: int, kernel_w: int, stride_h: int, stride_w: int,
) -> None:  # fmt: skip
    dx[:] = 0
    for n, c, i, j in np.ndindex(y.shape):
        if not sums[n, c, i, j] > 0:
            continue
        slope = dy[n, c, i, j] / sums[n, c, i, j]
        for h in range(i * stride_h, min(i * stride_h + kernel_h, x.shape[2])):
            for w in range(j * stride_w, min(j * stride_w + kernel_w, x.shape[3])):
                dx[n, c, h, w] += slope * (x[n, c, h, w] + x[n, c, h, w] - y[n, c, i, j])
