"""The gradient to the weights of a 3 x 3 convolution, by Winograd F(4x4, 3x3) on the CPU.

With the matrices of ``caffe_lite.winograd`` and the gradient dy of the 4 x 4 outputs of a tile:

    dw = G^T [ sum over tiles (A dy A^T) * (B^T d B) ] G             (* number by number)

The sum over tiles is for each of the 36 frequencies a matrix product kernels x tiles x channels.
Here the lanes of a Vector are channels (16 at a time), so each strip of pixels is transposed first.
Tiles are taken in stretches: one prange transforms a stretch, the next multiplies it, each thread
its own frequencies and kernels. No sum is divided among threads: the result does not depend on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange

from caffe_lite.blocks import ceil_divide, round_up, scratch_array
from caffe_lite.device import Device
from caffe_lite.im2col import Sizes
from caffe_lite.simd import LANES, PANEL, ROWS, gemm_edge, gemm_tile, load, store, transpose_tile
from caffe_lite.winograd import (
    A2,
    A3,
    B2,
    B3,
    FREQUENCIES,
    G0,
    GA,
    GB,
    A,
    B,
    fill_rows,
    patch_1d,
    patch_rows,
    place,
)

KERNEL_PANEL = 48  # a multiple of LANES and of every ROWS
STRIP = 16  # tiles transposed at a time
STRETCH_BYTES = 24 << 20  # of transformed data kept for one stretch of tiles
BLOCK_TILES = 256  # a sum is made of partial sums of so many tiles: faster, and rounds less


def weight_gradient(
    x: np.ndarray, c0: int, dy: np.ndarray, k0: int, kernels: int, dw: np.ndarray, pad: Sizes, device: Device
) -> None:
    """Add to dw[k0 : k0 + kernels] (K_all, C, 3, 3) the gradient, from channels c0 on of x and k0 on of dy."""
    channels = dw.shape[1]
    tiles = (ceil_divide(dy.shape[2], 4), ceil_divide(dy.shape[3], 4))
    total = dy.shape[0] * tiles[0] * tiles[1]
    v_width, m_width = round_up(channels, PANEL), round_up(kernels, KERNEL_PANEL)
    stretch = max(64, min(2048, STRETCH_BYTES // (FREQUENCIES * (v_width + m_width) * x.itemsize)))
    stretch = ceil_divide(total, ceil_divide(total, stretch))
    v = scratch_array(device, "winograd_tiles", FREQUENCIES * stretch * (v_width + m_width), x.dtype)
    v, m = np.split(v, [FREQUENCIES * stretch * v_width])
    u = scratch_array(device, "winograd_weights", FREQUENCIES * round_up(kernels, ROWS) * v_width, x.dtype)
    parts = ceil_divide(2 * get_num_threads(), FREQUENCIES)
    _weight_gradient(x, c0, channels, dy, k0, kernels, pad, tiles, stretch, parts, v, m, u, dw)


@njit(cache=True, parallel=True)
def _weight_gradient(
    x: np.ndarray, c0: int, channels: int, dy: np.ndarray, k0: int, kernels: int, pad: Sizes, tiles: Sizes,
    stretch: int, parts: int, v: np.ndarray, m: np.ndarray, u: np.ndarray, dw: np.ndarray,
) -> None:  # fmt: skip
    xf, yf, wf = x.reshape(-1), dy.reshape(-1), dw.reshape(-1)
    x_size, y_size = (x.shape[2], x.shape[3]), (dy.shape[2], dy.shape[3])
    c_all, k_all = x.shape[1], dy.shape[1]
    c_groups, k_groups = (channels + LANES - 1) // LANES, (kernels + LANES - 1) // LANES
    k_panels, v_panels = (kernels + ROWS - 1) // ROWS, (channels + PANEL - 1) // PANEL
    u_row = v_panels * PANEL
    total = dy.shape[0] * tiles[0] * tiles[1]
    chunk = 4 * STRIP
    for first in range(0, total, stretch):
        last = min(first + stretch, total)
        chunks = (last - first + chunk - 1) // chunk
        for task in prange((c_groups + k_groups) * chunks):
            start = first + task % chunks * chunk
            stop = min(start + chunk, last)
            group = task // chunks
            if group < c_groups:
                _patches(xf, c_all, c0, channels, group, x_size, pad, tiles, first, start, stop, stretch, v)
            else:
                _gradients(yf, k_all, k0, kernels, group - c_groups, y_size, tiles, first, start, stop, stretch, m)
        for task in prange(FREQUENCIES * parts):
            f, part = task // parts, task % parts
            for column in range(v_panels):
                b = (f * v_panels + column) * stretch * PANEL
                half = (column + 1) * PANEL - channels >= LANES  # the last Vector of the panel is empty
                for tile in range(0, last - first, BLOCK_TILES):
                    count = min(BLOCK_TILES, last - first - tile)
                    add = first > 0 or tile > 0
                    for panel in range(k_panels * part // parts, k_panels * (part + 1) // parts):
                        a = _kernel_at(f, panel * ROWS, kernels, stretch) + tile * KERNEL_PANEL
                        to = (f * k_panels + panel) * ROWS * u_row + column * PANEL
                        if half and PANEL > LANES:
                            gemm_edge(m, a, KERNEL_PANEL, v, b + tile * PANEL, PANEL, u, to, u_row, count, add)
                        else:
                            gemm_tile(m, a, KERNEL_PANEL, v, b + tile * PANEL, PANEL, u, to, u_row, count, add)
    for k in prange(kernels):
        columns, kernel = np.empty(18 * LANES, x.dtype), np.empty(9 * LANES, x.dtype)
        for c in range(0, channels, LANES):
            step = k_panels * ROWS * u_row
            for j in range(6):
                _weights_1d(u, j * step + k * u_row + c, 6 * step, columns, j * LANES, 6 * LANES)
            for i in range(3):
                _weights_1d(columns, 6 * i * LANES, LANES, kernel, 3 * i * LANES, LANES)
            for lane in range(min(LANES, channels - c)):
                to = ((k0 + k) * channels + c + lane) * 9
                for e in range(9):
                    wf[to + e] += kernel[e * LANES + lane]


@njit(cache=True)
def _kernel_at(f: int, k: int, kernels: int, stretch: int) -> int:
    """Where kernel k of frequency f starts: m[frequency][panel of kernels][tile][kernel in panel]."""
    panels = (kernels + KERNEL_PANEL - 1) // KERNEL_PANEL
    return (f * panels + k // KERNEL_PANEL) * stretch * KERNEL_PANEL + k % KERNEL_PANEL


@njit(cache=True)
def _patches(
    x: np.ndarray, c_all: int, c0: int, channels: int, group: int, size: Sizes, pad: Sizes, tiles: Sizes, first: int,
    start: int, stop: int, stretch: int, v: np.ndarray,
) -> None:  # fmt: skip
    """B^T d B of LANES channels to v[frequency][panel of channels][tile][channel in panel]."""
    row_step = 4 * STRIP + 2 * LANES
    rows, pixels = np.empty(6 * row_step * LANES, x.dtype), np.empty(6 * row_step * LANES, x.dtype)
    v_panels = (channels + PANEL - 1) // PANEL
    step = v_panels * stretch * PANEL
    tile = start
    while tile < stop:
        n, ty, tx = place(tile, tiles)
        run = min(STRIP, tiles[1] - tx, stop - tile)
        length = 4 * run + 2
        for lane in range(LANES):
            channel = group * LANES + lane
            buf = rows[lane * 6 * row_step : (lane + 1) * 6 * row_step]
            if channel < channels:
                plane = (n * c_all + c0 + channel) * size[0] * size[1]
                fill_rows(x, plane, size, 4 * ty - pad[0], 4 * tx - pad[1], 6, length, buf, row_step)
                for i in range(0, length, LANES):
                    patch_rows(buf, i, row_step)
            else:
                buf[:] = 0
        _transpose(rows, pixels, length, row_step)
        for t in range(run):
            at = tile + t - first
            to = (group * LANES // PANEL * stretch + at) * PANEL + group * LANES % PANEL
            for r in range(6):
                d = (r * row_step + 4 * t) * LANES
                d0, d1, d2 = load(pixels, d), load(pixels, d + LANES), load(pixels, d + 2 * LANES)
                d3, d4, d5 = load(pixels, d + 3 * LANES), load(pixels, d + 4 * LANES), load(pixels, d + 5 * LANES)
                patch_1d(d0, d1, d2, d3, d4, d5, v, to + 6 * r * step, step)
        tile += run


@njit(cache=True)
def _gradients(
    dy: np.ndarray, k_all: int, k0: int, kernels: int, group: int, size: Sizes, tiles: Sizes, first: int, start: int,
    stop: int, stretch: int, m: np.ndarray,
) -> None:  # fmt: skip
    """A dy A^T of LANES kernels to m (see ``_kernel_at``)."""
    row_step = 4 * STRIP + 2 * LANES
    rows, pixels = np.empty(6 * row_step * LANES, dy.dtype), np.empty(6 * row_step * LANES, dy.dtype)
    step = (kernels + KERNEL_PANEL - 1) // KERNEL_PANEL * stretch * KERNEL_PANEL
    tile = start
    while tile < stop:
        n, ty, tx = place(tile, tiles)
        run = min(STRIP, tiles[1] - tx, stop - tile)
        for lane in range(LANES):
            kernel = group * LANES + lane
            buf = rows[lane * 6 * row_step : (lane + 1) * 6 * row_step]
            if kernel < kernels:
                plane = (n * k_all + k0 + kernel) * size[0] * size[1]
                fill_rows(dy, plane, size, 4 * ty, 4 * tx, 4, 4 * run, buf, row_step)
                for i in range(0, 4 * run, LANES):
                    y0, y1 = load(buf, i), load(buf, i + row_step)
                    y2, y3 = load(buf, i + 2 * row_step), load(buf, i + 3 * row_step)
                    _gradient_1d(y0, y1, y2, y3, buf, i, row_step)
            else:
                buf[:] = 0
        _transpose(rows, pixels, 4 * run, row_step)
        for t in range(run):
            to = _kernel_at(0, group * LANES, kernels, stretch) + (tile + t - first) * KERNEL_PANEL
            for r in range(6):
                y = (r * row_step + 4 * t) * LANES
                y0, y1 = load(pixels, y), load(pixels, y + LANES)
                y2, y3 = load(pixels, y + 2 * LANES), load(pixels, y + 3 * LANES)
                _gradient_1d(y0, y1, y2, y3, m, to + 6 * r * step, step)
        tile += run


@njit(cache=True)
def _transpose(rows: np.ndarray, pixels: np.ndarray, length: int, row_step: int) -> None:
    """pixels[r, i, lane] = rows[lane, r, i] for six rows r and, at least, i < length."""
    for r in range(6):
        for i in range(0, length, LANES):
            at = r * row_step + i
            transpose_tile(rows, at, 6 * row_step, pixels, at * LANES, LANES)


@njit(cache=True)
def _gradient_1d(y0: Any, y1: Any, y2: Any, y3: Any, m: np.ndarray, to: int, step: int) -> None:
    """m = A y: six Vectors, stored ``step`` apart."""
    store(m, to, y0)
    even, odd = y0 + A2 * y2, A * y1 + A3 * y3
    store(m, to + step, even + odd)
    store(m, to + 2 * step, even - odd)
    even, odd = y0 + B2 * y2, B * y1 + B3 * y3
    store(m, to + 3 * step, even + odd)
    store(m, to + 4 * step, even - odd)
    store(m, to + 5 * step, y3)


@njit(cache=True)
def _weights_1d(u: np.ndarray, at: int, step: int, w: np.ndarray, to: int, stride: int) -> None:
    """w = G^T u: six Vectors ``step`` apart become three ``stride`` apart."""
    u1, u2, u3, u4 = load(u, at + step), load(u, at + 2 * step), load(u, at + 3 * step), load(u, at + 4 * step)
    p, q, r, s = GA * (u1 + u2), GA * (u1 - u2), GB * (u3 + u4), GB * (u3 - u4)
    store(w, to, G0 * load(u, at) + p + r)
    store(w, to + stride, A * q + B * s)
    store(w, to + 2 * stride, A2 * p + B2 * r + load(u, at + 5 * step))
