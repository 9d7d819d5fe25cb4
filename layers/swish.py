"""Swish: y = x s, with s = 1 / (1 + e^(-beta x)).

Ramachandran, Zoph and Le, Searching for activation functions (2017); behaves as Caffe's SwishLayer; may run
in place, for which it keeps a copy of x (Caffe always keeps s).
    bottom[0], top[0]  any shape, the same
The gradient is (beta y + s (1 - beta y)) dy.
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
ONE = np.float32(1)


@register_layer("Swish")
class Swish(NeuronLayer):
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.beta = self.dtype.type(self.param.swish_param.beta)
        self.input = InputCopy(self)

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        self.input.keep(bottom, top)
        elementwise(_forward, bottom[0].data, self.beta, top[0].data)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        self.input.keep(bottom, top)
        kernels("swish_forward", top[0].count, bottom[0].data, self.beta, top[0].data, dtype=self.dtype)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dy, dx = self.input.of(bottom, top), top[0].diff, bottom[0].diff
            elementwise(_backward, x, dy, self.beta, dx)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dy, dx = self.input.of(bottom, top), top[0].diff, bottom[0].diff
            kernels("swish_backward", bottom[0].count, x, dy, self.beta, dx, dtype=self.dtype)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _forward(x: np.ndarray, beta: float, y: np.ndarray) -> None:
    for i in range(x.size):
        y[i] = x[i] / (ONE + exp(-(beta * x[i])))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _backward(x: np.ndarray, dy: np.ndarray, beta: float, dx: np.ndarray) -> None:
    for i in range(x.size):
        scaled = beta * x[i]
        s = ONE / (ONE + exp(-scaled))
        dx[i] = dy[i] * (scaled * s + s * (ONE - scaled * s))
