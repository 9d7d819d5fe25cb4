"""Exp: y = base^(shift + scale x), with e for base -1 (the default).

Behaves as Caffe's ExpLayer; may run in place.
    bottom[0], top[0]  any shape, the same
The gradient is log(base) scale y dy.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.layer import Array, Blobs, Flags
from caffe_lite.neuron import NeuronLayer, in_pieces
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer


@register_layer("Exp")
class Exp(NeuronLayer):
    @np.errstate(over="ignore")  # an infinite base^shift is not remarkable, as in Caffe
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.exp_param
        self.check(p.base == -1 or 0 < p.base < np.inf, f"base must be > 0 and finite, or -1 for e, got {p.base:g}")
        # In the net's own precision, as Caffe: y = outer * exp(inner * x).
        base, scale, shift = (self.dtype.type(value) for value in (p.base, p.scale, p.shift))
        self.inner = scale if base == -1 else np.log(base) * scale
        self.outer = np.exp(shift) if base == -1 else base**shift

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        in_pieces(self.device, self._forward, bottom[0].data, top[0].data)

    def _forward(self, x: Array, y: Array) -> None:
        if self.inner != 1:
            x = self.xp.multiply(x, self.inner, out=y)
        self.xp.exp(x, out=y)
        if self.outer != 1:
            y *= self.outer

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            elementwise(_backward, top[0].data, top[0].diff, self.inner, bottom[0].diff)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            dx = self.xp.multiply(top[0].diff, top[0].data, out=bottom[0].diff)
            dx *= self.inner


@numba.njit(cache=True, nogil=True)
def _backward(y: np.ndarray, dy: np.ndarray, inner: float, dx: np.ndarray) -> None:
    for i in range(y.size):
        dx[i] = dy[i] * y[i] * inner
