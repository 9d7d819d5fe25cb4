"""Flatten: makes one axis of the axes from ``axis`` to ``end_axis``, without moving anything.

Behaves as Caffe's FlattenLayer; both axes (1 and -1, the last) are inclusive:
    bottom[0]  (before, axis, ..., end_axis, after)
    top[0]     (before, product of axis to end_axis, after)
Top and bottom share their memory, data and diff: nothing is copied.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Flatten")
class Flatten(Layer):
    exact_bottoms, exact_tops = 1, 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        p, shape = self.param.flatten_param, bottom[0].shape
        start, end = self.canonical_axis(bottom[0], p.axis), self.canonical_axis(bottom[0], p.end_axis)
        self.check_shape(
            start <= end, f"axis {p.axis} must not come after end_axis {p.end_axis}: {start} > {end} for shape {shape}"
        )
        top[0].reshape(*shape[:start], bottom[0].count_of(start, end + 1), *shape[end + 1 :])
        top[0].share_data(bottom[0])
        top[0].share_diff(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass  # the memory is shared

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        pass  # so is that of the gradient
