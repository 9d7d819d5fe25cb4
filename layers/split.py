"""Split: gives one blob to several consumers. The net inserts it; nobody writes it in a prototxt.

Behaves as Caffe's SplitLayer.
    bottom[0]  any shape
    top[i]     the same shape and the same memory
The gradient is the sum of the tops' gradients, ((t0 + t1) + t2) + ..., as Caffe adds them.

Differs from Caffe: a top whose gradient nobody has ever written counts as zero without being allocated.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Split")
class Split(Layer):
    exact_bottoms, min_tops = 1, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        # Layer.set_up compares top[i] with bottom[i] only; here any top could be the bottom.
        self.check(all(t is not bottom[0] for t in top), "cannot run in place: give the tops names of their own")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob in top:
            blob.reshape(bottom[0].shape)
            blob.share_data(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass  # the memory is shared

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        total = bottom[0].diff
        diffs = [blob.diff for blob in top if blob.diff_in_use]
        if len(diffs) < 2:
            total[...] = diffs[0] if diffs else 0
            return
        self.xp.add(diffs[0], diffs[1], out=total)
        for diff in diffs[2:]:
            total += diff
