"""BaseConvolution: what Convolution and Deconvolution share. A deconvolution is a convolution's data gradient.

Everything here is said of the convolution, whose larger side is x and whose smaller side is y:
    x  (..., C, *in)   bottom of a Convolution, top of a Deconvolution
    y  (..., K, *out)  top of a Convolution, bottom of a Deconvolution
    w  (K, C / G, *kernel); kernels of group g meet channels [g C / G, (g + 1) C / G)

On the CPU there are three ways to the same numbers, up to rounding; ``path`` says which one is taken, and
``reason`` why:
    winograd  3 x 3, stride 1, dilation 1, enough channels and pixels: caffe_lite.winograd
    direct    any other in two dimensions: caffe_lite.direct; its data gradient is caffe_lite.folding's, unless it
              is one tap at stride 1, without padding: then a convolution, too
    im2col    ``engine: CAFFE``, ``force_nd_im2col``, another number of spatial axes, few pixels: caffe_lite.im2col
On a GPU there are four, too:
    gemm      one tap, stride 1, no padding: the images are the matrix
    im2col    ``engine: CAFFE``, ``force_nd_im2col``, another number of spatial axes: caffe_lite.gpu_columns
    implicit, im2col or winograd  any other in two dimensions, as caffe_lite.gpu_choice counts
"""

from __future__ import annotations

import math
from typing import Any

from caffe_lite import direct, direct_gradient, folding, gpu_choice, im2col, winograd, winograd_gradient
from caffe_lite.blob import Blob
from caffe_lite.channel_sums import add_channel_sums
from caffe_lite.gpu_choice import Way
from caffe_lite.gpu_columns import GpuColumns
from caffe_lite.gpu_tiles import GpuTiles
from caffe_lite.gpu_winograd import GpuWinograd
from caffe_lite.im2col import Geometry, Sizes
from caffe_lite.layer import Array, Blobs, Layer


class BaseConvolution(Layer):
    min_bottoms = min_tops = 1
    equal_bottoms_tops = True
    bottom_is_x = True
    products: GpuColumns | GpuTiles | GpuWinograd | None  # on a GPU

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.convolution_param
        shape = bottom[0].shape
        self.axis = self.canonical_axis(bottom[0], p.axis)
        self.axes = len(shape) - self.axis - 1
        self.sizes = im2col.read_sizes(p, self.axes, self.check)
        self.channels, self.group = shape[self.axis], p.group  # of the bottom
        self.check_shape(self.channels, f"bottom has no channels: it has shape {shape}")
        self.check(p.num_output > 0, f"num_output must be > 0, got {p.num_output}")
        self.check(p.group > 0, f"group must be > 0, got {p.group}")
        for what, count in ("channels of the bottom", self.channels), ("num_output", p.num_output):
            self.check(count % p.group == 0, f"group {p.group} does not divide the {what}, {count}")
        sides = self.channels // p.group, p.num_output // p.group  # channels of one group
        self.c, self.k = sides if self.bottom_is_x else sides[::-1]
        wanted = 1 + p.bias_term
        given = len(self.preloaded)
        self.check(given in (0, wanted), f"the prototxt carries {given} parameter blob(s); the layer has {wanted}")
        self.add_param((self.k * self.group, self.c, *self.sizes[0]), _filler(p, "weight_filler"))
        if p.bias_term:
            self.add_param((p.num_output,), _filler(p, "bias_filler"))
        self.products, self.path, self.tile = None, "", 0

    def make_geometry(self, size: Sizes) -> Geometry:
        """That of a bottom with the spatial axes ``size``."""
        raise NotImplementedError

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        fits = len(shape) == self.axis + 1 + self.axes and shape[self.axis] == self.channels
        built_for = f"{self.channels} channels on axis {self.axis} and {self.axes} spatial axes"
        self.check_shape(fits, f"bottom has shape {shape}; the weights are for {built_for}")
        for i, other in enumerate(bottom):
            shapes = f"bottom[{i}] has {other.shape}, bottom[0] {shape}"
            self.check_shape(other.shape == shape, f"bottoms share the weights, so they need one shape: {shapes}")
        g = self.geometry = self.make_geometry(tuple(shape[self.axis + 1 :]))
        made = g.out if self.bottom_is_x else g.size
        sizes = f"kernel {g.kernel}, dilation {g.dilation} and pad {g.pad}"
        self.check_shape(all(n > 0 for n in (*made, *g.out)), f"{sizes} do not fit a bottom of shape {shape}")
        for blob in top:
            blob.reshape(*shape[: self.axis], self.param.convolution_param.num_output, *made)
        self.n, self.positions = math.prod(shape[: self.axis]), math.prod(g.out)
        before = self.path, self.tile
        self.path, self.reason, self.tile = self._choose()
        as_before = self.products is not None and self.products.geometry == g and (self.path, self.tile) == before
        if self.device.is_gpu and not as_before:
            self.products = self._gpu_products()

    def multiply_adds(self, bottom: Blobs, top: Blobs) -> int:
        y = top if self.bottom_is_x else bottom
        return math.prod(self.blobs[0].shape[1:]) * sum(blob.count for blob in y)

    def _choose(self) -> Way:
        """See the module."""
        p, g = self.param.convolution_param, self.geometry
        pixels = self.n * self.positions
        if p.engine == p.CAFFE or p.force_nd_im2col:
            return Way("im2col", "engine: CAFFE" if p.engine == p.CAFFE else "force_nd_im2col")
        if self.device.is_gpu and g.is_pointwise:
            return Way("gemm", f"one tap, {self.c} channels")
        if self.axes != 2:
            return Way("im2col", f"{self.axes} spatial axes")
        if self.device.is_gpu:
            mode = "float64" if self.dtype == "float64" else self.device.compute
            return gpu_choice.choose(g, self.n, self.c, self.k, mode)
        if pixels < 64:  # laying out the weights would cost more than it saves
            return Way("im2col", f"{pixels} output pixels")
        plain = (g.kernel, g.stride, g.dilation) == ((3, 3), (1, 1), (1, 1))
        tiles = self.n * math.prod(-(-n // 4) for n in g.out)
        if plain and min(self.c, self.k) >= 8 and tiles >= 32 and pixels >= 6 * tiles:
            return Way("winograd", f"3 x 3, {tiles} tiles of 4 x 4 pixels", 4)
        return Way("direct", f"kernel {g.kernel}, stride {g.stride}, dilation {g.dilation}, {self.c} channels")

    def _gpu_products(self) -> GpuColumns | GpuTiles | GpuWinograd:
        if self.path == "winograd":
            return GpuWinograd(self.geometry, self.tile, self.device, self.dtype)
        if self.path == "implicit":
            return GpuTiles(self.geometry, self.c, self.k, self.device, self.dtype)
        general = self.param.convolution_param.force_nd_im2col
        return GpuColumns(self.geometry, self.device, self.dtype, general)

    def flat(self, blob: Blob, part: str = "data") -> Array:
        """``data`` or ``diff`` as (N, channels, *spatial)."""
        return getattr(blob, part).reshape(self.n, *blob.shape[self.axis :])

    def groups(self) -> list[tuple[int, int]]:
        """(first channel of x, first channel of y) of each group."""
        return [(g * self.c, g * self.k) for g in range(self.group)]

    # ---- the three products, for one group

    def _rows(self, blob: Blob, k0: int, part: str = "data") -> Array:
        """The group's weights, or their gradient, as (K / G, C / G * taps)."""
        return getattr(blob, part)[k0 : k0 + self.k].reshape(self.k, -1)

    def pack(self, k0: int) -> Array:
        """The group's weights as ``convolve`` wants them, in scratch memory that the other products use, too.

        Made anew by each forward: a user may have written into the weights.
        """
        rows = self._rows(self.blobs[0], k0)
        if self.device.is_gpu or self.path == "im2col":
            return rows
        if self.path == "winograd":
            return winograd.transform_weights(self.blobs[0].data, k0, self.k, self.device)
        return direct.pack_weights(rows, self.device)

    def convolve(
        self, x: Array, c0: int, packed: Array, bias: Array | None, y: Array, k0: int, clip: bool = False
    ) -> None:
        """y = w * x + bias; ``clip`` applies a ReLU."""
        c, k = self.c, self.k
        kernel, stride, pad, dilation = self.sizes
        if self.products is not None:
            self.products.forward(x, c0, packed, bias, y, k0, clip)
        elif self.path == "winograd":
            winograd.convolve(x, c0, c, packed, bias, y, k0, k, pad, self.device, clip)
        elif self.path == "direct":
            direct.convolve(x, c0, c, packed, bias, y, k0, k, kernel, stride, pad, dilation, self.device, clip)
        else:
            im2col.forward(x, c0, packed, bias, y, k0, self.geometry, self.device, clip)

    def add_weight_gradient(self, x: Array, c0: int, dy: Array, k0: int) -> None:
        """Add the gradient to the diff of the weights."""
        rows = self._rows(self.blobs[0], k0, "diff")
        if self.products is not None:
            self.products.weight_gradient(x, c0, dy, k0, rows)
        elif self.path == "winograd":
            whole = self.blobs[0].diff
            winograd_gradient.weight_gradient(x, c0, dy, k0, self.k, whole, self.geometry.pad, self.device)
        elif self.path == "direct":
            kernel, stride, pad, dilation = self.sizes
            direct_gradient.weight_gradient(x, c0, dy, k0, rows, kernel, stride, pad, dilation, self.device)
        else:
            im2col.weight_gradient(x, c0, dy, k0, rows, self.geometry, self.device)

    def data_gradient(self, dy: Array, k0: int, dx: Array, c0: int) -> None:
        """Overwrite the group's channels of dx."""
        w = self.blobs[0].data
        kernel, stride, pad, dilation = self.sizes
        if self.products is not None:
            self.products.data_gradient(dy, k0, self._rows(self.blobs[0], k0), dx, c0)
        elif self.path == "winograd":
            winograd.data_gradient(dy, k0, self.k, w, dx, c0, pad, self.device)
        elif self.path == "direct" and self.geometry.is_pointwise:
            packed = direct.pack_weights(self._rows(self.blobs[0], k0).T, self.device)
            direct.convolve(dy, k0, self.k, packed, None, dx, c0, self.c, kernel, stride, pad, dilation, self.device)
        elif self.path == "direct":
            folding.data_gradient(dy, k0, w[k0 : k0 + self.k], dx, c0, self.geometry, self.device)
        else:
            im2col.data_gradient(dy, k0, self._rows(self.blobs[0], k0), dx, c0, self.geometry, self.device)

    def add_bias_gradient(self, dy: Array) -> None:
        """dy: the flat diff of a top."""
        if len(self.blobs) < 2 or not self.param_propagate_down[1]:
            return
        if self.device.is_gpu:
            db = self.blobs[1].diff
            db += dy.sum(axis=(0, *range(2, dy.ndim)))
        else:
            add_channel_sums(dy, self.blobs[1].diff)


def _filler(p: Any, field: str) -> Any:
    return getattr(p, field) if p.HasField(field) else None
