"""Convolution: cross-correlation with learned kernels, over any number of spatial axes.

Behaves as Caffe's ConvolutionLayer. N: product of the axes before ``axis``, C channels, G = group, K = num_output:
    bottom[i]  (..., C, *in)    all bottoms have the same shape and share the weights
    top[i]     (..., K, *out)   out = floor((in + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1
    blobs[0]   weights, (K, C / G, *kernel); kernels of group g meet channels [g C / G, (g + 1) C / G)
    blobs[1]   bias, (K,), unless bias_term: false
C is fixed by setup; N and ``in`` may change. Gradients go to the bottoms (overwritten), the weights and the bias
(added to).

On the CPU there are three ways to the same numbers, up to rounding; ``path`` says which one is taken, and why:
    winograd  3 x 3, stride 1, dilation 1, enough channels and pixels: caffe_lite.winograd
    direct    any other in two dimensions: caffe_lite.direct
    im2col    ``engine: CAFFE``, ``force_nd_im2col``, another number of spatial axes, few pixels: caffe_lite.im2col

Differs from Caffe: ``engine: CUDNN`` is the same as DEFAULT, and works with a dilation; a kernel that is larger than
the padded bottom is an error; an in-place ReLU that comes next is done here, as the top is written.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from caffe_lite import direct, im2col, winograd, winograd_gradient
from caffe_lite.channel_sums import add_channel_sums
from caffe_lite.cuda import Kernels
from caffe_lite.im2col import Geometry
from caffe_lite.layer import Layer
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
GPU_COLUMNS = 64 << 20  # numbers of the column matrix that a GPU holds at a time


@register_layer("Convolution")
class Convolution(Layer):
    min_bottoms = min_tops = 1
    equal_bottoms_tops = True
    can_fuse_relu = True

    def setup(self, bottom, top):
        p = self.param.convolution_param
        shape = bottom[0].shape
        self.axis = self.canonical_axis(bottom[0], p.axis)
        self.axes = len(shape) - self.axis - 1
        self.sizes = im2col.read_sizes(p, self.axes, self.check)
        self.channels, self.outputs, self.group = shape[self.axis], p.num_output, p.group
        self.check(p.num_output > 0, f"num_output must be > 0, got {p.num_output}")
        self.check(p.group > 0, f"group must be > 0, got {p.group}")
        for what, count in ("channels of the bottom", self.channels), ("num_output", self.outputs):
            self.check(count % p.group == 0, f"group {p.group} does not divide the {what}, {count}")
        self.c, self.k = self.channels // p.group, self.outputs // p.group  # of one group
        wanted = 1 + p.bias_term
        given = len(self.preloaded)
        self.check(given in (0, wanted), f"the prototxt carries {given} parameter blob(s); the layer has {wanted}")
        self.add_param((self.outputs, self.c, *self.sizes[0]), _filler(p, "weight_filler"))
        if p.bias_term:
            self.add_param((self.outputs,), _filler(p, "bias_filler"))

    def reshape(self, bottom, top):
        shape = bottom[0].shape
        as_before = len(shape) == self.axis + 1 + self.axes and shape[self.axis] == self.channels
        built_for = f"{self.channels} channels on axis {self.axis} and {self.axes} spatial axes"
        self.check_shape(as_before, f"bottom has shape {shape}; the weights are for {built_for}")
        for i, other in enumerate(bottom):
            same = f"bottoms share the weights, so they need one shape: bottom[{i}] has {other.shape}, bottom[0] {shape}"
            self.check_shape(other.shape == shape, same)
        self.geometry = Geometry(tuple(shape[self.axis + 1 :]), *self.sizes)
        fits = f"kernel {self.sizes[0]}, dilation {self.sizes[3]} and pad {self.sizes[2]} do not fit"
        self.check_shape(all(n > 0 for n in self.geometry.out), f"{fits} a bottom of shape {shape}")
        for blob in top:
            blob.reshape(*shape[: self.axis], self.outputs, *self.geometry.out)
        self.n, self.positions = math.prod(shape[: self.axis]), math.prod(self.geometry.out)
        self.path, self.reason = self._choose()
        if self.device.is_gpu:
            self.table = self.xp.asarray(self.geometry.table.astype(np.int32))

    def _choose(self) -> tuple[str, str]:
        """("winograd", "direct" or "im2col", why)."""
        p, g = self.param.convolution_param, self.geometry
        pixels = self.n * self.positions
        if p.engine == p.CAFFE or p.force_nd_im2col:
            return "im2col", "engine: CAFFE" if p.engine == p.CAFFE else "force_nd_im2col"
        if self.axes != 2:
            return "im2col", f"{self.axes} spatial axes"
        if pixels < 64:  # laying out the weights would cost more than it saves
            return "im2col", f"{pixels} output pixels"
        plain = (g.kernel, g.stride, g.dilation) == ((3, 3), (1, 1), (1, 1))
        tiles = self.n * math.prod(-(-n // 4) for n in g.out)
        if plain and min(self.c, self.k) >= 8 and tiles >= 32 and pixels >= 6 * tiles:
            return "winograd", f"3 x 3, {tiles} tiles of 4 x 4 pixels"
        return "direct", f"kernel {g.kernel}, stride {g.stride}, dilation {g.dilation}, {self.c} channels"

    def _flat(self, blob: Any, part: str = "data") -> Any:
        """``data`` or ``diff`` as (N, channels, *spatial)."""
        return getattr(blob, part).reshape(self.n, *blob.shape[self.axis :])

    def _groups(self) -> list[tuple[int, int]]:
        """(first channel of the bottom, first channel of the top) of each group."""
        return [(g * self.c, g * self.k) for g in range(self.group)]

    # ---- CPU

    def forward_cpu(self, bottom, top):
        w, bias = self.blobs[0].data, self.blobs[1].data if len(self.blobs) == 2 else None
        if not top[0].count:
            return
        for c0, k0 in self._groups():
            if self.path == "winograd":  # transformed anew: a user may have written into the weights
                u = winograd.transform_weights(w, k0, self.k, self.device)
            else:
                flat = w[k0 : k0 + self.k].reshape(self.k, -1)
                u = direct.pack_weights(flat, self.device) if self.path == "direct" else flat
            for x, y in ((self._flat(b), self._flat(t)) for b, t in zip(bottom, top, strict=True)):
                if self.path == "winograd":
                    place = self.c, u, bias, y, k0, self.k
                    winograd.convolve(x, c0, *place, self.geometry.pad, self.device, self.fused_relu)
                elif self.path == "direct":
                    place = self.c, u, bias, y, k0, self.k
                    direct.convolve(x, c0, *place, *self.sizes, self.device, self.fused_relu)
                else:
                    im2col.forward(x, c0, u, bias, y, k0, self.geometry, self.device, self.fused_relu)

    def backward_cpu(self, top, propagate_down, bottom):
        if not top[0].count:
            return
        for i, (t, b) in enumerate(zip(top, bottom, strict=True)):
            dy = self._flat(t, "diff")
            if len(self.blobs) == 2 and self.param_propagate_down[1]:
                add_channel_sums(dy, self.blobs[1].diff)
            for c0, k0 in self._groups():
                if self.param_propagate_down[0]:
                    self._weight_gradient(self._flat(b), c0, dy, k0)
                if propagate_down[i]:
                    self._data_gradient(dy, k0, self._flat(b, "diff"), c0)

    def _weight_gradient(self, x: np.ndarray, c0: int, dy: np.ndarray, k0: int) -> None:
        dw = self.blobs[0].diff
        if self.path == "winograd":
            winograd_gradient.weight_gradient(x, c0, dy, k0, self.k, dw, self.geometry.pad, self.device)
        else:
            part = dw[k0 : k0 + self.k].reshape(self.k, -1)
            im2col.weight_gradient(x, c0, dy, k0, part, self.geometry, self.device)

    def _data_gradient(self, dy: np.ndarray, k0: int, dx: np.ndarray, c0: int) -> None:
        w = self.blobs[0].data
        kernel, stride, pad, dilation = self.sizes
        if self.path == "winograd":
            winograd.data_gradient(dy, k0, self.k, w, dx, c0, pad, self.device)
        elif self.path == "direct" and stride == (1, 1):
            packed = direct.pack_weights(direct.turn_weights(w[k0 : k0 + self.k]), self.device)
            inverse = tuple(d * (n - 1) - p for d, n, p in zip(dilation, kernel, pad, strict=True))
            place = self.k, packed, None, dx, c0, self.c
            direct.convolve(dy, k0, *place, kernel, stride, inverse, dilation, self.device)
        else:
            im2col.data_gradient(dy, k0, w[k0 : k0 + self.k].reshape(self.k, -1), dx, c0, self.geometry, self.device)

    # ---- GPU: a column matrix for each image and group (of a range of positions, where it would be too large)

    def forward_gpu(self, bottom, top):
        w = self.blobs[0].data.reshape(self.outputs, -1)
        bias = self.blobs[1].data if len(self.blobs) == 2 else w[:0]
        for b, t in zip(bottom, top, strict=True):
            x, y = self._flat(b), self._flat(t).reshape(self.n, self.outputs, self.positions)
            for n, c0, k0, first, count in self._pieces():
                col = self._columns(x, n, c0, first, count)
                self._multiply(w[k0 : k0 + self.k], col, y[n, k0 : k0 + self.k, first : first + count])
            if bias.size or self.fused_relu:
                has = bool(bias.size), self.fused_relu
                sizes = self.positions, self.outputs
                kernels("convolution_epilogue", y.size, *sizes, bias, *has, y, dtype=self.dtype)

    def backward_gpu(self, top, propagate_down, bottom):
        w = self.blobs[0].data.reshape(self.outputs, -1)
        dw = self.blobs[0].diff.reshape(self.outputs, -1) if self.param_propagate_down[0] else None
        for i, (t, b) in enumerate(zip(top, bottom, strict=True)):
            dy = self._flat(t, "diff").reshape(self.n, self.outputs, self.positions)
            if len(self.blobs) == 2 and self.param_propagate_down[1]:
                self.blobs[1].diff[...] += dy.sum(axis=(0, 2))
            for n, c0, k0, first, count in self._pieces():
                part = dy[n, k0 : k0 + self.k, first : first + count]
                if dw is not None:
                    dw[k0 : k0 + self.k] += part.dot(self._columns(self._flat(b), n, c0, first, count).T)
                if propagate_down[i]:
                    self._fold(w[k0 : k0 + self.k].T, part, self._flat(b, "diff"), n, c0, first, count)

    def _pieces(self) -> Any:
        """(image, first channel of bottom, of top, first position, positions) of each product."""
        width = max(1, min(self.positions, GPU_COLUMNS // (self.c * self.geometry.taps)))
        for n in range(self.n):
            for c0, k0 in self._groups():
                for first in range(0, self.positions, width):
                    yield n, c0, k0, first, min(width, self.positions - first)

    def _multiply(self, a: Any, b: Any, out: Any) -> None:
        if out.flags.c_contiguous:
            self.xp.dot(a, b, out=out)
        else:
            out[...] = a.dot(b)

    def _columns(self, x: Any, n: int, c0: int, first: int, count: int) -> Any:
        """The columns (C / G * taps, count) of one image and group."""
        g = self.geometry
        if g.is_pointwise:
            return x[n, c0 : c0 + self.c].reshape(self.c, -1)[:, first : first + count]
        col = self.device.workspace("im2col_columns", (self.c * g.taps, count), self.dtype)
        kind, sizes = self._kernel_sizes()
        if kind == "2d":
            sizes = (*sizes[:-2], sizes[-1])  # the height of the output does not matter here
        kernels(f"im2col_{kind}", col.size, x, n * self.channels + c0, *sizes, first, count, col, dtype=self.dtype)
        return col

    def _fold(self, w: Any, dy: Any, dx: Any, n: int, c0: int, first: int, count: int) -> None:
        """dx of one image and group from w (C / G * taps, K / G) and dy (K / G, count)."""
        g = self.geometry
        if g.is_pointwise:
            self._multiply(w, dy, dx[n, c0 : c0 + self.c].reshape(self.c, -1)[:, first : first + count])
            return
        col = self.device.workspace("im2col_columns", (self.c * g.taps, count), self.dtype)
        self.xp.dot(w, dy, out=col)
        kind, sizes = self._kernel_sizes()
        size, add = self.c * math.prod(g.size), first > 0
        channel = n * self.channels + c0
        kernels(f"col2im_{kind}", size, col, channel, *sizes, first, count, add, dx, dtype=self.dtype)

    def _kernel_sizes(self) -> tuple[str, tuple[Any, ...]]:
        g = self.geometry
        if self.axes == 2 and not self.param.convolution_param.force_nd_im2col:
            return "2d", (*g.size, *g.kernel, *g.stride, *g.pad, *g.dilation, *g.out)
        return "nd", (self.table.shape[1], self.table, g.taps, math.prod(g.size))


def _filler(p: Any, field: str) -> Any:
    return getattr(p, field) if p.HasField(field) else None
