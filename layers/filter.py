"""Filter: lets through the items of a batch that a selector marks.

Behaves as Caffe's FilterLayer:
    bottom[i]     data      (N, ...)  for each i before the last
    bottom[last]  selector  (N,), axes of size 1 may follow; an item passes if its value is not 0
    top[i]                  (M, ...)  the M items of bottom[i] that pass, in their order
M is known only when the selector is: the tops have all N items when the net is built, M from the first forward on
(which on a GPU makes the host wait, here alone). Gradients go to the data, 0 for items that did not pass. The
selector has none.

Differs from Caffe: force_backward passes the selector by (Caffe aborts), and backward works if no item passed
(Caffe divides by 0).
"""

from __future__ import annotations

import numpy as np

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Filter")
class Filter(Layer):
    min_bottoms, min_tops = 2, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.check(
            len(top) == len(bottom) - 1,
            f"needs a top for each bottom but the last, which selects: {len(bottom) - 1}, got {len(top)}",
        )
        self.passing = None  # the positions of the items that pass

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != len(self.param.bottom) - 1

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return rng.integers(0, 2, bottom[-1].shape) if bottom_index == len(bottom) - 1 else None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        *blobs, selector = bottom
        shape = selector.shape
        self.check_shape(
            shape and all(size == 1 for size in shape[1:]),
            f"the selector (bottom {len(blobs)}) must have shape (N,) or (N, 1, ...), got {shape}",
        )
        for i, blob in enumerate(blobs):
            self.check_shape(
                blob.shape[:1] == shape[:1], f"bottom {i} must have {shape[0]} items, as the selector, got {blob.shape}"
            )
        if self.passing is None:
            passing = np.arange(shape[0])
        else:
            passing = np.flatnonzero(self.device.to_host(selector.data))
        self.passing = self.xp.asarray(passing)
        for blob, out in zip(blobs, top, strict=True):
            out.reshape(len(passing), *blob.shape[1:])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        for blob, out in zip(bottom, top):  # noqa: B905 - the selector has no top
            out.data[...] = blob.data[self.passing]

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(
            not propagate_down[-1],
            f"the selector (bottom {len(bottom) - 1}) has no gradient: write propagate_down: false for it",
        )
        for blob, out, wanted in zip(bottom, top, propagate_down):  # noqa: B905
            if wanted:
                blob.diff[...] = 0
                blob.diff[self.passing] = out.diff
