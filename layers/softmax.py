"""Softmax: y_c = exp(x_c) / sum over k of exp(x_k), along ``axis`` (1).

Behaves as Caffe's SoftmaxLayer: the maximum is subtracted first, so that nothing overflows; may run in
place.
    bottom[0], top[0]  (outer axes, C, inner axes), the same; one softmax for each outer and inner position
The gradient is (dy_c - sum over k of dy_k y_k) y_c.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from caffe_lite.device import Device
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.neuron import exp
from caffe_lite.parallel import split
from caffe_lite.registry import register_layer


@register_layer("Softmax")
class Softmax(Layer):
    exact_bottoms, exact_tops = 1, 1
    in_place = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        axis = self.canonical_axis(bottom[0], self.param.softmax_param.axis)
        shape = bottom[0].shape
        self.check_shape(shape[axis] > 0, f"axis {axis} must have at least one class, got shape {shape}")
        self.rows = bottom[0].count_of(0, axis), shape[axis], bottom[0].count_of(axis + 1)
        top[0].reshape(shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        softmax(self.device, bottom[0].data.reshape(self.rows), top[0].data.reshape(self.rows))

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        y, dy, dx = (a.reshape(self.rows) for a in (top[0].data, top[0].diff, bottom[0].diff))
        if not self.device.is_gpu:
            _along_classes(_rows_backward, _columns_backward, y, dy, dx)
            return
        in_place = top[0] is bottom[0]
        product = self.device.workspace("softmax", self.rows, self.dtype) if in_place else dx
        self.xp.multiply(dy, y, out=product)
        dot = product.sum(axis=1, keepdims=True)
        self.xp.subtract(dy, dot, out=dx)
        self.xp.multiply(dx, y, out=dx)


def softmax(device: Device, x: Array, y: Array) -> None:
    """Softmax along axis 1 of ``x``, shape (outer, C, inner), into ``y``, which may be ``x``."""
    if device.is_gpu:
        xp = device.xp
        xp.subtract(x, x.max(axis=1, keepdims=True), out=y)
        xp.exp(y, out=y)
        xp.divide(y, y.sum(axis=1, keepdims=True), out=y)
    else:
        _along_classes(_rows, _columns, x, y)


def _along_classes(rows: Callable[..., None], columns: Callable[..., None], *arrays: Array) -> None:
    """Call the kernel for matrices (rows, C) or that for (outer, C, inner), on all threads."""
    outer, classes, inner = arrays[0].shape
    if inner == 1:
        arrays = tuple(a.reshape(outer, classes) for a in arrays)
    kernel = rows if inner == 1 else columns
    split(lambda first, last: kernel(*arrays, first, last), outer * inner, arrays[0].size)


BLOCK = 512  # positions whose softmaxes are computed side by side: their classes stay in the cache


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _rows(x: np.ndarray, y: np.ndarray, first: int, last: int) -> None:
    """Rows [first, last) of ``x`` (rows, C)."""
    for row in range(first, last):
        peak = _largest(x[row])
        for c in range(x.shape[1]):
            y[row, c] = exp(x[row, c] - peak)
        total = _sum(y[row])
        for c in range(x.shape[1]):
            y[row, c] /= total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _columns(x: np.ndarray, y: np.ndarray, first: int, last: int) -> None:
    """Positions [first, last) of outer x inner of ``x`` (outer, C, inner)."""
    inner = x.shape[2]
    peaks, totals = np.empty(BLOCK, x.dtype), np.empty(BLOCK, x.dtype)
    position = first
    while position < last:
        n, j = position // inner, position % inner
        count = min(BLOCK, last - position, inner - j)
        peak, total = peaks[:count], totals[:count]
        peak[:] = x[n, 0, j : j + count]
        total[:] = 0
        for c in range(1, x.shape[1]):
            row = x[n, c, j : j + count]
            for i in range(count):
                peak[i] = row[i] if row[i] > peak[i] else peak[i]
        for c in range(x.shape[1]):
            row, out = x[n, c, j : j + count], y[n, c, j : j + count]
            for i in range(count):
                out[i] = exp(row[i] - peak[i])
                total[i] += out[i]
        for c in range(x.shape[1]):
            out = y[n, c, j : j + count]
            for i in range(count):
                out[i] /= total[i]
        position += count


@numba.njit(cache=True, nogil=True)
def _largest(x: np.ndarray) -> float:
    """The maximum of a vector; any number if it holds a NaN, which makes the softmax a NaN anyway."""
    a = b = c = d = e = f = g = h = x[0]
    whole = x.size // 8 * 8
    for i in range(0, whole, 8):  # eight at a time, which LLVM makes one vector of
        a = x[i] if x[i] > a else a
        b = x[i + 1] if x[i + 1] > b else b
        c = x[i + 2] if x[i + 2] > c else c
        d = x[i + 3] if x[i + 3] > d else d
        e = x[i + 4] if x[i + 4] > e else e
        f = x[i + 5] if x[i + 5] > f else f
        g = x[i + 6] if x[i + 6] > g else g
        h = x[i + 7] if x[i + 7] > h else h
    peak = max(a, b, c, d, e, f, g, h)
    for i in range(whole, x.size):
        peak = x[i] if x[i] > peak else peak
    return peak


@numba.njit(cache=True, nogil=True, fastmath={"reassoc"})  # vectorised: a fixed order, if not that of the numbers
def _sum(x: np.ndarray) -> float:
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i]
    return total


@numba.njit(cache=True, nogil=True, fastmath={"reassoc"})
def _dot(x: np.ndarray, y: np.ndarray) -> float:
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@numba.njit(cache=True, nogil=True)
def _rows_backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray, first: int, last: int) -> None:
    """Rows [first, last) of ``y`` (rows, C); ``dx`` may be ``dy``."""
    for row in range(first, last):
        dot = _dot(dy[row], y[row])
        for c in range(y.shape[1]):
            dx[row, c] = (dy[row, c] - dot) * y[row, c]


@numba.njit(cache=True, nogil=True)
def _columns_backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray, first: int, last: int) -> None:
    """Positions [first, last) of outer x inner of ``y`` (outer, C, inner); ``dx`` may be ``dy``."""
    inner = y.shape[2]
    dots = np.empty(BLOCK, y.dtype)
    position = first
    while position < last:
        n, j = position // inner, position % inner
        count = min(BLOCK, last - position, inner - j)
        dot = dots[:count]
        dot[:] = 0
        for c in range(y.shape[1]):
            above, out = dy[n, c, j : j + count], y[n, c, j : j + count]
            for i in range(count):
                dot[i] += above[i] * out[i]
        for c in range(y.shape[1]):
            above, out, below = dy[n, c, j : j + count], y[n, c, j : j + count], dx[n, c, j : j + count]
            for i in range(count):
                below[i] = (above[i] - dot[i]) * out[i]
        position += count
