"""Concat: joins blobs along one axis.

Behaves as Caffe's ConcatLayer. All bottoms have the same shape except along ``axis`` (1; the older
``concat_dim`` says the same, without negative values):
    bottom[i]  (..., n_i, ...)
    top[0]     (..., n_0 + n_1 + ..., ...)
Each bottom gets its slice of the gradient: a copy, as a layer below may work in place on it. A single bottom shares
its memory with the top.
"""

from __future__ import annotations

from collections.abc import Iterator

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Concat")
class Concat(Layer):
    min_bottoms, exact_tops = 1, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.concat_param
        both = p.HasField("axis") and p.HasField("concat_dim")
        self.check(not both, "give axis or concat_dim, not both (concat_dim is the older name)")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.concat_param
        first = bottom[0].shape
        axis = self.canonical_axis(bottom[0], p.concat_dim if p.HasField("concat_dim") else p.axis)
        total = 0
        for i, blob in enumerate(bottom):
            same = len(blob.shape) == len(first) and blob.shape[:axis] + blob.shape[axis + 1 :] == (
                first[:axis] + first[axis + 1 :]
            )
            self.check_shape(
                same, f"bottoms may differ along axis {axis} only: bottom 0 {first}, bottom {i} {blob.shape}"
            )
            total += blob.shape[axis]
        top[0].reshape(*first[:axis], total, *first[axis + 1 :])
        if len(bottom) == 1:
            top[0].share_data(bottom[0])
            top[0].share_diff(bottom[0])
        self.axis = axis

    def _slices(self, bottom: Blobs) -> Iterator[tuple[slice, ...]]:
        """Where each bottom lies in the top."""
        start = 0
        for blob in bottom:
            stop = start + blob.shape[self.axis]
            yield (slice(None),) * self.axis + (slice(start, stop),)
            start = stop

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom) == 1:
            return
        for blob, where in zip(bottom, self._slices(bottom), strict=True):
            top[0].data[where] = blob.data

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if len(bottom) == 1:
            return
        for blob, where, wanted in zip(bottom, self._slices(bottom), propagate_down, strict=True):
            if wanted:
                blob.diff[...] = top[0].diff[where]
