"""The gradient to the data of a convolution in two dimensions, on the CPU: a deconvolution's forward.

Every pixel of dy gives each tap a product, and the products are added up where the taps lie (col2im):

    m (C * taps, pixels) = w^T (C * taps, K) dy (K, pixels)     dx[h, w] = sum of the m whose tap lies there

of which only a cache-sized block exists at a time. No zeros are multiplied: neither those between the pixels of a
strided convolution, nor those around dy that a convolution with the kernels turned round would need.

    dy  (N, K_all, OH, OW)  of which channels [k0, k0 + K) are read
    dx  (N, C_all, H, W)    of which channels [c0, c0 + C) are written
    w   (K, C, kernel height, kernel width)

A task is a band of the rows of some channels of one image of dx; rows of dy that touch two bands are multiplied for
both. The rows of dy are added in order, and in each the taps in order, so no sum depends on how the work is divided.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from caffe_lite.blocks import ceil_divide, round_up, scratch_array
from caffe_lite.device import Device
from caffe_lite.im2col import Geometry
from caffe_lite.simd import LANES, PANEL, ROWS, gemm_edge, gemm_tile, keep, load, store

BLOCK_PIXELS = 256  # of dy, multiplied at a time: whole rows, or such a part of one
BLOCK_ROWS = 256  # of m, at most: (channel, tap) pairs
BLOCK_KERNELS = 256  # a sum is made of partial sums of so many kernels: faster, and rounds less


def data_gradient(
    dy: np.ndarray, k0: int, w: np.ndarray, dx: np.ndarray, c0: int, geometry: Geometry, device: Device
) -> None:
    """Overwrite channels [c0, c0 + C) of dx."""
    kernels, channels = w.shape[:2]
    images, threads, taps = len(dx), get_num_threads(), w.shape[2] * w.shape[3]
    chunk = max(1, min(channels, BLOCK_ROWS // taps, ceil_divide(channels, ceil_divide(threads, images))))
    chunks = ceil_divide(channels, chunk)
    tall, wide = (d * (n - 1) + 1 for d, n in zip(geometry.dilation, geometry.kernel, strict=True))
    bands = max(1, min(ceil_divide(threads, images * chunks), dx.shape[2] // (4 * tall)))
    band = ceil_divide(dx.shape[2], bands)
    rows = round_up(chunk * taps, ROWS)
    packed = scratch_array(device, "direct_weights", chunks * rows * kernels, w.dtype)
    packed = packed.reshape(chunks, -1, kernels, ROWS)
    _pack(w.reshape(kernels, -1), chunk * taps, packed)
    line = geometry.stride[1] * (dy.shape[3] - 1) + wide
    sizes = BLOCK_PIXELS * kernels, rows * BLOCK_PIXELS, chunk * (band + 2 * tall) * line + LANES
    b_size, m_size, sums_size = (round_up(size, LANES) for size in sizes)
    scratch = scratch_array(device, "direct_tiles", threads * (b_size + m_size + sums_size), w.dtype)
    scratch = scratch.reshape(threads, -1)
    table = np.array((geometry.kernel, geometry.stride, geometry.pad, geometry.dilation), np.int64)
    _data_gradient(dy, k0, packed, dx, c0, channels, table, (chunk, bands, band, line), scratch, b_size, m_size)


@njit(cache=True, parallel=True)
def _pack(w: np.ndarray, rows: int, packed: np.ndarray) -> None:
    """packed[chunk][panel of ROWS rows][kernel][row in panel] = w[kernel, row], ``rows`` of them in a chunk."""
    kernels, total = w.shape
    chunks, panels = packed.shape[:2]
    for task in prange(chunks * panels):
        chunk, panel = task // panels, task % panels
        first = chunk * rows + panel * ROWS
        last = min(total, (chunk + 1) * rows)
        for k in range(kernels):
            for i in range(ROWS):
                packed[chunk, panel, k, i] = w[k, first + i] if first + i < last else 0


@njit(cache=True, parallel=True)
def _data_gradient(
    dy: np.ndarray, k0: int, packed: np.ndarray, dx: np.ndarray, c0: int, channels: int, table: np.ndarray,
    plan: tuple[int, int, int, int], scratch: np.ndarray, b_size: int, m_size: int,
) -> None:  # fmt: skip
    """``plan``: channels in a chunk, bands of an image, rows of a band, columns that the sums of a row span."""
    chunk, bands, band, line = plan
    kernel, stride, pad, dilation = table[0], table[1], table[2], table[3]
    chunks, _, kernels, _ = packed.shape
    height, reach = dx.shape[2], dilation[0] * (kernel[0] - 1)
    threads, tasks = scratch.shape[0], dx.shape[0] * chunks * bands
    for thread in prange(threads):
        b, m = scratch[thread, :b_size], scratch[thread, b_size : b_size + m_size]
        sums = scratch[thread, b_size + m_size :]
        for task in range(tasks * thread // threads, tasks * (thread + 1) // threads):
            n, part = task // (chunks * bands), task // bands % chunks
            count = min(chunk, channels - part * chunk)
            top = task % bands * band
            bottom = min(top + band, height)
            first = max(0, (top + pad[0] - reach + stride[0] - 1) // stride[0])  # the rows of dy that reach the band
            last = min(dy.shape[2], (bottom - 1 + pad[0]) // stride[0] + 1)
            tall = max(0, (last - 1 - first) * stride[0] + reach + 1)  # rows of sums
            sums[: count * tall * line] = 0
            source = (n * dy.shape[1] + k0) * dy.shape[2]
            _add_rows(dy, source, first, last, packed, part, count, table, b, m, sums, tall, line)
            for c in range(count):
                for h in range(top, bottom):
                    at = h + pad[0] - first * stride[0]
                    row = dx[n, c0 + part * chunk + c, h]
                    if 0 <= at < tall:
                        _crop(sums, (c * tall + at) * line, line, pad[1], row)
                    else:
                        row[:] = 0


@njit(cache=True)
def _add_rows(
    dy: np.ndarray, source: int, first: int, last: int, packed: np.ndarray, part: int, count: int, table: np.ndarray,
    b: np.ndarray, m: np.ndarray, sums: np.ndarray, tall: int, line: int,
) -> None:  # fmt: skip
    """Rows [first, last) of dy to the sums of ``count`` channels; ``source``: the image's first channel, in rows."""
    panels, kernels = packed.shape[1:3]
    out_h, out_w = dy.shape[2:]
    yf, wf = dy.reshape(-1), packed.reshape(-1)
    used = (count * table[0, 0] * table[0, 1] + ROWS - 1) // ROWS
    rows = max(1, BLOCK_PIXELS // out_w)
    for row in range(first, last, rows):
        for column in range(0, out_w, BLOCK_PIXELS):
            piece = min(BLOCK_PIXELS, out_w - column)
            length = piece * min(rows, last - row)
            _lay_out(yf, (source + row) * out_w + column, out_h * out_w, kernels, length, b)
            for k in range(0, kernels, BLOCK_KERNELS):
                depth = min(BLOCK_KERNELS, kernels - k)
                for pixel in range(0, length, PANEL):
                    at = pixel * kernels + k * PANEL
                    for i in range(used):
                        a, to = ((part * panels + i) * kernels + k) * ROWS, i * ROWS * BLOCK_PIXELS + pixel
                        if length - pixel > PANEL - LANES:
                            gemm_tile(wf, a, ROWS, b, at, PANEL, m, to, BLOCK_PIXELS, depth, k > 0)
                        else:
                            gemm_edge(wf, a, ROWS, b, at, PANEL, m, to, BLOCK_PIXELS, depth, k > 0)
            to = (row - first) * table[1, 0] * line + column * table[1, 1]
            _fold(m, length, piece, count, table, sums, to, tall, line)


@njit(cache=True)
def _lay_out(dy: np.ndarray, source: int, plane: int, kernels: int, length: int, b: np.ndarray) -> None:
    """b[panel][kernel][pixel in panel] of ``length`` pixels of dy, zeros behind them."""
    for pixel in range(0, length, LANES):
        to = pixel // PANEL * kernels * PANEL + pixel % PANEL
        left = length - pixel
        for k in range(kernels):
            at = source + k * plane + pixel
            if left >= LANES:
                store(b, to + k * PANEL, load(dy, at))
            else:
                for i in range(LANES):
                    b[np.uintp(to + k * PANEL + i)] = dy[np.uintp(at + i)] if i < left else 0


@njit(cache=True)
def _fold(
    m: np.ndarray, length: int, piece: int, channels: int, table: np.ndarray, sums: np.ndarray, first: int, tall: int,
    line: int,
) -> None:  # fmt: skip
    """Add the products of ``length`` pixels, in rows of ``piece``, to the sums of each channel from ``first`` on."""
    kernel, stride, dilation = table[0], table[1], table[3]
    taps = kernel[0] * kernel[1]
    for c in range(channels):
        for row in range(length // piece):
            for tap in range(taps):
                i, j = tap // kernel[1] * dilation[0], tap % kernel[1] * dilation[1]
                to = first + (c * tall + row * stride[0] + i) * line + j
                source = (c * taps + tap) * BLOCK_PIXELS + row * piece
                if stride[1] == 1:
                    for p in range(0, piece, LANES):
                        product = load(m, source + p)
                        if p + LANES > piece:
                            product = keep(product, 0, piece - p)
                        store(sums, to + p, load(sums, to + p) + product)
                else:
                    for p in range(piece):
                        sums[np.uintp(to + p * stride[1])] += m[np.uintp(source + p)]


@njit(cache=True)
def _crop(sums: np.ndarray, at: int, line: int, pad: int, row: np.ndarray) -> None:
    """A row of dx from its sums, which begin ``pad`` columns before it; zeros beyond them."""
    low, high = min(row.size, max(0, -pad)), min(row.size, max(0, line - pad))
    row[:low] = 0
    row[high:] = 0
    for w in range(low, high):
        row[w] = sums[np.uintp(at + w + pad)]
