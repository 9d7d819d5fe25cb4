"""Parameter: a learned array as a blob, for other layers to compute with.

Behaves as Caffe's ParameterLayer:
    top[0]    parameter_param.shape, the very memory of blobs[0], data and diff
    blobs[0]  the same shape; zero until weights are loaded or something is written into it
Because the diff is shared, the gradient that a layer above writes is the parameter's, without a backward pass here;
it is overwritten, not added to: with iter_size > 1 the last batch decides, as in Caffe.

Differs from Caffe: a loss_weight, which would be overwritten by the gradient in the same memory, is refused.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Parameter")
class Parameter(Layer):
    exact_bottoms, exact_tops = 0, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.check(not any(self.param.loss_weight), "takes no loss_weight: put a Reduction layer behind it")
        self.check(self.param.parameter_param.HasField("shape"), "needs parameter_param { shape { dim: ... } }")
        self.add_param(tuple(self.param.parameter_param.shape.dim))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        # Again and again, as the memory of blobs[0] is exchanged when it is shared with another layer or net.
        top[0].reshape(self.blobs[0].shape)
        top[0].share_data(self.blobs[0])
        top[0].share_diff(self.blobs[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        pass
