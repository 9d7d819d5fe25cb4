"""Reduction: the sum, sum of absolute values, sum of squares or mean over all axes from ``axis`` on.

Behaves as Caffe's ReductionLayer. D: product of the axes from ``axis`` (0) on:
    bottom[0]  x  (outer axes, reduced axes)
    top[0]        (outer axes), a scalar () if there are none
               forward                  backward
    SUM        coeff sum(x)             coeff dy
    ASUM       coeff sum(|x|)           coeff sign(x) dy, 0 at 0
    SUMSQ      coeff sum(x^2)           2 coeff x dy
    MEAN       coeff sum(x) / D         coeff dy / D
The mean of nothing is NaN.
"""

from __future__ import annotations

import numpy as np

from caffe_lite.layer import Layer
from caffe_lite.registry import register_layer

SHORT = 1024  # up to here einsum is the faster of NumPy's ways to add up rows; beyond, sum is the more exact


@register_layer("Reduction")
class Reduction(Layer):
    exact_bottoms, exact_tops = 1, 1

    def reshape(self, bottom, top):
        p = self.param.reduction_param
        axis = self.canonical_axis(bottom[0], p.axis)
        self.dims = bottom[0].count_of(0, axis), bottom[0].count_of(axis)
        self.coeff = p.coeff
        if p.operation == p.MEAN:
            self.coeff = p.coeff / self.dims[1] if self.dims[1] else float("nan")
        top[0].reshape(bottom[0].shape[:axis])

    def forward(self, bottom, top):
        p, xp = self.param.reduction_param, self.xp
        x, y = bottom[0].data.reshape(self.dims), top[0].data.reshape(-1)
        if p.operation == p.ASUM:
            x = xp.abs(x, out=self._scratch())
        elif p.operation == p.SUMSQ:
            x = xp.multiply(x, x, out=self._scratch())
        if self.dims[1] <= SHORT and not self.device.is_gpu:
            total = np.einsum("nd->n", x)
        else:
            total = x.sum(axis=1)
        xp.multiply(total, self.coeff, out=y)

    def _scratch(self):
        return self.device.workspace("reduction", self.dims, self.dtype)

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        p, xp = self.param.reduction_param, self.xp
        x, dx = bottom[0].data.reshape(self.dims), bottom[0].diff.reshape(self.dims)
        scale = top[0].diff.reshape(-1, 1) * self.coeff
        if p.operation == p.ASUM:
            xp.sign(x, out=dx)
            dx *= scale
        elif p.operation == p.SUMSQ:
            xp.multiply(x, 2 * scale, out=dx)
        else:
            dx[...] = scale
