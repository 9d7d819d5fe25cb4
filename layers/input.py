"""Input: blobs that the user fills; its tops are the inputs of the net.

Behaves as Caffe's InputLayer.
    top[i]  input_param.shape[i]; one shape serves all tops, none leaves them to net.blobs[...].reshape
Forward does nothing: what was written into a top stays there. There is no gradient.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Input")
class Input(Layer):
    exact_bottoms, min_tops = 0, 1
    is_input = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        shapes = self.param.input_param.shape
        fits = len(shapes) in (0, 1, len(top))
        self.check(fits, f"needs no shape, one shape for all tops, or one for each of {len(top)}; got {len(shapes)}")
        for i, blob in enumerate(top):
            if shapes:
                blob.reshape(tuple(shapes[i if len(shapes) > 1 else 0].dim))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass  # a size that the user gave at run time stays

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        pass
