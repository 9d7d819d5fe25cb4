"""AbsVal: y = |x|.

Behaves as Caffe's AbsValLayer; not in place, as the sign of x would be lost.
    bottom[0], top[0]  any shape, the same
The gradient is sign(x) dy, 0 at x = 0. Where x is a NaN so is the gradient (in Caffe it is 0).
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.layer import Blobs, Flags
from caffe_lite.neuron import ONE, NeuronLayer, sign
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer


@register_layer("AbsVal")
class AbsVal(NeuronLayer):
    in_place = False

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        elementwise(self.xp.absolute, bottom[0].data, top[0].data)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            elementwise(_backward, bottom[0].data, top[0].diff, bottom[0].diff)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            dx = bottom[0].diff
            sign(self.xp, bottom[0].data, dx)
            dx *= top[0].diff


@numba.njit(cache=True, nogil=True)
def _backward(x: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    for i in range(x.size):
        sign = x[i] - x[i]  # 0, or a NaN; selected from below rather than branched over
        sign = ONE if x[i] > 0 else sign
        sign = -ONE if x[i] < 0 else sign
        dx[i] = sign * dy[i]
