"""Slice: cuts a blob into several along one axis.

Behaves as Caffe's SliceLayer, the opposite of Concat. ``axis`` (1; the older ``slice_dim`` says the same, without
negative values):
    bottom[0]  (..., n, ...)
    top[i]     (..., n_i, ...)  n_i from slice_point i - 1 (0) up to slice_point i (n)
The slice_points, one fewer than tops, increase strictly; without any, n is divided into equal parts. The bottom's
gradient is the tops' put together. A single top shares its memory with the bottom.

Differs from Caffe: a top whose gradient nobody has ever written counts as zero without being allocated.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Slice")
class Slice(Layer):
    exact_bottoms, min_tops = 1, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.slice_param
        # Layer.set_up compares top[i] with bottom[i] only; here any top could be the bottom.
        self.check(all(t is not bottom[0] for t in top), "cannot run in place: give the tops names of their own")
        both = p.HasField("axis") and p.HasField("slice_dim")
        self.check(not both, "give axis or slice_dim, not both (slice_dim is the older name)")
        points = list(p.slice_point)
        self.check(
            len(points) in (0, len(top) - 1), f"{len(top)} tops need {len(top) - 1} slice_points or none, got {points}"
        )
        self.check(
            all(a < b for a, b in zip([0, *points], points)),  # noqa: B905 - pairs
            f"slice_points must be > 0 and increase, got {points}",
        )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        p, shape = self.param.slice_param, bottom[0].shape
        axis = self.canonical_axis(bottom[0], p.slice_dim if p.HasField("slice_dim") else p.axis)
        size, points = shape[axis], list(p.slice_point)
        if points:
            self.check_shape(
                points[-1] <= size and len(top) <= size,
                f"slice_points {points} do not fit axis {axis} of size {size}, bottom of shape {shape}",
            )
        else:
            self.check_shape(
                size % len(top) == 0, f"axis {axis} of shape {shape} does not divide into {len(top)} equal parts"
            )
            points = [i * (size // len(top)) for i in range(1, len(top))]
        edges = [0, *points, size]
        self.parts = [(slice(None),) * axis + (slice(a, b),) for a, b in zip(edges, edges[1:])]  # noqa: B905 - pairs
        for blob, a, b in zip(top, edges, edges[1:]):  # noqa: B905 - pairs
            blob.reshape(*shape[:axis], b - a, *shape[axis + 1 :])
        if len(top) == 1:
            top[0].share_data(bottom[0])
            top[0].share_diff(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if len(top) > 1:
            for blob, part in zip(top, self.parts, strict=True):
                blob.data[...] = bottom[0].data[part]

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if len(top) > 1 and propagate_down[0]:
            for blob, part in zip(top, self.parts, strict=True):
                bottom[0].diff[part] = blob.diff if blob.diff_in_use else 0
