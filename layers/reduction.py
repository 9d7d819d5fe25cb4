"""Reduction: the sum, sum of absolute values, sum of squares or mean over all axes from ``axis`` on.

Behaves as Caffe's ReductionLayer. D: product of the axes from ``axis`` (0) on:
    bottom[0]  x  (outer axes, reduced axes)
    top[0]        (outer axes), a scalar () if there are none
               forward                  backward
    SUM        coeff sum(x)             coeff dy
    ASUM       coeff sum(|x|)           coeff sign(x) dy, 0 at 0
    SUMSQ      coeff sum(x^2)           2 coeff x dy
    MEAN       coeff sum(x) / D         coeff dy / D
The mean of nothing is NaN. The gradient of a sum is written out, element by element (where it could be one number
seen as many), as a layer below may work in place on it.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.neuron import sign
from caffe_lite.parallel import split
from caffe_lite.registry import register_layer

STRETCH = 1024  # numbers added up in their own precision; the sums of stretches are added up in double
PART = 1 << 15  # numbers, a multiple of STRETCH, that one thread adds up


@register_layer("Reduction")
class Reduction(Layer):
    exact_bottoms, exact_tops = 1, 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.reduction_param
        axis = self.canonical_axis(bottom[0], p.axis)
        self.dims = bottom[0].count_of(0, axis), bottom[0].count_of(axis)
        self.coeff = p.coeff
        if p.operation == p.MEAN:
            self.coeff = p.coeff / self.dims[1] if self.dims[1] else float("nan")
        top[0].reshape(bottom[0].shape[:axis])

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        rows, size = self.dims
        p, x, y = self.param.reduction_param, bottom[0].data.reshape(self.dims), top[0].data.reshape(-1)
        power = {p.ASUM: 1, p.SUMSQ: 2}.get(p.operation, 0)
        sums = np.zeros((rows, -(-size // PART)))
        split(lambda first, last: _add_up(x, power, sums.reshape(-1), first, last), sums.size, x.size)
        np.multiply(sums.sum(axis=1), self.coeff, out=y, casting="same_kind")

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        p, xp = self.param.reduction_param, self.xp
        x, y = bottom[0].data.reshape(self.dims), top[0].data.reshape(-1)
        if p.operation == p.ASUM:
            x = xp.abs(x, out=self._scratch())
        elif p.operation == p.SUMSQ:
            x = xp.multiply(x, x, out=self._scratch())
        xp.multiply(x.sum(axis=1), self.coeff, out=y)

    def _scratch(self) -> Array:
        return self.device.workspace("reduction", self.dims, self.dtype)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        p, xp = self.param.reduction_param, self.xp
        x, dx = bottom[0].data.reshape(self.dims), bottom[0].diff.reshape(self.dims)
        scale = top[0].diff.reshape(-1, 1) * self.coeff
        if p.operation == p.ASUM:
            sign(xp, x, dx)
            dx *= scale
        elif p.operation == p.SUMSQ:
            xp.multiply(x, 2 * scale, out=dx)
        else:
            dx[...] = scale


@numba.njit(cache=True, nogil=True, fastmath={"reassoc"})  # vectorised: a fixed order, if not that of the numbers
def _add_up(x: np.ndarray, power: int, sums: np.ndarray, first: int, last: int) -> None:
    """Sums [first, last), each of a PART of a row of ``x``: of x, or of |x| or x^2 for ``power`` 1 or 2."""
    parts = (x.shape[1] + PART - 1) // PART
    for i in range(first, last):
        row = x[i // parts]
        end = min(row.size, (i % parts + 1) * PART)
        for start in range(i % parts * PART, end, STRETCH):
            stretch = row[start : min(start + STRETCH, end)]
            total = x.dtype.type(0)
            if power == 0:
                for j in range(stretch.size):
                    total += stretch[j]
            elif power == 1:
                for j in range(stretch.size):
                    total += abs(stretch[j])
            else:
                for j in range(stretch.size):
                    total += stretch[j] * stretch[j]
            sums[i] += total
