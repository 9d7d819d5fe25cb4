"""AbsVal: y = |x|.

Behaves as Caffe's AbsValLayer; not in place, as the sign of x would be lost.
    bottom[0], top[0]  any shape, the same
The gradient is sign(x) dy, 0 at x = 0. Where x is a NaN so is the gradient (in Caffe it is 0).
"""

from __future__ import annotations

import numba

from caffe_lite.neuron import ONE, NeuronLayer
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer


@register_layer("AbsVal")
class AbsVal(NeuronLayer):
    in_place = False

    def forward(self, bottom, top):
        elementwise(self.xp.absolute, bottom[0].data, top[0].data)

    def backward_cpu(self, top, propagate_down, bottom):
        if propagate_down[0]:
            elementwise(_backward, bottom[0].data, top[0].diff, bottom[0].diff)

    def backward_gpu(self, top, propagate_down, bottom):
        if propagate_down[0]:
            dx = bottom[0].diff
            self.xp.sign(bottom[0].data, out=dx)
            dx *= top[0].diff


@numba.njit(cache=True, nogil=True)
def _backward(x, dy, dx):
    for i in range(x.size):
        sign = x[i] - x[i]  # 0, or a NaN; selected from below rather than branched over
        sign = ONE if x[i] > 0 else sign
        sign = -ONE if x[i] < 0 else sign
        dx[i] = sign * dy[i]
