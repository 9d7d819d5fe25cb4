"""BatchNorm: brings each channel to mean 0 and variance 1, by the batch or by running averages.

Ioffe and Szegedy (2015), without scale and shift, which a Scale layer adds; behaves as Caffe's BatchNormLayer;
may run in place. m values in each of C channels:
    bottom[0], top[0]  (N, C, ...) or (N,), which is one channel
    blobs[0], blobs[1] (C,)  running sums of the means and of the variances
    blobs[2]           (1,)  by which both are divided before use (0: they count as 0)
    y = (x - mean) / sqrt(variance + eps)
use_global_stats (default: true in TEST, false in TRAIN) takes mean and variance from the blobs. Otherwise they are
the batch's, the variance that of m values (not m - 1), and forward updates, with f = moving_average_fraction:
    blobs[2] = f blobs[2] + 1,  blobs[0] = f blobs[0] + mean,  blobs[1] = f blobs[1] + variance m / (m - 1)
The gradient goes to the bottom only, with s = sqrt(variance + eps):
    dx = (dy - mean(dy) - y mean(y dy)) / s by the batch,  dx = dy / s by running averages
The blobs are statistics, not parameters: setup gives each lr_mult 0 and refuses another one.

Differs from Caffe: a bottom of one axis works (Caffe means to take it, then fails); a batch with no values to take
statistics of is an error. In place x is kept for backward rather than y; not in place nothing is kept.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.device import Device
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.layers.bias import channel_dots, channel_sums
from caffe_lite.registry import register_layer
from caffe_lite.simd import LANES, load, store, zeros

kernels = Kernels(__file__)


@register_layer("BatchNorm")
class BatchNorm(Layer):
    exact_bottoms, exact_tops = 1, 1
    in_place = True
    learns_nothing = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.batch_norm_param
        self.global_stats = p.use_global_stats if p.HasField("use_global_stats") else self.phase == 1
        self.channels = self._channels(bottom[0])
        for shape in ((self.channels,), (self.channels,), (1,)):
            self.add_param(shape)
        for i in range(len(self.blobs)):
            if i == len(self.param.param):
                self.param.param.add(lr_mult=0)
            rate = self.param.param[i].lr_mult
            self.check(rate == 0, f"blob {i} holds statistics, not parameters: its lr_mult must be 0, got {rate:g}")
        self.mean = self.xp.zeros(self.channels, self.dtype)  # forward saves both for backward
        self.deviation = self.xp.ones(self.channels, self.dtype)
        self.x_before = Blob((), self.dtype, self.device)  # in place: what forward overwrote

    def _channels(self, blob: Blob) -> int:
        self.check_shape(blob.shape, "needs a bottom of at least one axis, got shape ()")
        return blob.shape[1] if len(blob.shape) > 1 else 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        channels, shape = self._channels(bottom[0]), bottom[0].shape
        self.check_shape(
            channels == self.channels, f"bottom has {channels} channels (axis 1), not {self.channels}: shape {shape}"
        )
        self.dims = shape[0], channels, bottom[0].count_of(2)
        top[0].reshape(shape)
        if top[0] is bottom[0] and not self.global_stats:
            self.x_before.reshape(shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self.dims), top[0].data.reshape(self.dims)
        if self.global_stats:
            total = self.blobs[2].data
            factor = (total != 0) / (total + (total == 0))  # 1 / total, or 0, without asking a GPU which
            self.mean[...] = self.blobs[0].data * factor
            self.deviation[...] = self._deviation(self.blobs[1].data * factor)
            normalize(self.device, x, self.mean, self.deviation, y)
            return
        self.check_shape(x.size, f"the batch has no values to take statistics of: bottom has shape {bottom[0].shape}")
        if top[0] is bottom[0]:
            self.x_before.data.reshape(self.dims)[...] = x
        values = x.size // self.channels
        self.mean[...] = channel_sums(x) / values
        self.xp.subtract(x, self.mean[:, None], out=y)
        variance = channel_dots(self.device, y, y) / values
        self._update_averages(variance, values)
        self.deviation[...] = self._deviation(variance)
        y /= self.deviation[:, None]

    def _deviation(self, variance: Array) -> Array:
        return self.xp.sqrt(variance + self.param.batch_norm_param.eps)

    def _update_averages(self, variance: Array, values: int) -> None:
        unbiased = values / (values - 1) if values > 1 else 1.0
        for blob, new in zip(self.blobs, (self.mean, variance * unbiased, 1), strict=True):
            average = blob.data
            average *= self.param.batch_norm_param.moving_average_fraction
            average += new

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dy, dx = top[0].diff.reshape(self.dims), bottom[0].diff.reshape(self.dims)
        if self.global_stats:
            self.xp.divide(dy, self.deviation[:, None], out=dx)
        else:
            x = self.x_before if top[0] is bottom[0] else bottom[0]
            normalize_backward(self.device, dy, x.data.reshape(self.dims), self.mean, self.deviation, dx)


# ---- (outer, channels, inner) arrays, one mean and deviation a channel; MVN uses the second too


def normalize(device: Device, x: Array, mean: Array, deviation: Array, y: Array) -> None:
    """y = (x - mean) / deviation."""
    if device.is_gpu:
        kernels("batch_norm_forward", x.size, x, mean, deviation, *x.shape[1:], y, dtype=x.dtype)
    else:
        rows = len(x), x.shape[1] * x.shape[2]
        _forward(x.reshape(rows), mean, deviation, y.reshape(rows))


def normalize_backward(device: Device, dy: Array, x: Array, mean: Array, deviation: Array, dx: Array) -> None:
    """dx for y = (x - mean) / deviation, mean and deviation being those of x itself. dx may be dy."""
    if not dy.size:
        return
    xp, values = device.xp, dy.size // dy.shape[1]
    if device.is_gpu:
        product = xp.subtract(x, mean[:, None], out=device.workspace("batch_norm", x.shape, x.dtype))
        product *= dy
        total, dot = channel_sums(dy), channel_sums(product)
    else:
        rows = len(dy), dy.shape[1] * dy.shape[2]
        total, dot = np.empty_like(mean), np.empty_like(mean)
        _sums(dy.reshape(rows), x.reshape(rows), mean, total, dot)
    mean_dy, inverse = total / values, 1 / deviation
    slope = dot * inverse * inverse / values
    if device.is_gpu:
        args = dy, x, mean, mean_dy, slope, inverse, *dy.shape[1:], dx
        kernels("batch_norm_backward", dy.size, *args, dtype=dy.dtype)
    else:
        _backward(dy.reshape(rows), x.reshape(rows), mean, mean_dy, slope, inverse, dx.reshape(rows))


# A row holds all channels of an image. Where inner is 1, after an InnerProduct, the loop over channels is vectorised.
# backward multiplies by 1 / deviation: where dx is dy no vector instructions are used, and a division is slow then.


@numba.njit(cache=True)
def _forward(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray, y: np.ndarray) -> None:
    inner = x.shape[1] // mean.size
    for n in range(x.shape[0]):
        if inner == 1:
            for c in range(mean.size):
                y[n, c] = (x[n, c] - mean[c]) / deviation[c]
        else:
            for c in range(mean.size):
                m, d = mean[c], deviation[c]
                row, out = x[n, c * inner : (c + 1) * inner], y[n, c * inner : (c + 1) * inner]
                for i in range(inner):
                    out[i] = (row[i] - m) / d


@numba.njit(cache=True)
def _sums(dy: np.ndarray, x: np.ndarray, mean: np.ndarray, total: np.ndarray, dot: np.ndarray) -> None:
    """total = sum of dy, dot = sum of dy (x - mean), for each channel."""
    inner = x.shape[1] // mean.size
    total[:] = 0
    dot[:] = 0
    if inner == 1:
        for n in range(x.shape[0]):
            for c in range(mean.size):
                total[c] += dy[n, c]
                dot[c] += dy[n, c] * (x[n, c] - mean[c])
        return
    flat_x, flat_dy, lanes = x.reshape(-1), dy.reshape(-1), np.empty(LANES, x.dtype)
    whole = inner // LANES * LANES
    for c in range(mean.size):
        m, totals, dots = mean[c], 0.0, 0.0
        for n in range(x.shape[0]):
            start = (n * mean.size + c) * inner
            t, d = zeros(x), zeros(x)
            for i in range(start, start + whole, LANES):
                grad = load(flat_dy, i)
                t = t + grad
                d = d + grad * (load(flat_x, i) - m)
            store(lanes, 0, t)
            totals += lanes.sum()
            store(lanes, 0, d)
            dots += lanes.sum()
            for i in range(start + whole, start + inner):
                totals += flat_dy[i]
                dots += flat_dy[i] * (flat_x[i] - m)
        total[c], dot[c] = totals, dots


@numba.njit(cache=True)
def _backward(
    dy: np.ndarray, x: np.ndarray, mean: np.ndarray, mean_dy: np.ndarray,
    slope: np.ndarray, inverse: np.ndarray, dx: np.ndarray,
) -> None:  # fmt: skip
    inner = dy.shape[1] // slope.size
    for n in range(dy.shape[0]):
        if inner == 1:
            for c in range(slope.size):
                dx[n, c] = (dy[n, c] - mean_dy[c] - (x[n, c] - mean[c]) * slope[c]) * inverse[c]
        else:
            for c in range(slope.size):
                m, g, k, s = mean[c], mean_dy[c], slope[c], inverse[c]
                row, grad = x[n, c * inner : (c + 1) * inner], dy[n, c * inner : (c + 1) * inner]
                out = dx[n, c * inner : (c + 1) * inner]
                for i in range(inner):
                    out[i] = (grad[i] - g - (row[i] - m) * k) * s
