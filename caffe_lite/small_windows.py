"""The maximum of small windows at stride 1 or 2, with its place, on the CPU: LANES windows of a row at a time.

``Pooling`` goes down the columns of a row of windows first and then along it, which serves windows of any size but
leaves a row of a narrow image too short for vectors. Here all numbers of LANES windows are compared in registers, two
to three times as fast. In a wide image the rows of a window lie too far apart to be read side by side at the
memory's rate, and it is slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from caffe_lite.simd import LANES, larger, load, load_every_2nd, store, store_places, zeros

LARGEST = 4  # window, in either direction
WIDEST = 160  # image


def covers(kernel: tuple[int, int], stride: tuple[int, int], width: int) -> bool:
    """Is this the faster way for such windows in an image of ``width``?"""
    return max(kernel) <= LARGEST and stride[1] in (1, 2) and width <= WIDEST


@njit(cache=True, parallel=True)
def forward(
    x: np.ndarray, lowest: float, keep: bool, y: np.ndarray, mask: np.ndarray,
    kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
) -> None:  # fmt: skip
    """The maxima y (N, C, OH, OW) of x (N, C, H, W), ``lowest`` where nothing is above it.

    ``keep``: also mask (int32), h * W + w of each maximum, -1 where there is none. The first of equal maxima wins, in
    row-major order; a NaN never does.
    """
    channels, height, width = x.shape[1:]
    windows_h, windows_w = y.shape[2:]
    xf, yf, mf = x.reshape(-1), y.reshape(-1), mask.reshape(-1)
    first = min((pad_w + stride_w - 1) // stride_w, windows_w)  # windows [first, last) lie within the columns
    last = max(first, min((width + pad_w - kernel_w) // stride_w + 1, windows_w))
    for plane in prange(x.shape[0] * channels):
        image, end = xf[plane * height * width :], (plane + 1) * windows_h * windows_w
        for i in range(windows_h):
            top = i * stride_h - pad_h
            rows = max(top, 0), min(top + kernel_h, height)
            to = (plane * windows_h + i) * windows_w
            j = first
            while j < last:
                at = rows[0] * width + j * stride_w - pad_w
                beyond = at + (rows[1] - 1 - rows[0]) * width + kernel_w - 1 + LANES * stride_w
                if beyond > image.size or to + j + LANES > end:
                    break  # whole Vectors would leave x, or the plane of y
                best, which = _vector(image, at, lowest, rows[1] - rows[0], width, kernel_w, stride_w)
                store(yf, to + j, best)  # what lies beyond the row is overwritten by the next one
                if keep:
                    store_places(mf, to + j, which, at, stride_w)
                j += LANES
            _one_by_one(image, lowest, keep, yf, mf, to, 0, first, rows, width, kernel_w, stride_w, pad_w)
            _one_by_one(
                image, lowest, keep, yf, mf, to, min(j, last), windows_w, rows, width, kernel_w, stride_w, pad_w
            )


@njit(inline="always")
def _vector(x: np.ndarray, at: int, lowest: float, rows: int, width: int, kernel: int, stride: int) -> tuple[Any, Any]:
    """(maxima, their places counted from each window's first number, -1: none) of LANES windows."""
    best, which = zeros(x) + lowest, zeros(x) - x.dtype.type(1)
    for r in range(rows):
        for c in range(kernel):
            source = at + r * width + c
            values = load(x, source) if stride == 1 else load_every_2nd(x, source)
            best, which = larger(values, best, r * width + c, which)
    return best, which


@njit(cache=True)
def _one_by_one(
    x: np.ndarray, lowest: float, keep: bool, y: np.ndarray, mask: np.ndarray, to: int, start: int, stop: int,
    rows: tuple[int, int], width: int, kernel: int, stride: int, pad: int,
) -> None:  # fmt: skip
    """Windows [start, stop) of a row, clipped to the image x."""
    for j in range(start, stop):
        left = j * stride - pad
        best, place = x.dtype.type(lowest), -1
        for h in range(rows[0], rows[1]):
            for w in range(max(left, 0), min(left + kernel, width)):
                value = x[np.uintp(h * width + w)]
                if value > best:
                    best, place = value, h * width + w
        y[np.uintp(to + j)] = best
        if keep:
            mask[np.uintp(to + j)] = np.int32(place)
