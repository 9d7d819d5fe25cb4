"""Bias: adds a learned blob, or a second bottom, to every position of the axes that it covers.

Behaves as Caffe's BiasLayer; may run in place:
    bottom[0]  x  (outer axes, covered axes, inner axes)
    bottom[1]  b  the covered axes, from ``axis`` (1) on; without it b is a parameter
    top[0]     x + b, shape of x
    blobs[0]   b  axes [axis, axis + num_axes) of x; num_axes -1: all from axis on; 0: a single number
A b without axes is added everywhere, whatever ``axis`` says. The gradients are dy, and for b its sum over the
outer and inner axes: added to a parameter's diff, written to bottom[1]'s. (Not in place, dy is copied to bottom[0]'s
diff: a layer below may work in place on that.)

Differs from Caffe: b preloaded from the prototxt must have the right shape.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.device import Device
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Bias")
class Bias(Layer):
    min_bottoms, max_bottoms, exact_tops = 1, 2, 1
    in_place = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.bias_param
        if len(bottom) == 1:
            self.add_param(covered_shape(self, bottom[0], p), p.filler if p.HasField("filler") else None)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.dims = outer_dim_inner(self, bottom[0], self._bias(bottom), self.param.bias_param.axis, "bias")
        top[0].reshape(bottom[0].shape)

    def _bias(self, bottom: Blobs) -> Blob:
        return bottom[1] if len(bottom) == 2 else self.blobs[0]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, b, y = bottom[0].data, self._bias(bottom).data, top[0].data
        scale_and_shift(self.device, x.reshape(self.dims), None, b, y.reshape(self.dims))

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        dy = top[0].diff
        if propagate_down[0] and top[0] is not bottom[0]:
            bottom[0].diff[...] = dy
        if len(bottom) == 2:
            if propagate_down[1]:
                bottom[1].diff.reshape(-1)[...] = channel_sums(dy.reshape(self.dims))
        elif self.param_propagate_down[0]:
            self.blobs[0].diff.reshape(-1)[...] += channel_sums(dy.reshape(self.dims))


# ---- what Scale, BatchNorm and MVN use too


def covered_shape(layer: Layer, x: Blob, p: Any) -> tuple[int, ...]:
    """Shape of the parameter that covers ``p.num_axes`` axes of ``x`` from ``p.axis`` on."""
    layer.check(p.num_axes >= -1, f"num_axes must be >= 0, or -1 for all axes from axis on, got {p.num_axes}")
    axis = layer.canonical_axis(x, p.axis)
    end = len(x.shape) if p.num_axes == -1 else axis + p.num_axes
    layer.check_shape(
        end <= len(x.shape),
        f"axis {p.axis} and num_axes {p.num_axes} reach past the {len(x.shape)} axes of bottom 0, of shape {x.shape}",
    )
    return x.shape[axis:end]


def outer_dim_inner(layer: Layer, x: Blob, b: Blob, axis: int, what: str) -> tuple[int, int, int]:
    """Counts of the axes of ``x`` before, under and after ``b``, whose first axis is ``axis`` of ``x``."""
    start = layer.canonical_axis(x, axis) if b.shape else 0
    end = start + len(b.shape)
    layer.check_shape(
        x.shape[start:end] == b.shape,
        f"{what} must have the shape {x.shape[start:end]} of axes [{start}, {end}) of bottom 0, of shape {x.shape}; "
        f"got {b.shape}",
    )
    return x.count_of(0, start), b.count, x.count_of(end)


def scale_and_shift(device: Device, x: Array, scale: Array | None, shift: Array | None, y: Array) -> None:
    """y = scale x + shift; x and y (outer, dim, inner), scale and shift dim values, or None for 1 and 0."""
    xp, dim = device.xp, x.shape[1]
    if not device.is_gpu:
        scale = np.ones(dim, x.dtype) if scale is None else scale.reshape(dim)
        shift = np.zeros(dim, x.dtype) if shift is None else shift.reshape(dim)
        rows = len(x), dim * x.shape[2]
        _scale_and_shift(x.reshape(rows), scale, shift, y.reshape(rows))
        return
    if scale is not None:
        x = xp.multiply(x, scale.reshape(dim, 1), out=y)
    if shift is not None:
        xp.add(x, shift.reshape(dim, 1), out=y)


@numba.njit(cache=True)
def _scale_and_shift(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, y: np.ndarray) -> None:
    inner = x.shape[1] // max(scale.size, 1)
    for n in range(x.shape[0]):
        if inner == 1:  # after an InnerProduct: vectorised over dim instead
            for d in range(scale.size):
                y[n, d] = x[n, d] * scale[d] + shift[d]
        else:
            for d in range(scale.size):
                s, t = scale[d], shift[d]
                row, out = x[n, d * inner : (d + 1) * inner], y[n, d * inner : (d + 1) * inner]
                for i in range(inner):
                    out[i] = row[i] * s + t


def channel_sums(x: Array) -> Array:
    """Sum of ``x`` (outer, dim, inner) over outer and inner: (dim,)."""
    if len(x) == 1:
        return x[0].sum(axis=1)
    # Two sums, not one over both axes: NumPy is up to 40 times slower at that where inner is small.
    return x.sum(axis=0).sum(axis=1)


def channel_dots(device: Device, x: Array, y: Array) -> Array:
    """Sum of ``x * y``, both (outer, dim, inner), over outer and inner: (dim,)."""
    if device.is_gpu:
        product = device.workspace("channel_dots", x.shape, x.dtype)
        return channel_sums(device.xp.multiply(x, y, out=product))
    return np.einsum("ods,ods->d", x, y)  # in one pass, without the product in memory
