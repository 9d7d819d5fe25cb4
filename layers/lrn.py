"""LRN: local response normalisation, over neighbouring channels or over neighbouring pixels.

Krizhevsky et al., ImageNet Classification (2012), section 3.3; behaves as Caffe's LRNLayer.
N images, C channels, H x W, n = local_size (odd):
    bottom[0]  x  (N, C, H, W)
    top[0]     y  the same shape
ACROSS_CHANNELS  y = x s^-beta,  s = k + alpha / n   * (sum of x^2 over n channels around)
WITHIN_CHANNEL   y = x s^-beta,  s = 1 + alpha / n^2 * (sum of x^2 over the n x n pixels around)
What lies outside counts as 0; WITHIN_CHANNEL ignores k. The gradient goes to bottom[0]:
    dx = dy s^-beta - 2 (alpha / n or n^2) beta x * (sum of dy x s^(-beta - 1) over the same neighbours)

Differs from Caffe: each sum is taken anew instead of carried along the channels, which drifts.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)


@register_layer("LRN")
class LRN(Layer):
    exact_bottoms = exact_tops = 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.lrn_param
        self.check(p.local_size % 2 == 1, f"local_size must be odd, to have a middle, got {p.local_size}")
        half = p.local_size // 2
        within = p.norm_region == p.WITHIN_CHANNEL
        self.reach: tuple[int, int] = (0, half) if within else (half, 0)  # neighbours on each side: channels, pixels
        self.k = 1.0 if within else p.k
        self.alpha = p.alpha / p.local_size ** (2 if within else 1)
        self.beta = p.beta
        self.scale = Blob((), self.dtype, self.device)  # s: forward saves it for backward

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.check_shape(len(bottom[0].shape) == 4, f"bottom must have shape (N, C, H, W), got {bottom[0].shape}")
        top[0].reshape(bottom[0].shape)
        self.scale.reshape(bottom[0].shape)

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        k, alpha, beta = (self.dtype.type(v) for v in (self.k, self.alpha, self.beta))
        _forward(bottom[0].data, *self.reach, k, alpha, beta, self.scale.data, top[0].data)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        factor, beta = self.dtype.type(2 * self.alpha * self.beta), self.dtype.type(self.beta)
        ratio = self.device.workspace("lrn", bottom[0].shape, self.dtype)
        _backward(bottom[0].data, self.scale.data, top[0].diff, *self.reach, factor, beta, ratio, bottom[0].diff)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        sizes = (*x.shape[1:], *self.reach, float(self.k), self.alpha, self.beta)
        kernels("lrn_forward", x.count, x.data, *sizes, self.scale.data, top[0].data, dtype=self.dtype)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        x, scale, dy = bottom[0], self.scale.data, top[0].diff
        ratio = self.device.workspace("lrn", x.shape, self.dtype)
        kernels("lrn_ratio", x.count, x.data, scale, dy, self.beta, ratio, dtype=self.dtype)
        sizes = (*x.shape[1:], *self.reach, 2 * self.alpha * self.beta, self.beta)
        kernels("lrn_backward", x.count, x.data, scale, dy, ratio, *sizes, x.diff, dtype=self.dtype)


@numba.njit(inline="always")
def _power(s: float, beta: float) -> float:
    """s ** -beta; the beta of every published net without the slow pow."""
    if beta == 0.75:
        root = np.sqrt(s)
        return 1 / (root * np.sqrt(root))
    return s**-beta


@numba.njit(cache=True)
def _sum_around(
    a: np.ndarray, n: int, c: int, h: int, channels: int, pixels: int, squared: bool, total: np.ndarray
) -> None:
    """total[w] <- sum of a (or its square) over the neighbours of [n, c, h, w]."""
    total[:] = 0
    width = total.size
    for other in range(max(c - channels, 0), min(c + channels + 1, a.shape[1])):
        for row in range(max(h - pixels, 0), min(h + pixels + 1, a.shape[2])):
            for shift in range(max(-pixels, 1 - width), min(pixels, width - 1) + 1):
                first = max(shift, 0)
                source, target = a[n, other, row, first:], total[first - shift :]
                for i in range(width - abs(shift)):
                    target[i] += source[i] * source[i] if squared else source[i]


@numba.njit(cache=True, parallel=True)
def _forward(
    x: np.ndarray, channels: int, pixels: int, k: float, alpha: float, beta: float, scale: np.ndarray, y: np.ndarray
) -> None:
    for plane in numba.prange(x.shape[0] * x.shape[1]):
        n, c = plane // x.shape[1], plane % x.shape[1]
        for h in range(x.shape[2]):
            s = scale[n, c, h]
            _sum_around(x, n, c, h, channels, pixels, True, s)
            for w in range(s.size):
                s[w] = k + alpha * s[w]
                y[n, c, h, w] = x[n, c, h, w] * _power(s[w], beta)


@numba.njit(cache=True, parallel=True)
def _backward(
    x: np.ndarray, scale: np.ndarray, dy: np.ndarray, channels: int, pixels: int,
    factor: float, beta: float, ratio: np.ndarray, dx: np.ndarray,
) -> None:  # fmt: skip
    for plane in numba.prange(x.shape[0] * x.shape[1]):
        n, c = plane // x.shape[1], plane % x.shape[1]
        for h in range(x.shape[2]):
            for w in range(x.shape[3]):
                s = scale[n, c, h, w]
                dx[n, c, h, w] = dy[n, c, h, w] * _power(s, beta)
                ratio[n, c, h, w] = dx[n, c, h, w] * x[n, c, h, w] / s
    for plane in numba.prange(x.shape[0] * x.shape[1]):
        n, c = plane // x.shape[1], plane % x.shape[1]
        total = np.empty(x.shape[3], x.dtype)
        for h in range(x.shape[2]):
            _sum_around(ratio, n, c, h, channels, pixels, False, total)
            for w in range(total.size):
                dx[n, c, h, w] -= factor * x[n, c, h, w] * total[w]
