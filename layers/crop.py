"""Crop: cuts a blob to the size of another one.

Behaves as Caffe's CropLayer. Axes before ``axis`` (2) stay; the others get the sizes of bottom[1], starting at
``offset`` (none: 0; one: for all of them; otherwise one for each):
    bottom[0]  (kept axes, n_i ...)
    bottom[1]  (any, m_i ...)  only its sizes from ``axis`` on matter
    top[0]     (kept axes, m_i ...)  elements offset_i to offset_i + m_i - 1 of each axis
The gradient goes to bottom[0], with zeros outside; that of bottom[1] is zero. Forward is a strided NumPy copy on one
thread, bound by memory: PyTorch's takes half its time on two.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Crop")
class Crop(Layer):
    exact_bottoms, exact_tops = 2, 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        p, shape, size = self.param.crop_param, bottom[0].shape, bottom[1].shape
        axis = self.canonical_axis(bottom[0], p.axis)
        self.check_shape(
            len(size) >= len(shape), f"bottom 1, of shape {size}, must have the {len(shape)} axes of bottom 0, {shape}"
        )
        cropped, offsets = len(shape) - axis, list(p.offset)
        self.check_shape(
            len(offsets) in (0, 1, cropped),
            f"needs no offset, one, or one for each of the {cropped} axes from axis {axis} on, got {offsets}",
        )
        offsets = offsets or [0]
        offsets = offsets * cropped if len(offsets) == 1 else offsets
        self.part = (slice(None),) * axis
        for i, offset in enumerate(offsets, axis):
            self.check_shape(
                offset + size[i] <= shape[i],
                f"axis {i} of bottom 0, of size {shape[i]}, has no elements {offset} to {offset + size[i] - 1} "
                f"(offset {offset}, size {size[i]} of bottom 1)",
            )
            self.part += (slice(offset, offset + size[i]),)
        top[0].reshape(*shape[:axis], *size[axis : len(shape)])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = bottom[0].data[self.part]

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            dx = bottom[0].diff
            dx[...] = 0
            dx[self.part] = top[0].diff
        if propagate_down[1] and bottom[1].diff_in_use:  # a diff not in use is zero already
            bottom[1].diff[...] = 0

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0
