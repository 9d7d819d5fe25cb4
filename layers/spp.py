"""SPP: spatial pyramid pooling, which makes a vector of one length from a map of any size.

He et al. (2014), section 2.2; behaves as Caffe's SPPLayer. N images, C channels, H x W, L = pyramid_height:
    bottom[0]  (N, C, H, W)
    top[0]     (N, C (4^L - 1) / 3)  level after level, each (C, 2^l, 2^l) flattened; (N, C, 1, 1) if L is 1
Level l = 0 ... L - 1 is a Pooling with b = 2^l bins along each axis: kernel and stride ceil(H / b), pad
(kernel b - H + 1) / 2 cut off to an integer; columns alike. The gradient is the sum over the levels.

Differs from Caffe: nothing. Like Caffe it refuses maps too small for a level, where the pad reaches the kernel.
"""

from __future__ import annotations

from caffe_lite.blob import Blob
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.layers.pooling import Pooling
from caffe_lite.proto import caffe_pb2
from caffe_lite.registry import register_layer


@register_layer("SPP")
class SPP(Layer):
    exact_bottoms, exact_tops = 1, 1
    levels: list[Pooling]
    pooled: list[Blob]  # their tops

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.spp_param
        self.check(p.pyramid_height > 0, f"pyramid_height must be > 0, got {p.pyramid_height}")
        self.size = (0, 0)  # of the map that the levels are for
        self.levels, self.pooled = [], []
        self.image = Blob((), self.dtype, self.device)  # the bottom, with a diff for one level after the other

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        self.check_shape(len(shape) == 4, f"bottom must have shape (N, C, H, W), got {shape}")
        n, c, height, width = shape
        self.check_shape(height > 0 and width > 0, f"bottom must not be empty, got {shape}")
        height_of_pyramid = self.param.spp_param.pyramid_height
        if self.size != (height, width):
            self.levels = [self._level(level, bottom[0]) for level in range(height_of_pyramid)]
            self.pooled = [Blob((), self.dtype, self.device) for _ in self.levels]
            self.size = (height, width)
        for level, blob in zip(self.levels, self.pooled, strict=True):
            level.reshape(bottom, [blob])
        if height_of_pyramid == 1:
            top[0].reshape(self.pooled[0].shape)
        else:
            top[0].reshape(n, sum(c * blob.height * blob.width for blob in self.pooled))

    def _level(self, level: int, bottom: Blob) -> Pooling:
        param = caffe_pb2.LayerParameter(name=self.name, type=self.type)
        p = param.pooling_param
        p.pool = p.PoolMethod.Value(self._method())
        bins = 1 << level
        for axis, size in ("h", bottom.height), ("w", bottom.width):
            kernel = -(-size // bins)
            pad = (kernel * bins - size + 1) // 2
            cut = f"level {level} of the pyramid cuts {size} pixels into {bins} bins of {kernel}"
            too_small = f"{cut}, with a pad of {pad}, which reaches the kernel"
            self.check_shape(pad < kernel, f"{too_small}: use a smaller pyramid_height, or larger maps")
            setattr(p, f"kernel_{axis}", kernel)
            setattr(p, f"stride_{axis}", kernel)
            setattr(p, f"pad_{axis}", pad)
        layer = Pooling(param, self.phase, self.device, self.dtype, self.where)
        layer.setup([bottom], [Blob((), self.dtype, self.device)])
        return layer

    def _method(self) -> str:
        p = self.param.spp_param
        return p.PoolMethod.Name(p.pool)

    def _parts(self, array: Array) -> list[Array]:
        """The piece of the top's data or diff that belongs to each level, in the level's shape (a copy or a view)."""
        pieces, first = [], 0
        n = array.shape[0]
        flat = array.reshape(n, array.size // n if n else 0)
        for blob in self.pooled:
            count = blob.count // n if n else 0
            pieces.append(flat[:, first : first + count])
            first += count
        return pieces

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        for level, blob, part in zip(self.levels, self.pooled, self._parts(top[0].data), strict=True):
            level.forward(bottom, [blob])
            part[...] = blob.data.reshape(part.shape)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dx = bottom[0].diff
        self.image.reshape(bottom[0].shape)
        self.image.share_data(bottom[0])
        for i, (level, blob, part) in enumerate(zip(self.levels, self.pooled, self._parts(top[0].diff), strict=True)):
            blob.diff[...] = part.reshape(blob.shape)
            level.backward([blob], [True], [self.image if i else bottom[0]])
            if i:
                dx += self.image.diff
