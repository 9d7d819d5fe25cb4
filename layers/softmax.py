"""Softmax: y_c = exp(x_c) / sum over k of exp(x_k), along ``axis`` (1).

Behaves as Caffe's SoftmaxLayer: the maximum is subtracted first, so that nothing overflows; may run in
place.
    bottom[0], top[0]  (outer axes, C, inner axes), the same; one softmax for each outer and inner position
The gradient is (dy_c - sum over k of dy_k y_k) y_c.
"""

from __future__ import annotations

from typing import Any

from caffe_lite.layer import Layer
from caffe_lite.registry import register_layer


@register_layer("Softmax")
class Softmax(Layer):
    exact_bottoms, exact_tops = 1, 1
    in_place = True

    def reshape(self, bottom, top):
        axis = self.canonical_axis(bottom[0], self.param.softmax_param.axis)
        shape = bottom[0].shape
        self.check_shape(shape[axis] > 0, f"axis {axis} must have at least one class, got shape {shape}")
        self.rows = bottom[0].count_of(0, axis), shape[axis], bottom[0].count_of(axis + 1)
        top[0].reshape(shape)

    def forward(self, bottom, top):
        softmax(self.xp, bottom[0].data.reshape(self.rows), top[0].data.reshape(self.rows))

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        y, dy, dx = (a.reshape(self.rows) for a in (top[0].data, top[0].diff, bottom[0].diff))
        in_place = top[0] is bottom[0]
        product = self.device.workspace("softmax", self.rows, self.dtype) if in_place else dx
        self.xp.multiply(dy, y, out=product)
        dot = product.sum(axis=1, keepdims=True)
        self.xp.subtract(dy, dot, out=dx)
        self.xp.multiply(dx, y, out=dx)


def softmax(xp: Any, x: Any, y: Any) -> None:
    """Softmax along axis 1 of ``x``, shape (outer, C, inner), into ``y``, which may be ``x``."""
    xp.subtract(x, x.max(axis=1, keepdims=True), out=y)
    xp.exp(y, out=y)
    xp.divide(y, y.sum(axis=1, keepdims=True), out=y)
