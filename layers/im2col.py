"""Im2col: lays the patch that a convolution meets at each position out along the channels.

Behaves as Caffe's Im2colLayer. N: product of the axes before ``axis``, C channels:
    bottom[0]  (..., C, *in)
    top[0]     (..., C * taps, *out)  taps = product of kernel; channel (c, k1, k2, ...), zeros in the padding;
               out = floor((in + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1
It reads kernel_size, stride, pad, dilation and axis of convolution_param, and nothing else of it. The gradient of a
number is the sum over the patches that hold it.

Differs from Caffe: a kernel that is larger than the padded bottom is an error.
"""

from __future__ import annotations

import math

from caffe_lite import im2col
from caffe_lite.gpu_columns import GpuColumns
from caffe_lite.im2col import Geometry
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Im2col")
class Im2col(Layer):
    exact_bottoms, exact_tops = 1, 1
    columns: GpuColumns | None  # on a GPU

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.convolution_param
        self.axis = self.canonical_axis(bottom[0], p.axis)
        self.axes = len(bottom[0].shape) - self.axis - 1
        self.sizes = im2col.read_sizes(p, self.axes, self.check)
        self.columns = None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        same = f"bottom has shape {shape}; the sizes are for {self.axes} spatial axes from axis {self.axis + 1} on"
        self.check_shape(len(shape) == self.axis + 1 + self.axes, same)
        g = self.geometry = Geometry(tuple(shape[self.axis + 1 :]), *self.sizes)
        fits = f"kernel {g.kernel}, dilation {g.dilation} and pad {g.pad} do not fit"
        self.check_shape(all(n > 0 for n in g.out), f"{fits} a bottom of shape {shape}")
        top[0].reshape(*shape[: self.axis], shape[self.axis] * g.taps, *g.out)
        if self.device.is_gpu and (self.columns is None or self.columns.geometry != g):
            self.columns = GpuColumns(g, self.device, self.dtype, self.param.convolution_param.force_nd_im2col)

    def _whole_batch(self, bottom: Blobs, top: Blobs, part: str) -> tuple[Array, Array]:
        """(x (1, N C, *in), col (N C * taps, positions)): to the loops a batch is one image of many channels."""
        channels = math.prod(bottom[0].shape[: self.axis + 1])
        x = getattr(bottom[0], part).reshape(1, channels, *self.geometry.size)
        return x, getattr(top[0], part).reshape(channels * self.geometry.taps, math.prod(self.geometry.out))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, col = self._whole_batch(bottom, top, "data")
        if self.columns is not None:
            self.columns.im2col(x, 0, 0, col)
        else:
            im2col.im2col(x, 0, self.geometry, 0, col)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dx, dcol = self._whole_batch(bottom, top, "diff")
        if self.columns is not None:
            self.columns.col2im(dcol, 0, dx, 0, dx.shape[1])
        else:
            dx[...] = 0
            im2col.col2im(dcol, 0, self.geometry, dx, 0)
