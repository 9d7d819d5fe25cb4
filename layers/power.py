"""Power: y = (shift + scale x)^power.

Behaves as Caffe's PowerLayer: a constant (1 if power is 0, else shift^power) if power or scale is 0, whatever
x is; a NaN where a negative number is raised to a power that is no integer. It may run in place, for
which it keeps a copy of x unless power is 1 (Caffe forgets x there and computes a wrong gradient).
    bottom[0], top[0]  any shape, the same
The gradient is power scale (shift + scale x)^(power - 1) dy.

Differs from Caffe: that is also the gradient where shift + scale x is 0, where there it is 0 / 0 and so a NaN
unless power is 1 or 2.
"""

from __future__ import annotations

import numpy as np

from caffe_lite.neuron import InputCopy, NeuronLayer
from caffe_lite.registry import register_layer

quietly = np.errstate(divide="ignore", over="ignore", invalid="ignore")  # 0^-1 is inf, as in C


@register_layer("Power")
class Power(NeuronLayer):
    @quietly
    def setup(self, bottom, top):
        p = self.param.power_param
        self.power, self.scale, self.shift = (self.dtype.type(value) for value in (p.power, p.scale, p.shift))
        self.slope = self.power * self.scale  # 0: y is a constant
        self.constant = self.shift**self.power  # 1 if power is 0, even 0^0
        self.input = InputCopy(self)

    @quietly
    def forward(self, bottom, top):
        y = top[0].data
        if self.slope == 0:
            y[...] = self.constant
            return
        if self.power != 1:
            self.input.keep(bottom, top)
        self._raise(bottom[0].data, self.power, y)

    @quietly
    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        dy, dx = top[0].diff, bottom[0].diff
        if self.slope == 0:
            dx[...] = 0
            return
        if self.power == 1:
            self.xp.multiply(dy, self.slope, out=dx)
            return
        factor = self.device.workspace("power", dx.shape, self.dtype)  # in place dx holds dy, which is still needed
        self._raise(self.input.of(bottom, top), self.power - 1, factor)
        factor *= self.slope
        self.xp.multiply(dy, factor, out=dx)

    def _raise(self, x, power, out):
        """(shift + scale x)^power into ``out``, which may be ``x``."""
        xp = self.xp
        xp.multiply(x, self.scale, out=out)
        if self.shift != 0:
            out += self.shift
        if power == 1:
            return
        if power == 2:
            xp.square(out, out=out)
            return
        if power != xp.floor(power):
            xp.power(out, power, out=out)
            return
        # On the CPU, pow of a negative number takes 50 times as long as that of a positive one.
        size = xp.absolute(out, out=self.device.workspace("neuron", out.shape, self.dtype))
        xp.power(size, power, out=size)
        if power % 2:
            xp.copysign(size, out, out=out)
        else:
            out[...] = size
