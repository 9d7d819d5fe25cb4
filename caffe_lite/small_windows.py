"""The maximum of small windows at stride 1 or 2, with its place, on the CPU: LANES windows of a row at a time.

``Pooling`` goes down the columns of a row of windows first and then along it, which serves windows of any size but
leaves a row of a narrow image too short for vectors. Here all numbers of LANES windows are compared in registers, two
to three times as fast. In a wide image the rows of a window lie too far apart to be read side by side at the
memory's rate, and it is slower.
"""

from __future__ import annotations

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
    down = height, windows_h, windows_w, kernel_h, stride_h, pad_h
    for plane in prange(x.shape[0] * channels):
        image, to = xf[plane * height * width :], plane * windows_h * windows_w
        # With constants the compiler unrolls.
        if kernel_w == 2 and stride_w == 2:
            _vectors(image, lowest, keep, yf, mf, to, down, first, last, width, 2, 2, pad_w)
        elif kernel_w == 3 and stride_w == 2:
            _vectors(image, lowest, keep, yf, mf, to, down, first, last, width, 3, 2, pad_w)
        elif kernel_w == 3 and stride_w == 1:
            _vectors(image, lowest, keep, yf, mf, to, down, first, last, width, 3, 1, pad_w)
        else:
            _vectors(image, lowest, keep, yf, mf, to, down, first, last, width, kernel_w, stride_w, pad_w)
        end = to + windows_h * windows_w
        for i in range(windows_h):
            rows = _rows(i, height, kernel_h, stride_h, pad_h)
            j = first
            while j < last and _fits(image, rows, j, width, kernel_w, stride_w, pad_w, end - to):
                j += LANES
            _one_by_one(image, lowest, keep, yf, mf, to, 0, first, rows, width, kernel_w, stride_w, pad_w)
            j = min(j, last)
            _one_by_one(image, lowest, keep, yf, mf, to, j, windows_w, rows, width, kernel_w, stride_w, pad_w)
            to += windows_w


@njit(inline="always")
def _rows(i: int, height: int, kernel: int, stride: int, pad: int) -> tuple[int, int]:
    """The rows of the image [first, last) that windows of row i cover."""
    return max(i * stride - pad, 0), min(i * stride - pad + kernel, height)


@njit(inline="always")
def _fits(
    x: np.ndarray, rows: tuple[int, int], j: int, width: int, kernel: int, stride: int, pad: int, left: int
) -> bool:
    """Can whole Vectors be loaded from x for the windows from j on, and stored where ``left`` numbers are left?"""
    beyond = (rows[1] - 1) * width + j * stride - pad + kernel - 1 + LANES * stride
    return beyond <= x.size and j + LANES <= left


@njit(inline="always")
def _vectors(
    x: np.ndarray, lowest: float, keep: bool, y: np.ndarray, mask: np.ndarray, to: int, down: tuple[int, ...],
    first: int, last: int, width: int, kernel: int, stride: int, pad: int,
) -> None:  # fmt: skip
    """A plane's windows [first, last) of each row, LANES at a time, unless that would leave x or the plane of y.

    What is stored beyond the end of a row is overwritten by the next one.
    """
    height, windows_h, windows_w, kernel_h, stride_h, pad_h = down
    end = to + windows_h * windows_w
    for i in range(windows_h):
        rows = _rows(i, height, kernel_h, stride_h, pad_h)
        j = first
        while j < last and _fits(x, rows, j, width, kernel, stride, pad, end - to):
            start = rows[0] * width + j * stride - pad
            best, which = zeros(x) + lowest, zeros(x) - x.dtype.type(1)  # which: places counted from ``start``
            for r in range(rows[1] - rows[0]):
                for c in range(kernel):
                    at = start + r * width + c
                    values = load(x, at) if stride == 1 else load_every_2nd(x, at)
                    best, which = larger(values, best, r * width + c, which)
            store(y, to + j, best)
            if keep:
                store_places(mask, to + j, which, start, stride)
            j += LANES
        to += windows_w


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
