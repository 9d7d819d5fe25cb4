"""The gradient to the weights of a convolution with kernels of any size, in two dimensions, on the CPU.

    dw (K, taps) += sum over output pixels of dy (K, pixels) patches^T (pixels, taps)

as in ``caffe_lite.direct``, whose words are used here. Pixels are taken in stretches: one prange lays
out the patches and dy of a stretch with taps and kernels next to each other, the next multiplies,
each thread its own taps and kernels. No sum is divided among threads: the result does not depend on
them.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from caffe_lite.device import Device
from caffe_lite.direct import Pair, cut, patches
from caffe_lite.simd import LANES, PANEL, ROWS, gemm_tile, transpose_tile
from caffe_lite.winograd import _ceil, _round_up, _scratch

KERNEL_PANEL = 48  # a multiple of LANES and of every ROWS
PIXELS = 64  # laid out at a time
BLOCK_TAPS = 256
BLOCK_PIXELS = 256  # a sum is made of partial sums of so many pixels: faster, and rounds less
STRETCH_BYTES = 8 << 20  # of data laid out for one stretch of pixels


def weight_gradient(
    x: np.ndarray, c0: int, dy: np.ndarray, k0: int, dw: np.ndarray,
    kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, device: Device,
) -> None:  # fmt: skip
    """Add to dw (K, taps) the gradient, from channels c0 on of x and k0 on of dy (N, K_all, OH, OW)."""
    kernels, taps = dw.shape
    total = dy.shape[0] * dy.shape[2] * dy.shape[3]
    width, height = _round_up(taps, PANEL), _round_up(kernels, KERNEL_PANEL)
    stretch = max(PIXELS, min(4096, STRETCH_BYTES // ((width + height) * x.itemsize)) // PIXELS * PIXELS)
    stretch = min(stretch, _round_up(total, PIXELS))
    laid_out = _scratch(device, "direct_tiles", stretch * (width + height), x.dtype)
    b, a = np.split(laid_out, [stretch * width])
    sums = _scratch(device, "direct_weights", _round_up(kernels, ROWS) * width, x.dtype).reshape(-1, width)
    parts = min(_ceil(kernels, ROWS), _ceil(2 * get_num_threads(), width // PANEL))
    geometry = np.array((kernel, stride, pad, dilation), np.int64)
    _weight_gradient(x, c0, dy, k0, kernels, taps, geometry, stretch, parts, b, a, sums)
    dw += sums[:kernels, :taps]


@njit(cache=True, parallel=True)
def _weight_gradient(x, c0, dy, k0, kernels, taps, geometry, stretch, parts, b, a, sums):
    xf, yf, sf = x.reshape(-1), dy.reshape(-1), sums.reshape(-1)
    c_all, x_size = x.shape[1], (x.shape[2], x.shape[3])
    positions = dy.shape[2] * dy.shape[3]
    total = dy.shape[0] * positions
    panels, width = (kernels + ROWS - 1) // ROWS, sums.shape[1]
    for first in range(0, total, stretch):
        last = min(first + stretch, total)
        for task in prange((last - first + PIXELS - 1) // PIXELS):
            start = first + task * PIXELS
            stop = min(start + PIXELS, last)
            _lay_out_patches(
                xf, c_all, c0, x_size, geometry, dy.shape[2], dy.shape[3], taps, first, start, stop, stretch, b
            )
            _lay_out_gradient(yf, dy.shape[1], k0, kernels, positions, first, start, stop, stretch, a)
        for task in prange(width // PANEL * parts):
            column, part = task // parts, task % parts
            for pixel in range(0, last - first, BLOCK_PIXELS):
                count = min(BLOCK_PIXELS, last - first - pixel)
                source = (column * stretch + pixel) * PANEL
                for panel in range(panels * part // parts, panels * (part + 1) // parts):
                    k = panel * ROWS
                    at = (k // KERNEL_PANEL * stretch + pixel) * KERNEL_PANEL + k % KERNEL_PANEL
                    to = k * width + column * PANEL
                    add = first > 0 or pixel > 0
                    gemm_tile(a, at, KERNEL_PANEL, b, source, PANEL, sf, to, width, count, add)


@njit(cache=True)
def _lay_out_patches(x, c_all, c0, size, geometry, height, width, taps, first, start, stop, stretch, b):
    """b[panel of taps][pixel of the stretch][tap in panel] of pixels [start, stop), through tiles of patches."""
    pieces = np.empty((PIXELS, 5), np.int64)
    count = cut(start, stop, height, width, pieces)
    rows = np.empty((PIXELS + PANEL - 1) // PANEL * (BLOCK_TAPS * PANEL + LANES), x.dtype)
    for tap in range(0, taps, BLOCK_TAPS):
        depth = min(BLOCK_TAPS, taps - tap)
        patches(x, c_all, c0, size, geometry, pieces, count, tap, depth, rows)
        for row in range(0, depth, LANES):
            panel, place = (tap + row) // PANEL, (tap + row) % PANEL
            for pixel in range(0, stop - start, LANES):
                source = pixel // PANEL * (depth * PANEL + LANES) + row * PANEL + pixel % PANEL
                target = (panel * stretch + start - first + pixel) * PANEL + place
                transpose_tile(rows, source, PANEL, b, target, PANEL)


@njit(cache=True)
def _lay_out_gradient(dy, k_all, k0, kernels, positions, first, start, stop, stretch, a):
    """a[panel of kernels][pixel of the stretch][kernel in panel] of pixels [start, stop)."""
    rows = np.zeros(LANES * PIXELS, dy.dtype)
    for k in range(0, kernels, LANES):
        for lane in range(LANES):
            pixel = start
            while pixel < stop:
                n = pixel // positions
                length = min(stop, (n + 1) * positions) - pixel
                to = lane * PIXELS + pixel - start
                source = (n * k_all + k0 + k + lane) * positions + pixel - n * positions
                for i in range(length):
                    rows[np.uintp(to + i)] = dy[np.uintp(source + i)] if k + lane < kernels else 0
                pixel += length
        for pixel in range(0, stop - start, LANES):
            target = (k // KERNEL_PANEL * stretch + start - first + pixel) * KERNEL_PANEL + k % KERNEL_PANEL
            transpose_tile(rows, pixel, PIXELS, a, target, KERNEL_PANEL)
