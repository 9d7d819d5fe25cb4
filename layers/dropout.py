"""Dropout: sets a random part of the values to zero in TRAIN, lets all of them through in TEST.

Srivastava et al. (2014); behaves as Caffe's DropoutLayer; may run in place. r = dropout_ratio:
    bottom[0], top[0]  any shape, the same
                    scale_train: true (the default)     scale_train: false (Fast R-CNN's addition)
    TRAIN forward   y = x mask / (1 - r)                y = x mask
    TEST forward    y = x                               y = x (1 - r)
    mask = 0 with probability r, else 1, drawn anew by every forward. The gradient has the same factors.

The mask comes from Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011)
under a 64-bit key drawn from the process's stream once a forward: element i is kept if word i % 4 of
counter i // 4 is greater than r 2^32. So every device drops the same elements.

Differs from Caffe: other random numbers; r = 0 is allowed and drops nothing.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.parallel import elementwise
from caffe_lite.philox import WORD, draw_key, philox4x32, signed
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)


@register_layer("Dropout")
class Dropout(Layer):
    exact_bottoms, exact_tops = 1, 1
    in_place = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.dropout_param
        self.check(0 <= p.dropout_ratio < 1, f"dropout_ratio must be in [0, 1), got {p.dropout_ratio:g}")
        self.drops = self.phase == 0 and p.dropout_ratio > 0
        # In float32, as Caffe: 1 - r and 1 / (1 - r) are what multiplies the values of a float32 net.
        kept = self.dtype.type(1) - self.dtype.type(p.dropout_ratio)
        self.threshold = int(np.float32(2**32) * np.float32(p.dropout_ratio))
        self.scale = self.dtype.type(1)
        if p.scale_train and self.phase == 0:
            self.scale = self.dtype.type(1) / kept
        elif not p.scale_train and self.phase == 1:
            self.scale = kept
        self.mask = Blob((), "uint8", self.device)  # forward saves it for backward

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].shape)
        if self.drops:
            self.mask.reshape(bottom[0].shape)

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        if not self.drops:
            self._scale(bottom[0].data, top[0].data)
            return
        x, y = bottom[0].data.reshape(-1), top[0].data.reshape(-1)
        _forward(x, *draw_key(self.device.rng), np.uint64(self.threshold), self.scale, y, self.mask.data.reshape(-1))

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        if not self.drops:
            self._scale(bottom[0].data, top[0].data)
            return
        words = signed(*draw_key(self.device.rng), self.threshold)
        x, y, count = bottom[0].data, top[0].data, top[0].count
        kernels("dropout_forward", (count + 3) // 4, count, x, *words, self.scale, y, self.mask.data, dtype=self.dtype)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        if self.drops and self.device.is_gpu:
            dx = bottom[0].diff
            self.xp.multiply(top[0].diff, self.mask.data, out=dx)
            dx *= self.scale
        elif self.drops:
            elementwise(_backward, top[0].diff, self.mask.data, self.scale, bottom[0].diff)
        else:
            self._scale(top[0].diff, bottom[0].diff)

    def _scale(self, x: Array, y: Array) -> None:
        if self.scale == 1 and y is not x:
            y[...] = x
        elif self.scale != 1:
            self.xp.multiply(x, self.scale, out=y)


@numba.njit(cache=True)
def _forward(
    x: np.ndarray, key0: np.uint64, key1: np.uint64, threshold: np.uint64, scale: float, y: np.ndarray, mask: np.ndarray
) -> None:
    zero = np.uint64(0)
    for group in range(x.size // 4):
        i = 4 * group
        counter = np.uint64(group)
        words = philox4x32(counter & WORD, counter >> np.uint64(32), zero, zero, key0, key1)
        for j in range(4):
            mask[i + j] = words[j] > threshold
    rest = x.size % 4
    if rest:
        counter = np.uint64(x.size // 4)
        words = philox4x32(counter & WORD, counter >> np.uint64(32), zero, zero, key0, key1)
        for j in range(rest):
            mask[x.size - rest + j] = words[j] > threshold
    for i in range(x.size):
        y[i] = x[i] * mask[i] * scale


@numba.njit(cache=True, nogil=True)
def _backward(dy: np.ndarray, mask: np.ndarray, scale: float, dx: np.ndarray) -> None:
    for i in range(dy.size):
        dx[i] = dy[i] * mask[i] * scale
