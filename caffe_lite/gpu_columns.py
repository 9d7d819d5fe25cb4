"""Convolution as a product with the matrix of patches, on a GPU: what caffe_lite.im2col is on the CPU.

    x    (N, C_all, *in)   of which channels [c0, c0 + C) take part; in, kernel, out: the spatial axes
    col  (C * taps, T)     taps = product of kernel; output positions [first, first + T) of one image
    y    (N, K_all, *out)  of which channels [k0, k0 + K) take part
    w    (K, C * taps)

One image at a time; of a large one, a range of its positions. A kernel of one tap needs no matrix: the images are the
columns, and one batch of products serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.device import Device
from caffe_lite.gpu_gemm import multiply
from caffe_lite.im2col import Geometry

kernels = Kernels(__file__)
LIMIT = 64 << 20  # numbers of the column matrix that exist at a time


class GpuColumns:
    """The products for one geometry; ``general`` takes the kernels for any number of axes for two axes as well."""

    def __init__(self, geometry: Geometry, device: Device, dtype: Any, general: bool = False) -> None:
        self.geometry, self.device, self.xp, self.dtype = geometry, device, device.xp, np.dtype(dtype)
        self.positions = math.prod(geometry.out)
        g = geometry
        self.kind, self.sizes = "2d", (*g.size, *g.kernel, *g.stride, *g.pad, *g.dilation, *g.out)
        if len(g.size) != 2 or general:
            table = self.xp.asarray(g.table.astype(np.int32))
            self.kind, self.sizes = "nd", (table.shape[1], table, g.taps, math.prod(g.size))

    def forward(self, x: Any, c0: int, w: Any, bias: Any, y: Any, k0: int, clip: bool) -> None:
        """Write channels [k0, k0 + K) of y: w * x + bias (None: none), clipped at 0 if ``clip``."""
        rows, flat = w.shape[1], y.reshape(*y.shape[:2], self.positions)
        if self.geometry.is_pointwise:
            multiply(self.device, w, self._pixels(x, c0, rows), flat[:, k0 : k0 + w.shape[0]])
        else:
            for n, first, count in self._pieces(x.shape[0], rows):
                col = self._columns(x, n, c0, rows, first, count)
                multiply(self.device, w, col, flat[n, k0 : k0 + w.shape[0], first : first + count])
        if bias is not None or clip:
            sizes = self.positions, w.shape[0], y.shape[1], k0
            add = w if bias is None else bias  # some array: it is not read
            count = y.shape[0] * w.shape[0] * self.positions
            kernels("columns_epilogue", count, *sizes, add, bias is not None, clip, y, dtype=self.dtype)

    def data_gradient(self, dy: Any, k0: int, w: Any, dx: Any, c0: int) -> None:
        """Overwrite channels [c0, c0 + C) of dx with w^T dy, folded by ``col2im``."""
        g, rows = self.geometry, w.shape[1]
        dy = dy.reshape(*dy.shape[:2], self.positions)
        if g.is_pointwise:
            multiply(self.device, w.T, dy[:, k0 : k0 + w.shape[0]], self._pixels(dx, c0, rows))
            return
        for n, first, count in self._pieces(dx.shape[0], rows):
            col = self.device.workspace("im2col_columns", (rows, count), self.dtype)
            multiply(self.device, w.T, dy[n, k0 : k0 + w.shape[0], first : first + count], col)
            self.col2im(col, first, dx, n * dx.shape[1] + c0, rows // g.taps)

    def weight_gradient(self, x: Any, c0: int, dy: Any, k0: int, dw: Any) -> None:
        """Add dy col^T to dw (K, C * taps)."""
        dy = dy.reshape(*dy.shape[:2], self.positions)
        for n, first, count in self._pieces(x.shape[0], dw.shape[1]):
            if self.geometry.is_pointwise:
                col = self._pixels(x, c0, dw.shape[1])[n, :, first : first + count]
            else:
                col = self._columns(x, n, c0, dw.shape[1], first, count)
            part = dy[n, k0 : k0 + dw.shape[0], first : first + count]
            multiply(self.device, part, col.T, dw, add=True)

    def im2col(self, x: Any, channel: int, first: int, col: Any) -> None:
        """Fill col from the channels of x that start at ``channel``, counted through the batch."""
        sizes = self.sizes if self.kind == "nd" else (*self.sizes[:-2], self.sizes[-1])  # needs no height of the output
        count = col.shape[-1]
        kernels(f"im2col_{self.kind}", col.size, x, channel, *sizes, first, count, col, dtype=self.dtype)

    def col2im(self, col: Any, first: int, x: Any, channel: int, channels: int) -> None:
        """Overwrite ``channels`` channels of x (add to them if ``first`` > 0) with what col holds of each number."""
        size, count = channels * math.prod(self.geometry.size), col.shape[-1]
        kernels(f"col2im_{self.kind}", size, col, channel, *self.sizes, first, count, first > 0, x, dtype=self.dtype)

    def _pieces(self, images: int, rows: int) -> Iterator[tuple[int, int, int]]:
        """(image, first position, positions) of each product."""
        width = max(1, min(self.positions, LIMIT // rows))
        for n in range(images):
            for first in range(0, self.positions, width):
                yield n, first, min(width, self.positions - first)

    def _columns(self, x: Any, n: int, c0: int, rows: int, first: int, count: int) -> Any:
        col = self.device.workspace("im2col_columns", (rows, count), self.dtype)
        self.im2col(x, n * x.shape[1] + c0, first, col)
        return col

    @staticmethod
    def _pixels(x: Any, c0: int, rows: int) -> Any:
        """(N, rows, positions): the channels from c0 on, which are the columns of a kernel of one tap."""
        return x.reshape(*x.shape[:2], -1)[:, c0 : c0 + rows]
