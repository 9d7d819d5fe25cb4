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

from typing import Any

import numpy as np

from caffe_lite.layer import Array, Blobs, Flags
from caffe_lite.neuron import InputCopy, NeuronLayer, affine, in_pieces
from caffe_lite.registry import register_layer


@register_layer("Power")
class Power(NeuronLayer):
    @np.errstate(divide="ignore", over="ignore", invalid="ignore")  # 0^-1 is inf, as in C
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.power_param
        self.power, self.scale, self.shift = (self.dtype.type(value) for value in (p.power, p.scale, p.shift))
        self.slope = self.power * self.scale  # 0: y is a constant
        self.constant = self.shift**self.power  # 1 if power is 0, even 0^0
        self.input = InputCopy(self)

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        wanted = self.slope != 0 and self.power != np.floor(self.power)  # of positive numbers
        return (rng.uniform(0.5, 1.5, bottom[0].shape) - self.shift) / self.scale if wanted else None

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.slope == 0:
            top[0].data[...] = self.constant
            return
        if self.power != 1:
            self.input.keep(bottom, top)
        in_pieces(self.device, self._forward, bottom[0].data, top[0].data)

    def _forward(self, x: Array, y: Array) -> None:
        y[...] = _raise(self.xp, affine(x, self.scale, self.shift), self.power)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        if self.slope == 0:
            bottom[0].diff[...] = 0
        elif self.power == 1:
            in_pieces(self.device, self._scale, top[0].diff, bottom[0].diff)
        else:
            in_pieces(self.device, self._backward, self.input.of(bottom, top), top[0].diff, bottom[0].diff)

    def _scale(self, dy: Array, dx: Array) -> None:
        self.xp.multiply(dy, self.slope, out=dx)

    def _backward(self, x: Array, dy: Array, dx: Array) -> None:
        self.xp.multiply(dy, _raise(self.xp, affine(x, self.scale, self.shift), self.power - 1), out=dx)
        dx *= self.slope


def _raise(xp: Any, base: Array, power: Any) -> Array:
    """base^power, for a power that is not 0."""
    if power != np.floor(power) or abs(power) > 64:
        return xp.power(base, power)
    # By repeated squaring: several times faster than pow, on the CPU 50 times where the base is negative.
    left = int(abs(power))
    while left % 2 == 0:
        base, left = base * base, left // 2
    result = base
    while left > 1:
        base, left = base * base, left // 2
        if left % 2:
            result = result * base
    return result if power > 0 else 1 / result
