"""Reshape: gives a blob another shape, without moving anything.

Behaves as Caffe's ReshapeLayer. ``shape`` takes the place of ``num_axes`` axes (-1: all) from ``axis`` (0) on; a
negative axis counts from behind the last one, so that -1 appends. Its dims:
    0   as in the bottom at the same axis
    -1  whatever makes the counts equal; once at most
    n   n
    bottom[0]  (before, replaced axes, after)
    top[0]     (before, shape, after)
Top and bottom share their memory, data and diff: nothing is copied.

Differs from Caffe: with a kept axis of size 0, which divides by zero there, -1 is what it would be for another size.
"""

from __future__ import annotations

import math

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Reshape")
class Reshape(Layer):
    exact_bottoms, exact_tops = 1, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.reshape_param
        dims = list(p.shape.dim)
        self.check(all(d >= -1 for d in dims), f"dims must be >= -1, got shape {dims}")
        self.check(dims.count(-1) <= 1, f"only one dim can be inferred (-1), got shape {dims}")
        self.check(p.num_axes >= -1, f"num_axes must be >= 0, or -1 for all, got {p.num_axes}")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(self._new_shape(bottom[0].shape))
        top[0].share_data(bottom[0])
        top[0].share_diff(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass  # the memory is shared

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        pass  # so is that of the gradient

    def _new_shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        p = self.param.reshape_param
        start = p.axis if p.axis >= 0 else len(old) + p.axis + 1
        self.check_shape(
            0 <= start <= len(old), f"axis {p.axis} is outside [{-len(old) - 1}, {len(old)}] of a bottom of shape {old}"
        )
        end = len(old) if p.num_axes == -1 else start + p.num_axes
        self.check_shape(
            end <= len(old), f"axis {p.axis} and num_axes {p.num_axes} reach past the {len(old)} axes of shape {old}"
        )
        dims = list(p.shape.dim)
        copied = [start + i for i, dim in enumerate(dims) if dim == 0]
        for axis in copied:
            self.check_shape(
                axis < len(old), f"a dim of 0 copies axis {axis} of the bottom, which has {len(old)} axes: {old}"
            )
            dims[axis - start] = old[axis]
        if -1 in dims:
            dims[dims.index(-1)] = self._infer(old, start, end, dims, copied)
        new = (*old[:start], *dims, *old[end:])
        self.check_shape(
            math.prod(new) == math.prod(old),
            f"shape {list(p.shape.dim)} makes {new} of {old}: {math.prod(new)} values of {math.prod(old)}",
        )
        return new

    def _infer(self, old: tuple[int, ...], start: int, end: int, dims: list[int], copied: list[int]) -> int:
        """The size of the dim that is -1: what is replaced over what is given, sizes that stay left out."""
        stays = [axis for axis in copied if axis < end]
        given = math.prod(d for i, d in enumerate(dims) if d != -1 and start + i not in stays)
        replaced = math.prod(d for axis, d in enumerate(old[start:end], start) if axis not in stays)
        self.check_shape(
            replaced == 0 if given == 0 else replaced % given == 0,
            f"cannot infer -1: {replaced} values of {old} are not a multiple of the {given} that shape "
            f"{list(self.param.reshape_param.shape.dim)} gives",
        )
        return replaced // max(given, 1)
