"""MVN: brings each channel of each image to mean 0 and, with normalize_variance, variance 1.

Behaves as Caffe's MVNLayer:
    bottom[0], top[0]  (N, C, H, W), up to 4 axes
    y = (x - mean) / (sqrt(variance) + eps),  or y = x - mean with normalize_variance: false
Mean and variance are those of an image's channel; of the whole image with across_channels: true. eps (1e-9) is
added after the square root. The gradient is Caffe's, exact where eps is small beside sqrt(variance):
    dx = (dy - mean(dy) - y mean(y dy)) / (sqrt(variance) + eps),  or dx = dy - mean(dy)

Differs from Caffe: backward works from the bottom, so that a layer in place on the top does no harm.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.layers.batch_norm import normalize_backward
from caffe_lite.registry import register_layer


@register_layer("MVN")
class MVN(Layer):
    exact_bottoms, exact_tops = 1, 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        self.check_shape(len(shape) <= 4, f"needs a bottom (N, C, H, W) of at most 4 axes, got shape {shape}")
        rows = bottom[0].count_of(0, 1 if self.param.mvn_param.across_channels else 2)
        self.dims = rows, bottom[0].count // max(rows, 1)
        top[0].reshape(shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self.dims), top[0].data.reshape(self.dims)
        if not x.size:
            return
        self.mean = x.mean(axis=1)  # forward saves mean and deviation for backward
        self.xp.subtract(x, self.mean[:, None], out=y)
        if self.param.mvn_param.normalize_variance:
            square = self.xp.multiply(y, y, out=self.device.workspace("mvn", y.shape, y.dtype))
            self.deviation = self.xp.sqrt(square.mean(axis=1)) + self.param.mvn_param.eps
            y /= self.deviation[:, None]

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        dy, dx = top[0].diff.reshape(self.dims), bottom[0].diff.reshape(self.dims)
        if not propagate_down[0] or not dy.size:
            return
        if self.param.mvn_param.normalize_variance:
            x = bottom[0].data.reshape(self.dims)
            normalize_backward(self.device, dy[None], x[None], self.mean, self.deviation, dx[None])
        else:
            self.xp.subtract(dy, dy.mean(axis=1, keepdims=True), out=dx)
