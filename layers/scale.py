"""Scale: multiplies by a learned blob, or by a second bottom; with bias_term adds a learned blob as well.

Behaves as Caffe's ScaleLayer, Bias layer inside included; may run in place:
    bottom[0]  x  (outer axes, covered axes, inner axes)
    bottom[1]  s  the covered axes, from ``axis`` (1) on; without it s is a parameter
    top[0]     s x + b, shape of x
    blobs      s, unless it is bottom[1]: axes [axis, axis + num_axes) of x; num_axes -1: all from axis on; 0: a number
               b, with bias_term: true: the shape of s
An s without axes multiplies everything, whatever ``axis`` says. s starts as 1 and b as 0 without fillers. Gradients:
    dx = s dy,  ds = sum of x dy over the outer and inner axes,  db = sum of dy over the same
added to the diffs of parameters, written to those of the bottoms. In place, a copy of x is kept for ds.

Differs from Caffe: parameters preloaded from the prototxt must have the right shape; in place no copy is kept for
an s that is not learned (lr_mult: 0).
"""

from __future__ import annotations

from caffe_lite.blob import Blob
from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.layers.bias import channel_dots, channel_sums, covered_shape, outer_dim_inner, scale_and_shift
from caffe_lite.proto import caffe_pb2
from caffe_lite.registry import register_layer

ONES = caffe_pb2.FillerParameter(type="constant", value=1)


@register_layer("Scale")
class Scale(Layer):
    min_bottoms, max_bottoms, exact_tops = 1, 2, 1
    in_place = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.scale_param
        learned = len(bottom) == 1
        shape = covered_shape(self, bottom[0], p) if learned else bottom[1].shape
        if learned:
            self.add_param(shape, p.filler if p.HasField("filler") else ONES)
        if p.bias_term:
            self.add_param(shape, p.bias_filler if p.HasField("bias_filler") else None)
        self.x_before = Blob((), self.dtype, self.device)  # in place: what forward overwrote

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.scale_param
        scale = self._scale(bottom)
        self.dims = outer_dim_inner(self, bottom[0], scale, p.axis, "scale")
        if p.bias_term:
            bias = self.blobs[-1]
            self.check_shape(bias.shape == scale.shape, f"scale has shape {scale.shape}, the bias {bias.shape}")
        top[0].reshape(bottom[0].shape)
        if top[0] is bottom[0]:
            self.x_before.reshape(bottom[0].shape)

    def _scale(self, bottom: Blobs) -> Blob:
        return bottom[1] if len(bottom) == 2 else self.blobs[0]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self.dims), top[0].data.reshape(self.dims)
        if top[0] is bottom[0] and (len(bottom) == 2 or self.param_propagate_down[:1] != [False]):
            self.x_before.data.reshape(self.dims)[...] = x
        shift = self.blobs[-1].data if self.param.scale_param.bias_term else None
        scale_and_shift(self.device, x, self._scale(bottom).data, shift, y)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        dy = top[0].diff.reshape(self.dims)
        x = (self.x_before if top[0] is bottom[0] else bottom[0]).data.reshape(self.dims)
        if len(bottom) == 2:
            if propagate_down[1]:
                bottom[1].diff.reshape(-1)[...] = channel_dots(self.device, x, dy)
        elif self.param_propagate_down[0]:
            self.blobs[0].diff.reshape(-1)[...] += channel_dots(self.device, x, dy)
        if self.param.scale_param.bias_term and self.param_propagate_down[-1]:
            self.blobs[-1].diff.reshape(-1)[...] += channel_sums(dy)
        if propagate_down[0]:  # last: in place it overwrites dy
            scale_and_shift(self.device, dy, self._scale(bottom).data, None, bottom[0].diff.reshape(self.dims))
