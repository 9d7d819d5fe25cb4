"""Eltwise: product, weighted sum or maximum of blobs, element by element.

Behaves as Caffe's EltwiseLayer (on its CPU). All blobs have one shape:
    bottom[i]  x_i, two or more
    top[0]     SUM (the default): sum of coeff_i x_i, with coeff 1 if none is given;  PROD;  MAX
    gradient   SUM   coeff_i dy
               PROD  dy times the product of the other bottoms; with stable_prod_grad: false dy (y / x_i), which
                     is faster with many bottoms and a NaN where x_i is 0
               MAX   dy for the bottom that is the maximum: the second if the first two tie, otherwise the earliest
SUM copies dy into each bottom's diff: a layer below may work in place on one and must not touch the others.
Coefficients given for MAX are ignored, for PROD refused. Where bottom 0 or 1 is NaN, MAX starts from bottom 1; a
later NaN is never the maximum.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.registry import register_layer

PART = 1 << 16  # elements at a time on the CPU: temporaries stay in the cache


@register_layer("Eltwise")
class Eltwise(Layer):
    min_bottoms, exact_tops = 2, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.eltwise_param
        given, wanted = list(p.coeff), len(bottom)
        self.check(len(given) in (0, wanted), f"needs {wanted} coeff (or none), one a bottom; got {len(given)}")
        self.check(not (given and p.operation == p.PROD), "coeff is for operation SUM, not PROD")
        self.coeffs = given or [1.0] * len(bottom)
        # MAX: forward saves for backward which bottom it was
        self.winner = Blob((), "uint8" if len(bottom) <= 256 else "int32", self.device)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        first = bottom[0].shape
        for i, blob in enumerate(bottom):
            self.check_shape(
                blob.shape == first, f"bottoms must have one shape: bottom 0 {first}, bottom {i} {blob.shape}"
            )
        top[0].reshape(first)
        p = self.param.eltwise_param
        if p.operation == p.MAX:
            self.winner.reshape(first)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.eltwise_param
        operation = {p.PROD: self._product, p.SUM: self._sum, p.MAX: self._maximum}[p.operation]
        xs, y = [b.data.reshape(-1) for b in bottom], top[0].data.reshape(-1)
        for part in self._parts(y.size):
            operation([x[part] for x in xs], y[part], part)

    def _parts(self, count: int) -> list[slice]:
        step = max(count, 1) if self.device.is_gpu else PART
        return [slice(start, start + step) for start in range(0, count, step)]

    def _product(self, xs: list[Array], y: Array, part: slice) -> None:
        self.xp.multiply(xs[0], xs[1], out=y)
        for x in xs[2:]:
            y *= x

    def _sum(self, xs: list[Array], y: Array, part: slice) -> None:
        first, second, *more = (x if c == 1 else x * c for x, c in zip(xs, self.coeffs, strict=True))
        self.xp.add(first, second, out=y)
        for x in more:
            y += x

    def _maximum(self, xs: list[Array], y: Array, part: slice) -> None:
        xp, winner = self.xp, self.winner.data.reshape(-1)[part]
        if not self.device.is_gpu:
            _maximum_of_two(xs[0], xs[1], y, winner)
            for i, x in enumerate(xs[2:], 2):
                _maximum_with(x, i, y, winner)
            return
        first = xs[0] > xs[1]
        winner[...] = ~first
        y[...] = xp.where(first, xs[0], xs[1])
        for i, x in enumerate(xs[2:], 2):
            better = x > y
            winner[...] = xp.where(better, i, winner)
            y[...] = xp.where(better, x, y)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        p, xp, dy = self.param.eltwise_param, self.xp, top[0].diff
        for i, wanted in enumerate(propagate_down):
            if not wanted:
                continue
            dx = bottom[i].diff
            if p.operation == p.SUM and self.coeffs[i] == 1:
                dx[...] = dy
            elif p.operation == p.SUM:
                xp.multiply(dy, self.coeffs[i], out=dx)
            elif p.operation == p.MAX and self.device.is_gpu:
                dx[...] = xp.where(self.winner.data == i, dy, 0)
            elif p.operation == p.MAX:
                _backward_maximum(dy.reshape(-1), self.winner.data.reshape(-1), i, dx.reshape(-1))
            elif p.stable_prod_grad:
                first, *others = (b.data for j, b in enumerate(bottom) if j != i)
                for other in (*others, dy):
                    first = xp.multiply(first, other, out=dx)
            else:
                with np.errstate(divide="ignore", invalid="ignore"):
                    xp.divide(top[0].data, bottom[i].data, out=dx)
                dx *= dy


# NumPy's where takes ten times as long: it branches at every element.


@numba.njit(cache=True)
def _maximum_of_two(a: np.ndarray, b: np.ndarray, y: np.ndarray, winner: np.ndarray) -> None:
    for i in range(y.size):
        first = a[i] > b[i]
        y[i] = a[i] if first else b[i]
        winner[i] = 0 if first else 1


@numba.njit(cache=True)
def _maximum_with(x: np.ndarray, index: int, y: np.ndarray, winner: np.ndarray) -> None:
    for i in range(y.size):
        better = x[i] > y[i]
        y[i] = x[i] if better else y[i]
        winner[i] = index if better else winner[i]


@numba.njit(cache=True)
def _backward_maximum(dy: np.ndarray, winner: np.ndarray, index: int, dx: np.ndarray) -> None:
    zero = dy.dtype.type(0)
    for i in range(dx.size):
        dx[i] = dy[i] if winner[i] == index else zero
