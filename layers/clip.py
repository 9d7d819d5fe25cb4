"""Clip: y = min where x < min, max where x > max, else x.

Behaves as Caffe's ClipLayer; may run in place, for which it keeps a copy of x (Caffe forgets x there and
lets every gradient through).
    bottom[0], top[0]  any shape, the same
The gradient is dy where min <= x <= max, both ends included, else 0.

Differs from Caffe: a NaN stays a NaN (there min on the CPU, max on a GPU); min > max, and no clip_param
at all, are errors.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.layer import Blobs, Flags
from caffe_lite.neuron import InputCopy, NeuronLayer
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer


@register_layer("Clip")
class Clip(NeuronLayer):
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.clip_param
        self.check(self.param.HasField("clip_param"), "needs its bounds: clip_param { min: ... max: ... }")
        self.check(p.min <= p.max, f"min must be <= max, got min {p.min:g} and max {p.max:g}")
        self.min, self.max = self.dtype.type(p.min), self.dtype.type(p.max)
        self.input = InputCopy(self)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.input.keep(bottom, top)
        elementwise(self.xp.clip, bottom[0].data, self.min, self.max, top[0].data)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dy, dx = self.input.of(bottom, top), top[0].diff, bottom[0].diff
            elementwise(_backward, x, dy, self.min, self.max, dx)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x = self.input.of(bottom, top)
            self.xp.multiply(top[0].diff, (x >= self.min) & (x <= self.max), out=bottom[0].diff)


@numba.njit(cache=True, nogil=True)
def _backward(x: np.ndarray, dy: np.ndarray, low: float, high: float, dx: np.ndarray) -> None:
    for i in range(x.size):
        dx[i] = dy[i] * ((low <= x[i]) & (x[i] <= high))  # a product: a NaN in dy shows
