"""Deconvolution: a convolution turned round (transposed), which makes its bottom larger.

Behaves as Caffe's DeconvolutionLayer: forward is the data gradient of a convolution, backward its forward.
N: product of the axes before ``axis``, C channels, G = group, K = num_output:
    bottom[i]  (..., C, *in)    all bottoms have the same shape and share the weights
    top[i]     (..., K, *out)   out = stride (in - 1) + dilation (kernel - 1) + 1 - 2 pad
    blobs[0]   weights, (C, K / G, *kernel); channel c of a bottom lays its kernel, times each of its values, onto
               channels [g K / G, (g + 1) K / G) of the top, stride apart, where g = c G // C
    blobs[1]   bias, (K,), unless bias_term: false
C is fixed by setup; N and ``in`` may change. Gradients go to the bottoms (overwritten), the weights and the bias
(added to). ``weight_filler { type: "bilinear" }`` with group = num_output = C makes it upsample (Long et al., 2015).

Differs from Caffe: ``engine: CUDNN`` is the same as DEFAULT; a pad that leaves nothing of the top is an error.
"""

from __future__ import annotations

from caffe_lite.im2col import Geometry, Sizes
from caffe_lite.layer import Blobs, Flags
from caffe_lite.layers.base_convolution import BaseConvolution
from caffe_lite.registry import register_layer


@register_layer("Deconvolution")
class Deconvolution(BaseConvolution):
    bottom_is_x = False

    def make_geometry(self, size: Sizes) -> Geometry:
        every = zip(size, *self.sizes, strict=True)
        return Geometry(tuple(s * (n - 1) + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in every), *self.sizes)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if not top[0].count:
            return
        for b, t in zip(bottom, top, strict=True):
            y = self.flat(t)
            for c0, k0 in self.groups():
                self.data_gradient(self.flat(b), k0, y, c0)
            if len(self.blobs) == 2:
                y += self.blobs[1].data.reshape(-1, *[1] * self.axes)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not top[0].count:
            return
        for t, b in zip(top, bottom, strict=True):
            dy = self.flat(t, "diff")
            self.add_bias_gradient(dy)
            for c0, k0 in self.groups() if self.param_propagate_down[0] else ():
                self.add_weight_gradient(dy, c0, self.flat(b), k0)
        for c0, k0 in self.groups() if any(propagate_down) else ():
            packed = self.pack(k0)  # scratch, which lasts until the next product of another kind
            for t, b, wanted in zip(top, bottom, propagate_down, strict=True):
                if wanted:
                    self.convolve(self.flat(t, "diff"), c0, packed, None, self.flat(b, "diff"), k0)
