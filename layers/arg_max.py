"""ArgMax: where the top_k largest values are, largest first.

Behaves as Caffe's ArgMaxLayer:
    bottom[0]  (N, ...)
    top[0]     without ``axis``: the largest of each item, its axes from 1 on seen as one:
                   (N, 1, top_k, 1 ...) indices; (N, 2, top_k, 1 ...) indices, then values, with out_max_val
               with ``axis``: the largest along it:
                   shape of the bottom with top_k along axis; indices, or only the values with out_max_val
(top[0] has as many axes as the bottom, three at least.) Of equal values the one with the larger index comes first; a
NaN counts as larger than any number. Indices are numbers of the net's dtype, in float32 exact up to 2^24. There is
no gradient, and asking for one is an error.

Differs from Caffe: force_backward passes this layer by; top_k is checked again when the bottom changes its shape.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("ArgMax")
class ArgMax(Layer):
    exact_bottoms, exact_tops = 1, 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        p, shape = self.param.argmax_param, bottom[0].shape
        self.check(p.top_k > 0, f"top_k must be > 0, got {p.top_k}")
        self.along_axis = p.HasField("axis")
        if self.along_axis:
            axis = self.canonical_axis(bottom[0], p.axis)
            self.dims = bottom[0].count_of(0, axis), shape[axis], bottom[0].count_of(axis + 1)
            new = (*shape[:axis], p.top_k, *shape[axis + 1 :])
        else:
            self.check_shape(shape, "needs a bottom of at least one axis, got shape ()")
            self.dims = shape[0], bottom[0].count_of(1), 1
            new = (shape[0], 2 if p.out_max_val else 1, p.top_k) + (1,) * (len(shape) - 3)
        self.check_shape(
            p.top_k <= self.dims[1],
            f"top_k {p.top_k} is more than the {self.dims[1]} values "
            + (f"along axis {axis} of shape {shape}" if self.along_axis else f"of each item of shape {shape}"),
        )
        top[0].reshape(new)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.argmax_param
        outer, _, inner = self.dims
        index, value = self._largest(bottom[0].data.reshape(self.dims), (outer, p.top_k, inner))
        if self.along_axis or not p.out_max_val:
            top[0].data.reshape(outer, p.top_k, inner)[...] = value if p.out_max_val else index
        else:
            y = top[0].data.reshape(outer, 2, p.top_k, 1)
            y[:, 0], y[:, 1] = index, value

    def _largest(self, x: Array, shape: tuple[int, int, int]) -> tuple[Array, Array]:
        """(indices, values), both (outer, top_k, inner), of the largest values along axis 1 of ``x``."""
        xp, k = self.xp, shape[1]
        if not self.device.is_gpu:
            index, value = self.device.workspace("arg_max", (2, *shape), self.dtype)
            _largest(x, index, value)
            return index, value
        if k == 1:  # the first maximum of the reversed values is the last one
            index = x.shape[1] - 1 - xp.argmax(x[:, ::-1], axis=1)[:, None]
        else:
            index = xp.argsort(x, axis=1, kind="stable")[:, ::-1][:, :k]
        return index, xp.take_along_axis(x, index, axis=1)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(not any(propagate_down), "has no gradient: write propagate_down: false for its bottom")

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False


@numba.njit(cache=True)
def _largest(x: np.ndarray, index: np.ndarray, value: np.ndarray) -> None:
    outer, dim, inner = x.shape
    k = index.shape[1]
    for o in range(outer):
        for i in range(inner):
            limit = x[o, 0, i]  # the smallest of those found, once there are k
            for j in range(dim):
                v = x[o, j, i]
                if j >= k and v < limit:
                    continue
                place = min(j, k)  # from the end of those found so far, v moves up past all that are not larger
                while place > 0 and (v >= value[o, place - 1, i] or v != v):
                    place -= 1
                    if place + 1 < k:
                        value[o, place + 1, i], index[o, place + 1, i] = value[o, place, i], index[o, place, i]
                if place < k:
                    value[o, place, i], index[o, place, i] = v, j
                if j >= k - 1:
                    limit = value[o, k - 1, i]
