"""Pooling: the maximum, the average or a random value of every window of every channel.

Behaves as Caffe's PoolingLayer. N images, C channels, H x W:
    bottom[0]  (N, C, H, W)
    top[0]     (N, C, OH, OW)  OH = ceil((H + 2 pad - kernel) / stride) + 1 (floor with round_mode: FLOOR);
               with padding, a last window that starts at or beyond H + pad is left out
    top[1]     (N, C, OH, OW)  optional, MAX only: h * W + w of each maximum
Window (i, j) covers rows [i stride - pad, i stride - pad + kernel), clipped to the image; columns alike.
MAX: the first of equal maxima wins. NaN is never a maximum; a window of nothing greater than -FLT_MAX
(all NaN, or empty) gives -FLT_MAX, mask -1 and no gradient. AVE: divided by the window clipped to
[-pad, H + pad): padding counts, the overhang beyond it does not. STOCHASTIC, which takes no padding: TRAIN draws a
value with a probability proportional to it, TEST gives the mean of that (caffe_lite.layers.stochastic_pooling). The
gradient goes to bottom[0].

Differs from Caffe: the average of an empty window is 0 (there -0 or NaN); STOCHASTIC runs on the CPU, too, with other
random numbers, and has its own gradient in TEST (there it is TRAIN's, of whatever was drawn last).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from caffe_lite import small_windows
from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.layers import stochastic_pooling
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
LOWEST = -float(np.finfo(np.float32).max)  # -FLT_MAX, in float64 nets too, as in Caffe


@register_layer("Pooling")
class Pooling(Layer):
    exact_bottoms = 1
    min_tops, max_tops = 1, 2

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.pooling_param
        self.check(p.pool == p.MAX or len(top) == 1, "only pool: MAX has a second top, the mask")
        if p.global_pooling:
            sized = any(p.HasField(f) for f in ("kernel_size", "kernel_h", "kernel_w"))
            self.check(
                not sized, "global_pooling: true takes the whole image: leave kernel_size, kernel_h, kernel_w out"
            )
            self.kernel = (0, 0)  # in reshape
        else:
            given = p.HasField("kernel_size") or (p.HasField("kernel_h") and p.HasField("kernel_w"))
            self.check(given, "needs kernel_size, or kernel_h and kernel_w, or global_pooling: true")
            self.kernel = self._pair(p, "kernel_size", "kernel_h", "kernel_w")
            self.check(min(self.kernel) > 0, f"a kernel must be > 0, got {self.kernel[0]} x {self.kernel[1]}")
        self.stride = self._pair(p, "stride", "stride_h", "stride_w")
        self.pad = self._pair(p, "pad", "pad_h", "pad_w")
        self.check(min(self.stride) > 0, f"a stride must be > 0, got {self.stride[0]} x {self.stride[1]}")
        if p.global_pooling:
            plain = self.stride == (1, 1) and self.pad == (0, 0)
            given = f"pad {self.pad}, stride {self.stride}"
            self.check(plain, f"global_pooling: true needs pad 0 and stride 1, got {given}")
        else:
            smaller = self.pad[0] < self.kernel[0] and self.pad[1] < self.kernel[1]
            self.check(smaller, f"pad must be smaller than the kernel, got pad {self.pad}, kernel {self.kernel}")
        self.stochastic = p.pool == p.STOCHASTIC
        self.check(not (self.stochastic and any(self.pad)), f"pool: STOCHASTIC takes no padding, got pad {self.pad}")
        self.picks = p.pool == p.MAX or self.stochastic and self.phase == 0  # one value of each window
        self.mask = Blob((), "int32", self.device)  # where the picked values are: forward saves it for backward
        self.mask_is_kept = False
        self.sums = Blob((), self.dtype, self.device)  # of the windows, for STOCHASTIC in TEST

    def _pair(self, p: Any, both: str, h: str, w: str) -> tuple[int, int]:
        """(height, width) of a parameter given once, or as its _h and _w."""
        split = p.HasField(h), p.HasField(w)
        self.check(not (p.HasField(both) and any(split)), f"give {both}, or {h} and {w}, not both")
        self.check(split[0] == split[1], f"give both {h} and {w}")
        return (getattr(p, h), getattr(p, w)) if all(split) else (getattr(p, both),) * 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.check_shape(len(bottom[0].shape) == 4, f"bottom must have shape (N, C, H, W), got {bottom[0].shape}")
        n, c, height, width = bottom[0].shape
        if self.param.pooling_param.global_pooling:
            self.kernel = (height, width)
        size = self._windows(height, 0), self._windows(width, 1)
        window = f"a {self.kernel[0]} x {self.kernel[1]} window with pad {self.pad}"
        self.check_shape(min(size) > 0, f"{window} does not fit {height} x {width}")
        for blob in (*top, self.mask, self.sums):
            blob.reshape(n, c, *size)
        self.geometry = (*self.kernel, *self.stride, *self.pad)

    def _windows(self, size: int, axis: int) -> int:
        """How many windows there are along an axis of ``size``."""
        kernel, stride, pad = self.kernel[axis], self.stride[axis], self.pad[axis]
        p = self.param.pooling_param
        rounded = np.floor if p.round_mode == p.FLOOR else np.ceil
        windows = int(rounded(np.float32(size + 2 * pad - kernel) / np.float32(stride))) + 1  # in float, as Caffe
        if any(self.pad) and (windows - 1) * stride >= size + pad:
            windows -= 1
        return windows

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if not self.stochastic:
            super().forward(bottom, top)
        elif self.picks:
            stochastic_pooling.draw(self, bottom[0].data, top[0].data, self.mask.data, self.kernel, self.stride)
        else:
            stochastic_pooling.mean(self, bottom[0].data, top[0].data, self.sums.data, self.kernel, self.stride)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        if self.stochastic and not self.picks:
            saved = bottom[0].data, top[0].data, self.sums.data
            stochastic_pooling.mean_backward(self, *saved, top[0].diff, bottom[0].diff, self.kernel, self.stride)
        else:
            super().backward(top, propagate_down, bottom)

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.pooling_param
        # A TEST net seldom runs backward, which otherwise finds the maxima again.
        self.mask_is_kept = p.pool == p.MAX and (self.phase == 0 or len(top) == 2)
        self._pool(bottom[0].data, self.mask_is_kept, top[0].data)
        if len(top) == 2:
            top[1].data[...] = self.mask.data

    def _pool(self, x: Array, keep: bool, y: Array) -> None:
        """Maxima or averages; ``keep``: also the maxima's places, in the mask."""
        is_max = self.param.pooling_param.pool == self.param.pooling_param.MAX
        if is_max and small_windows.covers(self.kernel, self.stride, x.shape[3]):
            small_windows.forward(x, LOWEST, keep, y, self.mask.data, *self.geometry)
        else:
            _forward(x, is_max, keep, y, self.mask.data, *self.geometry)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        p = self.param.pooling_param
        if p.pool == p.MAX and not self.mask_is_kept:
            scratch = self.device.workspace("pooling", top[0].shape, self.dtype)
            self._pool(bottom[0].data, True, scratch)
        _backward(top[0].diff, self.picks, self.mask.data, bottom[0].diff, *self.geometry)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.pooling_param
        sizes = (*bottom[0].shape[2:], *top[0].shape[2:], *self.geometry)
        if p.pool == p.AVE:
            kernels("pool_ave_forward", top[0].count, bottom[0].data, *sizes, top[0].data, dtype=self.dtype)
            return
        kernels("pool_max_forward", top[0].count, bottom[0].data, *sizes, top[0].data, self.mask.data, dtype=self.dtype)
        if len(top) == 2:
            top[1].data[...] = self.mask.data

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        sizes = (*bottom[0].shape[2:], *top[0].shape[2:], *self.geometry)
        if not self.picks:
            kernels("pool_ave_backward", bottom[0].count, top[0].diff, *sizes, bottom[0].diff, dtype=self.dtype)
        else:
            saved = top[0].diff, self.mask.data
            kernels("pool_max_backward", bottom[0].count, *saved, *sizes, bottom[0].diff, dtype=self.dtype)


@numba.njit(inline="always")
def _divisor(window: int, kernel: int, stride: int, pad: int, size: int) -> int:
    """Length of a window clipped to [-pad, size + pad)."""
    start = window * stride - pad
    return min(start + kernel, size + pad) - start


# A row of windows at a time: first down the columns, over the rows of the window, into a line as wide as the
# padded image; then along the line, ``kernel`` columns for each window. Both loops vectorise.
@numba.njit(cache=True, parallel=True)
def _forward(
    x: np.ndarray, is_max: bool, keep: bool, y: np.ndarray, mask: np.ndarray,
    kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
) -> None:  # fmt: skip
    channels, height, width = x.shape[1:]
    windows_h, windows_w = y.shape[2:]
    padded = max(pad_w + width, (windows_w - 1) * stride_w + kernel_w)
    for plane in numba.prange(x.shape[0] * channels):
        n, c = plane // channels, plane % channels
        line = np.empty(padded, x.dtype)
        rows = np.empty(padded if keep else 0, np.int32)  # of the maxima in line
        middle = line[pad_w : pad_w + width]
        for i in range(windows_h):
            start = i * stride_h - pad_h
            line[:] = LOWEST if is_max else 0
            rows[:] = -1
            for h in range(max(start, 0), min(start + kernel_h, height)):
                if keep:
                    _max_down_with_row(x[n, c, h], h, middle, rows[pad_w : pad_w + width])
                elif is_max:
                    _max_down(x[n, c, h], middle)
                else:
                    middle += x[n, c, h]
            if keep:
                _max_along_with_index(line, rows, kernel_w, stride_w, width, pad_w, y[n, c, i], mask[n, c, i])
            elif is_max:
                _max_along(line, kernel_w, stride_w, y[n, c, i])
            else:
                length = _divisor(i, kernel_h, stride_h, pad_h, height)
                for j in range(windows_w):
                    area = length * _divisor(j, kernel_w, stride_w, pad_w, width)
                    total = line[j * stride_w : j * stride_w + kernel_w].sum()
                    y[n, c, i, j] = total / x.dtype.type(area) if area > 0 else 0


@numba.njit(cache=True)
def _max_down(row: np.ndarray, best: np.ndarray) -> None:
    for w in range(row.size):
        v = row[w]
        best[w] = v if v > best[w] else best[w]


@numba.njit(cache=True)
def _max_down_with_row(row: np.ndarray, h: int, best: np.ndarray, rows: np.ndarray) -> None:
    for w in range(row.size):
        v = row[w]
        greater = v > best[w]
        best[w] = v if greater else best[w]
        rows[w] = np.int32(h) if greater else rows[w]


@numba.njit(cache=True)
def _max_along(line: np.ndarray, kernel: int, stride: int, y: np.ndarray) -> None:
    # With constants the compiler unrolls and vectorises: three times as fast.
    if kernel == 2 and stride == 2:
        _max_of(line, 2, 2, y)
    elif kernel == 3 and stride == 2:
        _max_of(line, 3, 2, y)
    elif kernel == 3 and stride == 1:
        _max_of(line, 3, 1, y)
    else:
        _max_of(line, kernel, stride, y)


@numba.njit(inline="always")
def _max_of(line: np.ndarray, kernel: int, stride: int, y: np.ndarray) -> None:
    for j in range(y.size):
        best = line[stride * j]
        for k in range(1, kernel):
            v = line[stride * j + k]
            best = v if v > best else best
        y[j] = best


@numba.njit(cache=True)
def _max_along_with_index(
    line: np.ndarray, rows: np.ndarray, kernel: int, stride: int, width: int, pad: int, y: np.ndarray, mask: np.ndarray
) -> None:
    if kernel == 2 and stride == 2:
        _first_max_of(line, rows, 2, 2, width, pad, y, mask)
    elif kernel == 3 and stride == 2:
        _first_max_of(line, rows, 3, 2, width, pad, y, mask)
    elif kernel == 3 and stride == 1:
        _first_max_of(line, rows, 3, 1, width, pad, y, mask)
    else:
        _first_max_of(line, rows, kernel, stride, width, pad, y, mask)


@numba.njit(inline="always")
def _first_max_of(
    line: np.ndarray, rows: np.ndarray, kernel: int, stride: int, width: int, pad: int, y: np.ndarray, mask: np.ndarray
) -> None:
    """Among equal maxima of several columns the upper row wins, in one row the left column."""
    for j in range(y.size):
        best, row, column = line[stride * j], rows[stride * j], stride * j
        for k in range(1, kernel):
            v, r = line[stride * j + k], rows[stride * j + k]
            better = (v > best) | ((v == best) & (r < row))
            best = v if better else best
            row = r if better else row
            column = stride * j + k if better else column
        y[j] = best
        mask[j] = np.int32(row * width + column - pad) if row >= 0 else np.int32(-1)


@numba.njit(cache=True, parallel=True)
def _backward(
    dy: np.ndarray, is_max: bool, mask: np.ndarray, dx: np.ndarray,
    kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
) -> None:  # fmt: skip
    channels, height, width = dx.shape[1:]
    windows_h, windows_w = dy.shape[2:]
    padded = max(pad_w + width, (windows_w - 1) * stride_w + kernel_w)
    for plane in numba.prange(dx.shape[0] * channels):
        n, c = plane // channels, plane % channels
        dx[n, c] = 0
        if is_max:
            flat = dx[n, c].reshape(height * width)
            for i in range(windows_h):
                for j in range(windows_w):
                    index = mask[n, c, i, j]
                    if index >= 0:
                        flat[index] += dy[n, c, i, j]
            continue
        line = np.empty(padded, dy.dtype)
        for i in range(windows_h):
            start = i * stride_h - pad_h
            length = _divisor(i, kernel_h, stride_h, pad_h, height)
            line[:] = 0
            for j in range(windows_w):
                area = length * _divisor(j, kernel_w, stride_w, pad_w, width)
                if area > 0:
                    line[j * stride_w : j * stride_w + kernel_w] += dy[n, c, i, j] / dy.dtype.type(area)
            for h in range(max(start, 0), min(start + kernel_h, height)):
                dx[n, c, h] += line[pad_w : pad_w + width]
