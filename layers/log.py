"""Log: y = log(shift + scale x) / log(base), with e for base -1 (the default).

Behaves as Caffe's LogLayer: -inf where shift + scale x is 0, NaN where it is negative; may run in place,
for which it keeps a copy of x (Caffe forgets x there and computes a wrong gradient).
    bottom[0], top[0]  any shape, the same
The gradient is dy scale / (log(base) (shift + scale x)).
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.layer import Array, Blobs, Flags
from caffe_lite.neuron import InputCopy, NeuronLayer, affine, in_pieces
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer


@register_layer("Log")
class Log(NeuronLayer):
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.log_param
        known = p.base == -1 or 0 < p.base < np.inf
        self.check(known and p.base != 1, f"base must be > 0, finite and not 1, or -1 for e, got {p.base:g}")
        base, self.scale, self.shift = (self.dtype.type(value) for value in (p.base, p.scale, p.shift))
        self.log_base = self.dtype.type(1) if base == -1 else np.log(base)
        self.input = InputCopy(self)

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        wanted = self.scale != 0  # of positive numbers
        return (rng.uniform(0.5, 1.5, bottom[0].shape) - self.shift) / self.scale if wanted else None

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.input.keep(bottom, top)
        in_pieces(self.device, self._forward, bottom[0].data, top[0].data)

    def _forward(self, x: Array, y: Array) -> None:
        self.xp.log(affine(x, self.scale, self.shift), out=y)
        if self.log_base != 1:
            y *= 1 / self.log_base

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dy, dx = self.input.of(bottom, top), top[0].diff, bottom[0].diff
            elementwise(_backward, x, dy, self.scale, self.shift, self.scale / self.log_base, dx)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dx = self.input.of(bottom, top), bottom[0].diff
            with np.errstate(divide="ignore", invalid="ignore"):
                self.xp.divide(top[0].diff, affine(x, self.scale, self.shift), out=dx)
            dx *= self.scale / self.log_base


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _backward(x: np.ndarray, dy: np.ndarray, scale: float, shift: float, factor: float, dx: np.ndarray) -> None:
    for i in range(x.size):
        dx[i] = dy[i] / (x[i] * scale + shift) * factor
