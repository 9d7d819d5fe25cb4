"""PReLU: y = x for x > 0, slope_c x for the rest, with a learned slope for each channel c, or one for all.

He et al., Delving deep into rectifiers (2015); behaves as Caffe's PReLULayer; may run in place, for which it
keeps a copy of x.
    bottom[0], top[0]  (N, C, ...), two axes or more, the same
    parameter          slope, (C,), or () if channel_shared; filled with 0.25 unless ``filler`` says otherwise
The gradient of x is dy where x > 0, slope_c dy where x <= 0 (at 0 too); that of slope_c is the sum of x dy over
the x <= 0 of its channel, added to what its diff holds.

Differs from Caffe: more than four axes are allowed; another number of channels after a reshape is an error.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.layer import Blobs, Flags
from caffe_lite.neuron import InputCopy, NeuronLayer
from caffe_lite.proto import caffe_pb2
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
ZERO, ONE = np.float32(0), np.float32(1)


@register_layer("PReLU")
class PReLU(NeuronLayer):
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.prelu_param
        self._check_axes(bottom[0])
        filler = p.filler if p.HasField("filler") else caffe_pb2.FillerParameter(type="constant", value=0.25)
        self.add_param(() if p.channel_shared else (bottom[0].shape[1],), filler)
        self.input = InputCopy(self)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self._check_axes(bottom[0])
        super().reshape(bottom, top)
        shape, slopes = bottom[0].shape, self.blobs[0].count
        if self.param.prelu_param.channel_shared:
            self.rows = shape[0], 1, bottom[0].count_of(1)
        else:
            self.check_shape(shape[1] == slopes, f"has {slopes} slopes, one a channel, but its bottom is {shape}")
            self.rows = shape[0], slopes, bottom[0].count_of(2)

    def _check_axes(self, blob: Blob) -> None:
        self.check_shape(len(blob.shape) >= 2, f"needs a bottom of two axes or more, (N, C, ...), got {blob.shape}")

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        self.input.keep(bottom, top)
        _forward(bottom[0].data.reshape(self.rows), self.blobs[0].data.reshape(-1), top[0].data.reshape(self.rows))

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        self.input.keep(bottom, top)
        x, slopes, y = bottom[0].data, self.blobs[0].data, top[0].data
        kernels("prelu_forward", top[0].count, x, slopes, *self.rows[1:], y, dtype=self.dtype)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        x, dy = self.input.of(bottom, top).reshape(self.rows), top[0].diff.reshape(self.rows)
        slopes = self.blobs[0]
        if self.param_propagate_down[0]:  # first: in place, the next step writes over dy
            _add_slope_gradient(x, dy, slopes.diff.reshape(-1))
        if propagate_down[0]:
            _backward(x, dy, slopes.data.reshape(-1), bottom[0].diff.reshape(self.rows))

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        x, dy, slopes = self.input.of(bottom, top), top[0].diff, self.blobs[0]
        images, channels, inner = self.rows
        if self.param_propagate_down[0]:
            sums = self.device.workspace("neuron", (channels, inner), self.dtype)
            kernels("prelu_sum_over_images", sums.size, x, dy, images, sums, dtype=self.dtype)
            slopes.diff.reshape(-1)[...] += sums.sum(axis=1)
        if propagate_down[0]:
            dx = bottom[0].diff
            kernels("prelu_backward", bottom[0].count, x, dy, slopes.data, channels, inner, dx, dtype=self.dtype)


# x, y and their diffs are (images, channels, inner) here.


@numba.njit(cache=True)
def _forward(x: np.ndarray, slopes: np.ndarray, y: np.ndarray) -> None:
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for i in range(x.shape[2]):
                below = slopes[c] * x[n, c, i]
                y[n, c, i] = x[n, c, i] if x[n, c, i] > ZERO else below


@numba.njit(cache=True)
def _backward(x: np.ndarray, dy: np.ndarray, slopes: np.ndarray, dx: np.ndarray) -> None:
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for i in range(x.shape[2]):
                dx[n, c, i] = dy[n, c, i] * (ONE if x[n, c, i] > ZERO else slopes[c])


@numba.njit(cache=True)
def _add_slope_gradient(x: np.ndarray, dy: np.ndarray, gradient: np.ndarray) -> None:
    for c in range(x.shape[1]):
        total = 0.0  # in double: there may be millions of terms
        for n in range(x.shape[0]):
            for i in range(x.shape[2]):
                total += dy[n, c, i] * (ZERO if x[n, c, i] > ZERO else x[n, c, i])
        gradient[c] += total
