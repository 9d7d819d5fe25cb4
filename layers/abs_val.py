"""AbsVal: y = |x|.

Behaves as Caffe's AbsValLayer; not in place, as the sign of x would be lost.
    bottom[0], top[0]  any shape, the same
The gradient is sign(x) dy, 0 at x = 0. Where x is a NaN so is the gradient (in Caffe it is 0).
"""

from __future__ import annotations

from caffe_lite.neuron import NeuronLayer
from caffe_lite.registry import register_layer


@register_layer("AbsVal")
class AbsVal(NeuronLayer):
    in_place = False

    def forward(self, bottom, top):
        self.xp.absolute(bottom[0].data, out=top[0].data)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            dx = bottom[0].diff
            self.xp.sign(bottom[0].data, out=dx)
            dx *= top[0].diff
