"""ELU, exponential linear unit: y = x for x > 0, alpha (e^x - 1) for the rest.

Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by exponential linear units
(2016); behaves as Caffe's ELULayer; may run in place.
    bottom[0], top[0]  any shape, the same
The gradient is dy where x > 0, (alpha + y) dy where x <= 0. In place the sign of y stands for that of x,
the same if alpha >= 0; for a negative alpha, where Caffe computes a wrong gradient, a copy of x is kept.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.layer import Blobs, Flags
from caffe_lite.neuron import InputCopy, NeuronLayer, exp
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
ZERO, ONE = np.float32(0), np.float32(1)


@register_layer("ELU")
class ELU(NeuronLayer):
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.alpha = self.dtype.type(self.param.elu_param.alpha)
        self.input = InputCopy(self)

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        if self.alpha < 0:
            self.input.keep(bottom, top)
        elementwise(_forward, bottom[0].data, self.alpha, top[0].data)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        if self.alpha < 0:
            self.input.keep(bottom, top)
        kernels("elu_forward", top[0].count, bottom[0].data, self.alpha, top[0].data, dtype=self.dtype)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x = self.input.of(bottom, top) if self.alpha < 0 else bottom[0].data
            y, dy, dx = top[0].data, top[0].diff, bottom[0].diff
            elementwise(_backward, x, y, dy, self.alpha, dx)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x = self.input.of(bottom, top) if self.alpha < 0 else bottom[0].data
            y, dy, dx = top[0].data, top[0].diff, bottom[0].diff
            kernels("elu_backward", bottom[0].count, x, y, dy, self.alpha, dx, dtype=self.dtype)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _forward(x: np.ndarray, alpha: float, y: np.ndarray) -> None:
    for i in range(x.size):
        below = alpha * (exp(x[i]) - ONE)
        y[i] = x[i] if x[i] > ZERO else below


@numba.njit(cache=True, nogil=True)
def _backward(x: np.ndarray, y: np.ndarray, dy: np.ndarray, alpha: float, dx: np.ndarray) -> None:
    for i in range(x.size):
        below = alpha + y[i]
        dx[i] = dy[i] * (ONE if x[i] > ZERO else below)
