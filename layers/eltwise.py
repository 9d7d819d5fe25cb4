"""Eltwise: product, weighted sum or maximum of blobs, element by element.

Behaves as Caffe's EltwiseLayer (on its CPU). All blobs have one shape:
    bottom[i]  x_i, two or more
    top[0]     SUM (the default): sum of coeff_i x_i, with coeff 1 if none is given;  PROD;  MAX
    gradient   SUM   coeff_i dy
               PROD  dy times the product of the other bottoms; with stable_prod_grad: false dy (y / x_i), which
                     is faster with many bottoms and a NaN where x_i is 0
               MAX   dy for the bottom that is the maximum: the second if the first two tie, otherwise the earliest
Coefficients given for MAX are ignored, for PROD refused. Where bottom 0 or 1 is NaN, MAX starts from bottom 1; a
later NaN is never the maximum.
"""

from __future__ import annotations

import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.layer import Layer
from caffe_lite.registry import register_layer

PART = 1 << 16  # elements at a time on the CPU: temporaries stay in the cache


@register_layer("Eltwise")
class Eltwise(Layer):
    min_bottoms, exact_tops = 2, 1

    def setup(self, bottom, top):
        p = self.param.eltwise_param
        given, wanted = list(p.coeff), len(bottom)
        self.check(len(given) in (0, wanted), f"needs {wanted} coeff (or none), one a bottom; got {len(given)}")
        self.check(not (given and p.operation == p.PROD), "coeff is for operation SUM, not PROD")
        self.coeffs = given or [1.0] * len(bottom)
        # MAX: forward saves for backward which bottom it was
        self.winner = Blob((), "uint8" if len(bottom) <= 256 else "int32", self.device)

    def reshape(self, bottom, top):
        first = bottom[0].shape
        for i, blob in enumerate(bottom):
            self.check_shape(
                blob.shape == first, f"bottoms must have one shape: bottom 0 {first}, bottom {i} {blob.shape}"
            )
        top[0].reshape(first)
        p = self.param.eltwise_param
        if p.operation == p.MAX:
            self.winner.reshape(first)

    def forward(self, bottom, top):
        p = self.param.eltwise_param
        operation = {p.PROD: self._product, p.SUM: self._sum, p.MAX: self._maximum}[p.operation]
        xs, y = [b.data.reshape(-1) for b in bottom], top[0].data.reshape(-1)
        for part in self._parts(y.size):
            operation([x[part] for x in xs], y[part], part)

    def _parts(self, count):
        step = max(count, 1) if self.device.is_gpu else PART
        return [slice(start, start + step) for start in range(0, count, step)]

    def _product(self, xs, y, part):
        self.xp.multiply(xs[0], xs[1], out=y)
        for x in xs[2:]:
            y *= x

    def _sum(self, xs, y, part):
        first, second, *more = (x if c == 1 else x * c for x, c in zip(xs, self.coeffs, strict=True))
        self.xp.add(first, second, out=y)
        for x in more:
            y += x

    def _maximum(self, xs, y, part):
        xp, winner = self.xp, self.winner.data.reshape(-1)[part]
        first = xs[0] > xs[1]
        winner[...] = ~first
        y[...] = xp.where(first, xs[0], xs[1])
        for i, x in enumerate(xs[2:], 2):
            better = x > y
            winner[...] = xp.where(better, i, winner)
            y[...] = xp.where(better, x, y)

    def backward(self, top, propagate_down, bottom):
        p, xp, dy = self.param.eltwise_param, self.xp, top[0].diff
        for i, wanted in enumerate(propagate_down):
            if not wanted:
                continue
            dx = bottom[i].diff
            if p.operation == p.SUM:
                xp.multiply(dy, self.coeffs[i], out=dx)
            elif p.operation == p.MAX:
                winner, dx, flat_dy = self.winner.data.reshape(-1), dx.reshape(-1), dy.reshape(-1)
                for part in self._parts(dx.size):
                    dx[part] = xp.where(winner[part] == i, flat_dy[part], 0)
            elif p.stable_prod_grad:
                first, *others = (b.data for j, b in enumerate(bottom) if j != i)
                for other in (*others, dy):
                    first = xp.multiply(first, other, out=dx)
            else:
                with np.errstate(divide="ignore", invalid="ignore"):
                    xp.divide(top[0].data, bottom[i].data, out=dx)
                dx *= dy
