"""The gradient to the weights of a convolution with kernels of any size, in two dimensions, on the CPU.

    dw (K, taps) += sum over output pixels of dy (K, pixels) patches^T (pixels, taps)

as in ``caffe_lite.direct``, whose words are used here. Pixels are taken in stretches: one prange lays
out the patches and dy of a stretch with taps and kernels next to each other, the next multiplies,
each thread its own taps and kernels; where these are few, the pixels are divided, too, into as many
segments as the shape of dw asks for. The result does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from caffe_lite.blocks import ceil_divide, round_up, scratch_array
from caffe_lite.device import Device
from caffe_lite.direct import PIECE, cut, patches
from caffe_lite.im2col import Sizes
from caffe_lite.simd import LANES, PANEL, ROWS, gemm_tile, transpose_tile

KERNEL_PANEL = 48  # a multiple of LANES and of every ROWS
PIXELS = 64  # laid out at a time
BLOCK_TAPS = 256
BLOCK_PIXELS = 256  # a sum is made of partial sums of so many pixels: faster, and rounds less
SEGMENTS = 16  # tasks that there are at least: of few tiles of dw, each is summed up in several stretches of pixels
MOST_PIXELS = 16384  # laid out for one stretch of pixels
STRETCH_BYTES = 8 << 20  # of data laid out for one stretch of pixels


def weight_gradient(
    x: np.ndarray, c0: int, dy: np.ndarray, k0: int, dw: np.ndarray,
    kernel: Sizes, stride: Sizes, pad: Sizes, dilation: Sizes, device: Device,
) -> None:  # fmt: skip
    """Add to dw (K, taps) the gradient, from channels c0 on of x and k0 on of dy (N, K_all, OH, OW)."""
    kernels, taps = dw.shape
    total = dy.shape[0] * dy.shape[2] * dy.shape[3]
    width, height = round_up(taps, PANEL), round_up(kernels, KERNEL_PANEL)
    stretch = max(PIXELS, min(MOST_PIXELS, STRETCH_BYTES // ((width + height) * x.itemsize)) // PIXELS * PIXELS)
    stretch = min(stretch, round_up(total, PIXELS))
    laid_out = scratch_array(device, "direct_tiles", stretch * (width + height), x.dtype)
    b, a = np.split(laid_out, [stretch * width])
    panels, columns = ceil_divide(kernels, ROWS), width // PANEL
    segments = max(1, SEGMENTS // (panels * columns))
    sums = scratch_array(device, "direct_weights", segments * panels * ROWS * width, x.dtype)
    sums = sums.reshape(segments, -1, width)
    sums[...] = 0
    parts = min(panels, ceil_divide(2 * get_num_threads(), columns))
    geometry = np.array((kernel, stride, pad, dilation), np.int64)
    _weight_gradient(x, c0, dy, k0, kernels, taps, geometry, stretch, parts, b, a, sums)
    for part in sums:
        dw += part[:kernels, :taps]


@njit(cache=True, parallel=True)
def _weight_gradient(
    x: np.ndarray, c0: int, dy: np.ndarray, k0: int, kernels: int, taps: int, geometry: np.ndarray, stretch: int,
    parts: int, b: np.ndarray, a: np.ndarray, sums: np.ndarray,
) -> None:  # fmt: skip
    xf, yf, sf = x.reshape(-1), dy.reshape(-1), sums.reshape(-1)
    c_all, x_size = x.shape[1], (x.shape[2], x.shape[3])
    positions = dy.shape[2] * dy.shape[3]
    total = dy.shape[0] * positions
    segments, rows, width = sums.shape
    panels, columns = rows // ROWS, width // PANEL
    for first in range(0, total, stretch):
        last = min(first + stretch, total)
        for task in prange((last - first + PIXELS - 1) // PIXELS):
            start = first + task * PIXELS
            stop = min(start + PIXELS, last)
            _lay_out_patches(xf, c_all, c0, x_size, geometry, dy.shape[2:], taps, first, start, stop, stretch, b)
            _lay_out_gradient(yf, dy.shape[1], k0, kernels, positions, first, start, stop, stretch, a)
        blocks = (last - first + BLOCK_PIXELS - 1) // BLOCK_PIXELS
        for task in prange(segments * columns * parts):
            segment, column, part = task // (columns * parts), task // parts % columns, task % parts
            for block in range(blocks * segment // segments, blocks * (segment + 1) // segments):
                pixel = block * BLOCK_PIXELS
                count = min(BLOCK_PIXELS, last - first - pixel)
                source = (column * stretch + pixel) * PANEL
                for panel in range(panels * part // parts, panels * (part + 1) // parts):
                    k = panel * ROWS
                    at = (k // KERNEL_PANEL * stretch + pixel) * KERNEL_PANEL + k % KERNEL_PANEL
                    to = (segment * rows + k) * width + column * PANEL
                    gemm_tile(a, at, KERNEL_PANEL, b, source, PANEL, sf, to, width, count, True)


@njit(cache=True)
def _lay_out_patches(
    x: np.ndarray, c_all: int, c0: int, size: Sizes, geometry: np.ndarray, out: Sizes, taps: int, first: int,
    start: int, stop: int, stretch: int, b: np.ndarray,
) -> None:  # fmt: skip
    """b[panel of taps][pixel of the stretch][tap in panel] of pixels [start, stop), through tiles of patches."""
    pieces = np.empty((PIXELS, PIECE), np.int64)
    channels = taps // (geometry[0, 0] * geometry[0, 1])
    count = cut(start, stop, out, c_all, c0, channels, size, geometry, x.size, pieces)
    rows = np.empty((PIXELS + PANEL - 1) // PANEL * (BLOCK_TAPS * PANEL + LANES), x.dtype)
    for tap in range(0, taps, BLOCK_TAPS):
        depth = min(BLOCK_TAPS, taps - tap)
        patches(x, size, geometry, pieces, count, tap, depth, rows)
        for row in range(0, depth, LANES):
            panel, place = (tap + row) // PANEL, (tap + row) % PANEL
            for pixel in range(0, stop - start, LANES):
                source = pixel // PANEL * (depth * PANEL + LANES) + row * PANEL + pixel % PANEL
                target = (panel * stretch + start - first + pixel) * PANEL + place
                transpose_tile(rows, source, PANEL, b, target, PANEL)


@njit(cache=True)
def _lay_out_gradient(
    dy: np.ndarray, k_all: int, k0: int, kernels: int, positions: int, first: int, start: int, stop: int, stretch: int,
    a: np.ndarray,
) -> None:  # fmt: skip
    """a[panel of kernels][pixel of the stretch][kernel in panel] of pixels [start, stop).

    What is laid out for kernels beyond the last, to fill a panel, is anything: nobody reads their sums.
    """
    rows = np.zeros(LANES * LANES, dy.dtype)
    for pixel in range(start, stop, LANES):
        n, last = pixel // positions, min(pixel + LANES, stop)
        in_one_image = pixel + LANES <= min(stop, (n + 1) * positions)
        for k in range(0, kernels, LANES):
            source = (n * k_all + k0 + k) * positions + pixel - n * positions
            target = (k // KERNEL_PANEL * stretch + pixel - first) * KERNEL_PANEL + k % KERNEL_PANEL
            if in_one_image and source + (LANES - 1) * positions + LANES <= dy.size:
                transpose_tile(dy, source, positions, a, target, KERNEL_PANEL)
                continue
            for lane in range(min(LANES, kernels - k)):
                for at in range(pixel, last):
                    image = at // positions
                    source = (image * k_all + k0 + k + lane) * positions + at - image * positions
                    rows[np.uintp(lane * LANES + at - pixel)] = dy[np.uintp(source)]
            transpose_tile(rows, 0, LANES, a, target, KERNEL_PANEL)
