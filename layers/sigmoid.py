"""Sigmoid: y = 1 / (1 + e^-x).

Behaves as Caffe's SigmoidLayer, which computes tanh(x / 2) / 2 + 1/2, the same number, in double precision;
may run in place; ``engine`` changes nothing.
    bottom[0], top[0]  any shape, the same
The gradient is y (1 - y) dy.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.layer import Blobs, Flags
from caffe_lite.neuron import NeuronLayer, exp
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
ONE = np.float32(1)


@register_layer("Sigmoid")
class Sigmoid(NeuronLayer):
    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        elementwise(_forward, bottom[0].data, top[0].data)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        kernels("sigmoid_forward", top[0].count, bottom[0].data, top[0].data, dtype=self.dtype)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            y, dy, dx = top[0].data, top[0].diff, bottom[0].diff
            elementwise(_backward, y, dy, dx)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            y, dy, dx = top[0].data, top[0].diff, bottom[0].diff
            kernels("sigmoid_backward", bottom[0].count, y, dy, dx, dtype=self.dtype)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _forward(x: np.ndarray, y: np.ndarray) -> None:
    for i in range(x.size):
        y[i] = ONE / (ONE + exp(-x[i]))


@numba.njit(cache=True, nogil=True)
def _backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    for i in range(y.size):
        dx[i] = dy[i] * y[i] * (ONE - y[i])
