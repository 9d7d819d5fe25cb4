"""Silence: takes blobs that nobody wants, so that they are not outputs of the net.

Behaves as Caffe's SilenceLayer.
    bottom[i]  any shapes; no tops
The gradient is zero.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Silence")
class Silence(Layer):
    min_bottoms, exact_tops = 1, 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        for blob, wanted in zip(bottom, propagate_down, strict=True):
            if wanted and blob.diff_in_use:  # a diff not in use is zero already
                blob.diff[...] = 0
