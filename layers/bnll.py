"""BNLL, binomial normal log likelihood: y = log(1 + e^x), computed so that nothing overflows.

Behaves as Caffe's BNLLLayer; may run in place, for which it keeps a copy of x (Caffe forgets x there and
computes a wrong gradient).
    bottom[0], top[0]  any shape, the same
The gradient is dy / (1 + e^-x).
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.layer import Blobs, Flags
from caffe_lite.neuron import InputCopy, NeuronLayer, exp, log1p
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
ZERO, ONE = np.float32(0), np.float32(1)


@register_layer("BNLL")
class BNLL(NeuronLayer):
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.input = InputCopy(self)

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        self.input.keep(bottom, top)
        elementwise(_forward, bottom[0].data, top[0].data)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        self.input.keep(bottom, top)
        kernels("bnll_forward", top[0].count, bottom[0].data, top[0].data, dtype=self.dtype)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dy, dx = self.input.of(bottom, top), top[0].diff, bottom[0].diff
            elementwise(_backward, x, dy, dx)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dy, dx = self.input.of(bottom, top), top[0].diff, bottom[0].diff
            kernels("bnll_backward", bottom[0].count, x, dy, dx, dtype=self.dtype)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _forward(x: np.ndarray, y: np.ndarray) -> None:
    for i in range(x.size):
        positive = ZERO if x[i] < ZERO else x[i]  # a NaN stays one
        y[i] = positive + log1p(exp(-abs(x[i])))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _backward(x: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    for i in range(x.size):
        dx[i] = dy[i] / (ONE + exp(-x[i]))
