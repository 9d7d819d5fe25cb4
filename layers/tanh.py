"""TanH: y = tanh(x).

Behaves as Caffe's TanHLayer; may run in place; ``engine`` changes nothing.
    bottom[0], top[0]  any shape, the same
The gradient is (1 - y^2) dy.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.layer import Blobs, Flags
from caffe_lite.neuron import NeuronLayer
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
ONE = np.float32(1)


@register_layer("TanH")
class TanH(NeuronLayer):
    def forward(self, bottom: Blobs, top: Blobs) -> None:
        elementwise(self.xp.tanh, bottom[0].data, top[0].data)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            y, dy, dx = top[0].data, top[0].diff, bottom[0].diff
            elementwise(_backward, y, dy, dx)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            y, dy, dx = top[0].data, top[0].diff, bottom[0].diff
            kernels("tanh_backward", bottom[0].count, y, dy, dx, dtype=self.dtype)


@numba.njit(cache=True, nogil=True)
def _backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    for i in range(y.size):
        dx[i] = dy[i] * (ONE - y[i] * y[i])
