"""Winograd convolution on a GPU, F(4x4, 3x3) or F(2x2, 3x3): 3 x 3, stride 1, dilation 1.

The method and the matrices of F(4x4, 3x3) are those of ``caffe_lite.winograd``. A tile of ``tile`` x ``tile`` outputs,
4 or 2, takes F = (tile + 2)^2 products for each channel and kernel, so 36 for 16 outputs or 16 for 4 where the
definition has 9 for each. The smaller tile rounds less (its matrices, of the points 0, 1, -1 and infinity, are made of
0, 1 and 1/2), and less of it lies beyond the edges of a small image.

Three steps, each over as many tiles as the scratch memory holds: a kernel transforms the patches of the input, cuBLAS
multiplies the F pairs of matrices in one batch, a kernel transforms back, adds the bias and clips.

    u  (F, K, C)   the transformed kernels, made anew by each call: a user may have written into the weights
    v  (F, C, T)   transformed patches of T tiles
    m  (F, K, T)   = u v, for each of the F "frequencies"

The gradient to the data is the same convolution with the kernels turned and transposed; that to the weights is
G^T [sum over tiles of (A dy A^T) * (B^T d B)] G, whose sum over tiles is again a batch of products. Every sum has a
fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.device import Device
from caffe_lite.gpu_gemm import multiply
from caffe_lite.im2col import Geometry, Sizes

kernels = Kernels(__file__)
LIMIT = 64 << 20  # numbers of v and m together that exist at a time


class GpuWinograd:
    """The products for one geometry in tiles of 4 or 2 a side; arrays as in ``caffe_lite.gpu_columns``."""

    def __init__(self, geometry: Geometry, tile: int, device: Device, dtype: Any) -> None:
        self.geometry, self.tile, self.device, self.dtype = geometry, tile, device, np.dtype(dtype)
        self.frequencies = (tile + 2) ** 2

    def forward(self, x: Any, c0: int, w: Any, bias: Any, y: Any, k0: int, clip: bool) -> None:
        """Write channels [k0, k0 + K) of y: w * x + bias (None: none), clipped at 0 if ``clip``."""
        self._convolve(x, c0, w, False, bias, y, k0, self.geometry.pad, clip)

    def data_gradient(self, dy: Any, k0: int, w: Any, dx: Any, c0: int) -> None:
        """Overwrite channels [c0, c0 + C) of dx."""
        pad = self.geometry.pad
        self._convolve(dy, k0, w, True, None, dx, c0, (2 - pad[0], 2 - pad[1]), False)

    def weight_gradient(self, x: Any, c0: int, dy: Any, k0: int, dw: Any) -> None:
        """Add to dw (K, C * 9)."""
        count_k, count_c = dw.shape[0], dw.shape[1] // 9
        s = self._scratch("winograd_weights", count_k, count_c)
        for first, count, tiles in self._pieces(dy, count_k + count_c):
            v = self._input(x, c0, count_c, self.geometry.pad, tiles, first, count)
            z = self._scratch("winograd_products", count_k, count)
            self._launch("spread", count_k * count, dy, dy.shape[1], k0, *dy.shape[2:], *tiles, first, count, z)
            multiply(self.device, z, v.transpose(0, 2, 1), s, add=first > 0)
        self._launch("weight_gradient", count_k * count_c, s, dw)

    def _convolve(
        self, x: Any, c0: int, w: Any, turned: bool, bias: Any, y: Any, k0: int, pad: Sizes, clip: bool
    ) -> None:
        outputs, inputs = (w.shape[1] // 9, w.shape[0]) if turned else (w.shape[0], w.shape[1] // 9)
        u = self._scratch("winograd_weights", outputs, inputs)
        self._launch("weights", outputs * inputs, w, inputs, w.shape[1] // 9, turned, u)
        add = w if bias is None else bias  # some array: it is not read
        for first, count, tiles in self._pieces(y, outputs + inputs):
            v = self._input(x, c0, inputs, pad, tiles, first, count)
            m = self._scratch("winograd_products", outputs, count)
            multiply(self.device, u, v, m)
            sizes = y.shape[1], k0, *y.shape[2:], *tiles, first, count
            self._launch("output", outputs * count, m, add, bias is not None, clip, *sizes, y)

    def _input(self, x: Any, c0: int, channels: int, pad: Sizes, tiles: Sizes, first: int, count: int) -> Any:
        v = self._scratch("winograd_patches", channels, count)
        self._launch("input", channels * count, x, x.shape[1], c0, *x.shape[2:], *pad, *tiles, first, count, v)
        return v

    def _launch(self, name: str, n: int, *args: Any) -> None:
        kernels(f"winograd_{name}", n, self.tile, *args, dtype=self.dtype)

    def _scratch(self, name: str, rows: int, columns: int) -> Any:
        return self.device.workspace(name, (self.frequencies, rows, columns), self.dtype)

    def _pieces(self, y: Any, channels: int) -> Iterator[tuple[int, int, Sizes]]:
        """(first tile, number of tiles, (tiles down, tiles across an image)) of each piece of the outputs y."""
        tiles = -(-y.shape[2] // self.tile), -(-y.shape[3] // self.tile)
        total = y.shape[0] * tiles[0] * tiles[1]
        most = max(1, LIMIT // (self.frequencies * channels))
        width = -(-total // -(-total // most))  # pieces of equal size
        for first in range(0, total, width):
            yield first, min(width, total - first), tiles
