"""Convolution with any number of spatial axes, as a product with the matrix of patches (im2col), on the CPU.

Row (c, k1, k2, ...) of the column matrix holds, for every output position, the input number that this
tap of the kernel meets there. Only a tile of the matrix exists at a time: T output positions, counted
through the batch, so that small images share a tile. The products are `caffe_lite.gemm`'s.

    x    (N, C_all, *in)   of which channels [c0, c0 + C) take part; in, kernel, out: the spatial axes
    col  (C * taps, T)     taps = product of kernel; output positions [first, first + T)
    y    (N, K_all, *out)  of which channels [k0, k0 + K) take part
    w    (K, C * taps)

``data_gradient`` is the forward direction of a deconvolution, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit, prange

from caffe_lite.device import Device
from caffe_lite.gemm import multiply

TILE_BYTES = 8 << 20  # of columns made at a time
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """Spatial sizes of a convolution, one number for each axis; none at all for a single pixel."""

    size: Sizes  # of the input
    kernel: Sizes
    stride: Sizes
    pad: Sizes
    dilation: Sizes

    @cached_property
    def out(self) -> Sizes:
        """Size of the output: floor((size + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1."""
        every = zip(self.size, self.kernel, self.stride, self.pad, self.dilation, strict=True)
        return tuple((n + 2 * p - (d * (k - 1) + 1)) // s + 1 for n, k, s, p, d in every)

    @cached_property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @cached_property
    def is_pointwise(self) -> bool:
        """Does each output position meet one input position, the same?"""
        return self.taps == 1 and set(self.stride) <= {1} and set(self.pad) <= {0}

    @cached_property
    def table(self) -> np.ndarray:
        """Rows size, kernel, stride, pad, dilation, out for compiled code; at least one axis."""
        rows = (self.size, self.kernel, self.stride, self.pad, self.dilation, self.out)
        none = (1, 1, 1, 0, 1, 1)
        return np.array([row or (one,) for row, one in zip(rows, none, strict=True)], np.int64)


def points(count: int) -> Geometry:
    """``count`` positions, each meeting itself."""
    return Geometry((count,), (1,), (1,), (0,), (1,))


def im2col(x: np.ndarray, c0: int, geometry: Geometry, first: int, col: np.ndarray) -> None:
    """Fill col (see the module) for output positions [first, first + T)."""
    _im2col(x.reshape(-1), x.shape[1], c0, geometry.table, first, col)


def col2im(col: np.ndarray, first: int, geometry: Geometry, x: np.ndarray, c0: int) -> None:
    """Add each number of col to the one of x that ``im2col`` takes it from; padding swallows its share."""
    _col2im(col, first, geometry.table, geometry.taps, x.reshape(-1), x.shape[1], c0)


def forward(
    x: np.ndarray,
    c0: int,
    w: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    k0: int,
    geometry: Geometry,
    device: Device,
    clip: bool = False,
) -> None:
    """Write channels [k0, k0 + K) of y; bias (K_all,) or None; ``clip`` applies a ReLU."""
    if bias is None:
        bias = np.zeros(y.shape[1], y.dtype)
    for first, columns, pixels in _tiles(w, y, geometry, device):
        im2col(x, c0, geometry, first, columns)
        multiply(device, w, columns, pixels)
        _spread(pixels, y.reshape(*y.shape[:2], -1), k0, first, bias, clip)


def data_gradient(
    dy: np.ndarray, k0: int, w: np.ndarray, dx: np.ndarray, c0: int, geometry: Geometry, device: Device
) -> None:
    """Overwrite channels [c0, c0 + C) of dx with w^T dy, folded by ``col2im``."""
    dx[:, c0 : c0 + w.shape[1] // geometry.taps] = 0
    dy = dy.reshape(*dy.shape[:2], -1)
    for first, columns, pixels in _tiles(w, dy, geometry, device):
        im2col(dy, k0, points(dy.shape[2]), first, pixels)
        multiply(device, w.T, pixels, columns)
        col2im(columns, first, geometry, dx, c0)


def weight_gradient(
    x: np.ndarray, c0: int, dy: np.ndarray, k0: int, dw: np.ndarray, geometry: Geometry, device: Device
) -> None:
    """Add dy col^T to dw (K, C * taps)."""
    dy = dy.reshape(*dy.shape[:2], -1)
    for first, columns, pixels in _tiles(dw, dy, geometry, device):
        im2col(x, c0, geometry, first, columns)
        im2col(dy, k0, points(dy.shape[2]), first, pixels)
        multiply(device, pixels, columns.T, dw, add=True)


def _tiles(w: np.ndarray, y: np.ndarray, geometry: Geometry, device: Device) -> Any:
    """(first position, columns (C * taps, T), pixels (K, T)) for each tile; the arrays are scratch."""
    kernels, rows = w.shape
    total = y.shape[0] * math.prod(y.shape[2:])
    width = min(total, max(64, TILE_BYTES // (w.itemsize * max(kernels, rows))))
    for first in range(0, total, width) if total else ():
        count = min(width, total - first)
        columns = device.workspace("im2col_columns", (rows, count), w.dtype)
        yield first, columns, device.workspace("im2col_pixels", (kernels, count), w.dtype)


@njit(cache=True)
def _tap(table: np.ndarray, tap: int) -> np.ndarray:
    """Input position minus output position times stride, for each axis, of tap number ``tap``."""
    shift = np.empty(table.shape[1], np.int64)
    for axis in range(table.shape[1] - 1, -1, -1):
        shift[axis] = tap % table[1, axis] * table[4, axis] - table[3, axis]
        tap //= table[1, axis]
    return shift


@njit(cache=True)
def _line(table: np.ndarray, shift: np.ndarray, position: int) -> tuple[int, int, int, int, int]:
    """(offset, j, low, high) for the output positions from ``position`` (in one image) to the end of their line.

    Position number i of them, for low <= i < high, meets x[offset + j + i * stride] of a channel.
    """
    last = table.shape[1] - 1
    length = table[5, last] - position % table[5, last]
    start = position % table[5, last] * table[2, last] + shift[last]
    position //= table[5, last]
    offset, step = 0, table[0, last]
    for axis in range(last - 1, -1, -1):
        at = position % table[5, axis] * table[2, axis] + shift[axis]
        position //= table[5, axis]
        if at < 0 or at >= table[0, axis]:
            return 0, 0, length, length, length
        offset += at * step
        step *= table[0, axis]
    stride = table[2, last]
    low = min(length, max(0, (-start + stride - 1) // stride))
    high = max(low, min(length, (table[0, last] - start + stride - 1) // stride))
    return offset, start, low, high, length


@njit(cache=True, parallel=True)
def _im2col(x: np.ndarray, c_all: int, c0: int, table: np.ndarray, first: int, col: np.ndarray) -> None:
    taps, plane, positions = np.prod(table[1]), np.prod(table[0]), np.prod(table[5])
    stride = table[2, -1]
    for row in prange(col.shape[0]):
        shift = _tap(table, row % taps)
        t = 0
        while t < col.shape[1]:
            n = (first + t) // positions
            offset, start, low, high, length = _line(table, shift, first + t - n * positions)
            length = min(length, col.shape[1] - t)
            low, high = min(low, length), min(high, length)
            source = (n * c_all + c0 + row // taps) * plane + offset + start
            for i in range(low):
                col[row, np.uintp(t + i)] = 0
            if stride == 1:
                for i in range(low, high):
                    col[row, np.uintp(t + i)] = x[np.uintp(source + i)]
            else:
                for i in range(low, high):
                    col[row, np.uintp(t + i)] = x[np.uintp(source + i * stride)]
            for i in range(high, length):
                col[row, np.uintp(t + i)] = 0
            t += length


@njit(cache=True, parallel=True)
def _col2im(col: np.ndarray, first: int, table: np.ndarray, taps: int, x: np.ndarray, c_all: int, c0: int) -> None:
    plane, positions = np.prod(table[0]), np.prod(table[5])
    stride = table[2, -1]
    for c in prange(col.shape[0] // taps):  # a channel belongs to one thread: the order of its sums is fixed
        for tap in range(taps):
            row = c * taps + tap
            shift = _tap(table, tap)
            t = 0
            while t < col.shape[1]:
                n = (first + t) // positions
                offset, start, low, high, length = _line(table, shift, first + t - n * positions)
                length = min(length, col.shape[1] - t)
                target = (n * c_all + c0 + c) * plane + offset + start
                for i in range(min(low, length), min(high, length)):
                    x[np.uintp(target + i * stride)] += col[row, np.uintp(t + i)]
                t += length


@njit(cache=True, parallel=True)
def _spread(tile: np.ndarray, y: np.ndarray, k0: int, first: int, bias: np.ndarray, clip: bool) -> None:
    """y[n, k0 + k, p] = tile[k, t] + bias, clipped at 0 if ``clip``, where n * P + p = first + t."""
    positions = y.shape[2]
    for k in prange(tile.shape[0]):
        t = 0
        while t < tile.shape[1]:
            n = (first + t) // positions
            p = first + t - n * positions
            length = min(positions - p, tile.shape[1] - t)
            for i in range(length):
                value = tile[k, np.uintp(t + i)] + bias[k0 + k]
                y[n, k0 + k, np.uintp(p + i)] = 0 if clip and value < 0 else value
            t += length


def read_sizes(p: Any, axes: int, check: Any) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    """(kernel, stride, pad, dilation) of a ConvolutionParameter, one number for each of ``axes`` axes.

    ``check(ok, message)`` raises the layer's error: a size missing, 0, given twice, or too often.
    """
    kernel = _sizes(p, "kernel_size", "kernel", axes, check)
    check(len(kernel) == axes, "needs kernel_size, or kernel_h and kernel_w")
    stride = _sizes(p, "stride", "stride", axes, check) or (1,) * axes
    pad = _sizes(p, "pad", "pad", axes, check) or (0,) * axes
    dilation = _sizes(p, "dilation", "", axes, check) or (1,) * axes
    for name, sizes in ("kernel_size", kernel), ("stride", stride), ("dilation", dilation):
        check(all(s > 0 for s in sizes), f"{name} must be > 0, got {' x '.join(map(str, sizes))}")
    return kernel, stride, pad, dilation


def _sizes(p: Any, field: str, split: str, axes: int, check: Any) -> Sizes:
    """The repeated ``field``, or ``split``_h and _w; () if neither is there."""
    given = tuple(getattr(p, field))
    if split and (p.HasField(f"{split}_h") or p.HasField(f"{split}_w")):
        check(axes == 2, f"{split}_h and {split}_w are for 2 spatial axes; the bottom has {axes}: give {field}")
        check(not given, f"give {field}, or {split}_h and {split}_w, not both")
        return getattr(p, f"{split}_h"), getattr(p, f"{split}_w")
    once_or_each = f"give {field} once, or for each of the {axes} spatial axes; it is there {len(given)} times"
    check(len(given) in (0, 1, axes), once_or_each)
    return given * axes if len(given) == 1 else given
