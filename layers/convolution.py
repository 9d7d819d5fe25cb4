"""Convolution: cross-correlation with learned kernels, over any number of spatial axes.

Behaves as Caffe's ConvolutionLayer. N: product of the axes before ``axis``, C channels, G = group, K = num_output:
    bottom[i]  (..., C, *in)    all bottoms have the same shape and share the weights
    top[i]     (..., K, *out)   out = floor((in + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1
    blobs[0]   weights, (K, C / G, *kernel); kernels of group g meet channels [g C / G, (g + 1) C / G)
    blobs[1]   bias, (K,), unless bias_term: false
C is fixed by setup; N and ``in`` may change. Gradients go to the bottoms (overwritten), the weights and the bias
(added to). How the products are computed: caffe_lite.layers.base_convolution; on the direct path the gradient to the
weights is caffe_lite.direct_gradient's.

Differs from Caffe: ``engine: CUDNN`` is the same as DEFAULT, and works with a dilation; a kernel that is larger than
the padded bottom is an error; an in-place ReLU that comes next is done here, as the top is written.
"""

from __future__ import annotations

from caffe_lite.im2col import Geometry, Sizes
from caffe_lite.layer import Blobs, Flags
from caffe_lite.layers.base_convolution import BaseConvolution
from caffe_lite.registry import register_layer


@register_layer("Convolution")
class Convolution(BaseConvolution):
    can_fuse_relu = True

    def make_geometry(self, size: Sizes) -> Geometry:
        return Geometry(size, *self.sizes)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        bias = self.blobs[1].data if len(self.blobs) == 2 else None
        if not top[0].count:
            return
        for c0, k0 in self.groups():
            packed = self.pack(k0)
            for b, t in zip(bottom, top, strict=True):
                self.convolve(self.flat(b), c0, packed, bias, self.flat(t), k0, self.fused_relu)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not top[0].count:
            return
        for t, b, wanted in zip(top, bottom, propagate_down, strict=True):
            dy = self.flat(t, "diff")
            self.add_bias_gradient(dy)
            for c0, k0 in self.groups():
                if self.param_propagate_down[0]:
                    self.add_weight_gradient(self.flat(b), c0, dy, k0)
                if wanted:
                    self.data_gradient(dy, k0, self.flat(b, "diff"), c0)
