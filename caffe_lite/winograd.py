"""Winograd convolution F(4x4, 3x3) on the CPU: 3 x 3, stride 1, dilation 1, with 36 products for 16 outputs.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2015), section 4.3. The output is
cut into tiles of 4 x 4 pixels; d is the 6 x 6 patch of input that a tile sees, g a 3 x 3 kernel:

    out = A^T [ sum over channels (G g G^T) * (B^T d B) ] A          (* number by number)

so that for each of the 36 positions ("frequencies") the sum is a matrix product over channels.
One thread transforms a block of tiles, multiplies and transforms back while the block is in its
cache; bias and ReLU are applied on the way out.

The matrices come from the interpolation points 0, +-a, +-b and infinity. The usual a, b = 1, 2 make
small integers; 3/4, 3/2 make errors a quarter as large, at the same cost.

    x  (N, C_all, H, W)   of which channels [c0, c0 + C) are read
    w  (K_all, C, 3, 3)   of which kernels [k0, k0 + K) are used
    y  (N, K_all, OH, OW) of which channels [k0, k0 + K) are written; OH = H + 2 pad - 2

Tiles are numbered through the batch, row by row: tile = (n * tiles_y + ty) * tiles_x + tx. No sum
depends on how the work is divided, so the results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange

from caffe_lite.blocks import GROUPS, ceil_divide, even_step, round_up, scratch_array
from caffe_lite.device import Device
from caffe_lite.im2col import Sizes
from caffe_lite.simd import (
    LANES,
    PANEL,
    ROWS,
    gemm_edge,
    gemm_tile,
    load,
    load_every_4th,
    relu,
    store,
    store_every_4th,
    zeros,
)

FREQUENCIES = 36
BLOCK_KERNELS = 128
BLOCK_CHANNELS = 128  # a sum is made of partial sums of so many channels: faster, and rounds less

A = 0.75
B = 1.5
A2, B2, A3, B3 = A * A, B * B, A * A * A, B * B * B
AB2, SUM2 = A2 * B2, A2 + B2
G0, GA, GB = 1.0 / AB2, 1.0 / (2.0 * A2 * (A2 - B2)), 1.0 / (2.0 * B2 * (B2 - A2))


def transform_weights(w: np.ndarray, k0: int, kernels: int, device: Device, turned: bool = False) -> np.ndarray:
    """G g G^T of kernels [k0, k0 + kernels), in the layout that ``convolve`` wants.

    ``turned``: for the gradient to x. The kernels are turned by 180 degrees, and map ``kernels``
    channels to C. The array is scratch of ``device``: valid until the next call.
    """
    outputs, inputs = (w.shape[1], kernels) if turned else (kernels, w.shape[1])
    size = FREQUENCIES * -(-outputs // ROWS) * round_up(inputs * ROWS, LANES)
    u = scratch_array(device, "winograd_weights", size, w.dtype)
    _transform_weights(w, u, k0, kernels, turned)
    return u


def convolve(
    x: np.ndarray,
    c0: int,
    channels: int,
    u: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    k0: int,
    kernels: int,
    pad: Sizes,
    device: Device,
    clip: bool = False,
) -> None:
    """Write channels [k0, k0 + kernels) of y (see the module); ``u`` from ``transform_weights``.

    ``pad`` is (rows, columns), negative to crop; bias (K_all,) or None; ``clip`` applies a ReLU.
    """
    tiles = (ceil_divide(y.shape[2], 4), ceil_divide(y.shape[3], 4))
    groups = ceil_divide(y.shape[0] * tiles[0] * tiles[1], LANES)
    threads = get_num_threads()
    step = even_step(groups, threads)
    tasks = ceil_divide(groups, step)
    panels = ceil_divide(kernels, ROWS)
    parts = max(1, min(ceil_divide(threads, tasks), panels * ROWS // 64))  # few tiles: share out the kernels too
    k_block = min(ceil_divide(panels, parts), max(1, BLOCK_KERNELS // ROWS))
    width = ceil_divide(step * LANES, PANEL)
    v_size = FREQUENCIES * width * (channels * PANEL + LANES)
    m_size = FREQUENCIES * width * PANEL * k_block * ROWS
    each = round_up(v_size + m_size, LANES)
    scratch = scratch_array(device, "winograd_tiles", threads * each, x.dtype).reshape(threads, each)
    if bias is None:
        bias = np.zeros(y.shape[1], y.dtype)
    _convolve(
        x, c0, channels, u, bias, y, k0, kernels, pad, tiles, (tasks, step, parts, k_block), scratch, v_size, clip
    )


def data_gradient(
    dy: np.ndarray, k0: int, kernels: int, w: np.ndarray, dx: np.ndarray, c0: int, pad: Sizes, device: Device
) -> None:
    """Overwrite channels [c0, c0 + C) of dx, the gradient to x of the convolution with ``pad``."""
    u = transform_weights(w, k0, kernels, device, turned=True)
    convolve(dy, k0, kernels, u, None, dx, c0, w.shape[1], (2 - pad[0], 2 - pad[1]), device)


# ---- the transforms


@njit(cache=True, parallel=True)
def _transform_weights(w: np.ndarray, u: np.ndarray, k0: int, kernels: int, turned: bool) -> None:
    """u[frequency][panel of ROWS outputs][input][output in panel], each panel filled up to LANES."""
    flat = w.reshape(-1)
    channels = w.shape[1]
    outputs, inputs = (channels, kernels) if turned else (kernels, channels)
    panels = (outputs + ROWS - 1) // ROWS
    size = (inputs * ROWS + LANES - 1) // LANES * LANES
    for panel in prange(panels):
        g = np.empty(9 * LANES, w.dtype)
        column = np.empty(18 * LANES, w.dtype)
        for start in range(0, size, LANES):
            for lane in range(LANES):
                inp = (start + lane) // ROWS
                out = panel * ROWS + (start + lane) % ROWS
                real = inp < inputs and out < outputs
                base = ((k0 + inp) * channels + out if turned else (k0 + out) * channels + inp) * 9
                for e in range(9):
                    at = np.uintp(base + 8 - e if turned else base + e)
                    g[np.uintp(e * LANES + lane)] = flat[at] if real else 0
            for j in range(3):
                _kernel_1d(g, j * LANES, 3 * LANES, column, j * LANES, 3 * LANES)
            for i in range(6):
                target = (6 * i * panels + panel) * size + start
                _kernel_1d(column, 3 * i * LANES, LANES, u, target, panels * size)


@njit(cache=True)
def _kernel_1d(g: np.ndarray, at: int, step: int, u: np.ndarray, to: int, stride: int) -> None:
    """u = G g for LANES kernels: three Vectors ``step`` apart become six ``stride`` apart."""
    g0, g1, g2 = load(g, at), load(g, at + step), load(g, at + 2 * step)
    even, odd = GA * g0 + GA * A2 * g2, GA * A * g1
    store(u, to, G0 * g0)
    store(u, to + stride, even + odd)
    store(u, to + 2 * stride, even - odd)
    even, odd = GB * g0 + GB * B2 * g2, GB * B * g1
    store(u, to + 3 * stride, even + odd)
    store(u, to + 4 * stride, even - odd)
    store(u, to + 5 * stride, g2)


@njit(cache=True)
def fill_rows(
    x: np.ndarray, plane: int, size: Sizes, top: int, left: int, rows: int, length: int, buf: np.ndarray, row_step: int
) -> None:
    """buf[r, :length] = rows [top, top + rows) of the plane from column ``left``; 0 outside of it.

    Writes up to LANES - 1 numbers more, which the caller does not look at.
    """
    height, width = size
    low = min(max(0, -left), length)
    high = max(low, min(length, width - left))
    zero = zeros(buf)
    for r in range(rows):
        at = r * row_step
        inside = 0 <= top + r < height
        source = plane + (top + r) * width + left
        for i in range(0, length, LANES):
            if inside and i >= low and i < high and source + i + LANES <= x.size:
                store(buf, at + i, load(x, source + i))
            else:
                store(buf, at + i, zero)
                if inside:
                    for j in range(max(i, low), min(i + LANES, high)):
                        buf[np.uintp(at + j)] = x[np.uintp(source + j)]
        if inside:
            for j in range(high, length):
                buf[np.uintp(at + j)] = 0


@njit(cache=True)
def patch_1d(d0: Any, d1: Any, d2: Any, d3: Any, d4: Any, d5: Any, v: np.ndarray, to: int, stride: int) -> None:
    """v = B^T d: six Vectors, stored ``stride`` apart."""
    store(v, to, AB2 * d0 - SUM2 * d2 + d4)
    even, odd = d4 - B2 * d2, A * d3 - A * B2 * d1
    store(v, to + stride, even + odd)
    store(v, to + 2 * stride, even - odd)
    even, odd = d4 - A2 * d2, B * d3 - B * A2 * d1
    store(v, to + 3 * stride, even + odd)
    store(v, to + 4 * stride, even - odd)
    store(v, to + 5 * stride, AB2 * d1 - SUM2 * d3 + d5)


@njit(cache=True)
def patch_rows(buf: np.ndarray, at: int, step: int) -> None:
    """B^T d in place, down six rows ``step`` apart, for LANES columns."""
    d0, d1, d2 = load(buf, at), load(buf, at + step), load(buf, at + 2 * step)
    d3, d4, d5 = load(buf, at + 3 * step), load(buf, at + 4 * step), load(buf, at + 5 * step)
    patch_1d(d0, d1, d2, d3, d4, d5, buf, at, step)


@njit(cache=True)
def place(tile: int, tiles: Sizes) -> tuple[int, int, int]:
    """(n, ty, tx) of a tile."""
    row = tile // tiles[1]
    return row // tiles[0], row % tiles[0], tile - row * tiles[1]


@njit(cache=True)
def _transform_input(
    x: np.ndarray, c_all: int, c0: int, channels: int, size: Sizes, pad: Sizes, tiles: Sizes, first: int, last: int,
    buf: np.ndarray, row_step: int, v: np.ndarray, v_frequency: int,
) -> None:  # fmt: skip
    """B^T d B of tiles [first, last) to v[frequency][panel of tiles][channel][tile in panel].

    Whole Vectors are stored: what lies behind the end of a run of tiles spills over what is written
    next, so the order of the loops matters, and each panel ends with LANES spare numbers.
    """
    v_panel = channels * PANEL + LANES
    for c in range(channels):
        tile = first
        while tile < last:
            n, ty, tx = place(tile, tiles)
            run = min(tiles[1] - tx, last - tile)
            length = 4 * run + 2
            plane = (n * c_all + c0 + c) * size[0] * size[1]
            fill_rows(x, plane, size, 4 * ty - pad[0], 4 * tx - pad[1], 6, length, buf, row_step)
            for i in range(0, length, LANES):
                patch_rows(buf, i, row_step)
            done = 0
            while done < run:
                at = tile + done - first
                lane = at % PANEL
                piece = min(run - done, PANEL - lane)
                for i in range(0, piece, LANES):
                    to = at // PANEL * v_panel + c * PANEL + lane + i
                    for r in range(6):
                        source = r * row_step + 4 * (done + i)
                        d0, d1, d2, d3 = load_every_4th(buf, source)
                        d4, d5, _, _ = load_every_4th(buf, source + 4)
                        patch_1d(d0, d1, d2, d3, d4, d5, v, to + 6 * r * v_frequency, v_frequency)
                done += piece
            tile += run


@njit(cache=True)
def _output_1d(m: np.ndarray, at: int, step: int) -> tuple[Any, Any, Any, Any]:
    """A^T m of six Vectors ``step`` apart."""
    m0, m5 = load(m, at), load(m, at + 5 * step)
    m1, m2 = load(m, at + step), load(m, at + 2 * step)
    m3, m4 = load(m, at + 3 * step), load(m, at + 4 * step)
    p, q, r, s = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + p + r, A * q + B * s, A2 * p + B2 * r, A3 * q + B3 * s + m5


@njit(cache=True)
def _transform_output(
    m: np.ndarray, m_frequency: int, m_row: int, y: np.ndarray, k_all: int, k0: int, kernels: int, size: Sizes,
    bias: np.ndarray, clip: bool, tiles: Sizes, first: int, last: int, half: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """A^T m A + bias, clipped at 0 if ``clip``: tiles [first, last) of channels [k0, k0 + kernels) of y."""
    for k in range(kernels):
        b = bias[k0 + k]
        for chunk in range(first, last, LANES):
            for j in range(6):
                at = k * m_row + chunk - first + j * m_frequency
                h0, h1, h2, h3 = _output_1d(m, at, 6 * m_frequency)
                store(half, j * LANES, h0)
                store(half, (6 + j) * LANES, h1)
                store(half, (12 + j) * LANES, h2)
                store(half, (18 + j) * LANES, h3)
            n, ty, tx = place(chunk, tiles)
            to = ((n * k_all + k0 + k) * size[0] + 4 * ty) * size[1] + 4 * tx
            whole = chunk + LANES <= last and 4 * (tx + LANES) <= size[1]  # all in one row of tiles
            for i in range(4):
                y0, y1, y2, y3 = _output_1d(half, 6 * i * LANES, LANES)
                y0, y1, y2, y3 = y0 + b, y1 + b, y2 + b, y3 + b
                if clip:
                    y0, y1, y2, y3 = relu(y0), relu(y1), relu(y2), relu(y3)
                if not whole:
                    store_every_4th(out, 4 * i * LANES, y0, y1, y2, y3)
                elif 4 * ty + i < size[0]:
                    store_every_4th(y, to + i * size[1], y0, y1, y2, y3)
            if not whole:
                _scatter(out, y, k_all, k0 + k, size, tiles, chunk, min(chunk + LANES, last))


@njit(cache=True)
def _scatter(
    out: np.ndarray, y: np.ndarray, k_all: int, k: int, size: Sizes, tiles: Sizes, first: int, last: int
) -> None:
    """Copy tiles [first, last) from out (4, 4 * LANES) to channel k of y, as far as they lie inside."""
    tile = first
    while tile < last:
        n, ty, tx = place(tile, tiles)
        run = min(tiles[1] - tx, last - tile)
        pixels = min(4 * run, size[1] - 4 * tx)
        for i in range(min(4, size[0] - 4 * ty)):
            to = ((n * k_all + k) * size[0] + 4 * ty + i) * size[1] + 4 * tx
            source = 4 * i * LANES + 4 * (tile - first)
            for e in range(pixels):
                y[np.uintp(to + e)] = out[np.uintp(source + e)]
        tile += run


# ---- the convolution


@njit(cache=True, parallel=True)
def _convolve(
    x: np.ndarray, c0: int, channels: int, u: np.ndarray, bias: np.ndarray, y: np.ndarray, k0: int, kernels: int,
    pad: Sizes, tiles: Sizes, plan: tuple[int, int, int, int], scratch: np.ndarray, v_size: int, clip: bool,
) -> None:  # fmt: skip
    """``plan``: tasks (blocks of tiles) of ``step`` groups, each in ``parts`` parts of the kernels."""
    tasks, step, parts, k_block = plan
    c_all, k_all = x.shape[1], y.shape[1]
    x_size, y_size = (x.shape[2], x.shape[3]), (y.shape[2], y.shape[3])
    xf, yf = x.reshape(-1), y.reshape(-1)
    total = y.shape[0] * tiles[0] * tiles[1]
    panels = (kernels + ROWS - 1) // ROWS
    part = (panels + parts - 1) // parts
    width = (step * LANES + PANEL - 1) // PANEL
    v_frequency, m_row = width * (channels * PANEL + LANES), width * PANEL
    m_frequency = k_block * ROWS * m_row
    row_step = (4 * min(tiles[1], step * LANES) + 2 + 6 * LANES) // LANES * LANES
    threads = scratch.shape[0]
    for thread in prange(threads):
        v, m = scratch[thread, :v_size], scratch[thread, v_size:]
        buf = np.zeros(6 * row_step, x.dtype)
        half, out = np.empty(24 * LANES, x.dtype), np.empty(16 * LANES, x.dtype)
        for task in range(tasks * parts * thread // threads, tasks * parts * (thread + 1) // threads):
            first = task // parts * step * LANES
            last = min(first + step * LANES, total)
            _transform_input(xf, c_all, c0, channels, x_size, pad, tiles, first, last, buf, row_step, v, v_frequency)
            groups = (last - first + LANES - 1) // LANES
            stop = min(task % parts * part + part, panels)
            for start in range(task % parts * part, stop, k_block):
                count = min(k_block, stop - start)
                for f in range(FREQUENCIES):
                    u_panel = f * panels + start
                    _multiply(u, u_panel, count, channels, v, f * v_frequency, groups, m, f * m_frequency, m_row)
                k = start * ROWS
                count = min(count * ROWS, kernels - k)
                _transform_output(
                    m, m_frequency, m_row, yf, k_all, k0 + k, count, y_size, bias, clip, tiles, first, last, half, out
                )


@njit(cache=True)
def _multiply(
    u: np.ndarray, u_panel: int, u_panels: int, channels: int, v: np.ndarray, v0: int, groups: int, m: np.ndarray,
    m0: int, m_row: int,
) -> None:  # fmt: skip
    """One frequency: m (u_panels * ROWS, groups * LANES) = u (.., channels) times v (channels, ..)."""
    size = (channels * ROWS + LANES - 1) // LANES * LANES
    for group in range(0, groups, GROUPS):
        for c in range(0, channels, BLOCK_CHANNELS):
            count = min(BLOCK_CHANNELS, channels - c)
            b = v0 + group // GROUPS * (channels * PANEL + LANES) + c * PANEL
            for panel in range(u_panels):
                a = (u_panel + panel) * size + c * ROWS
                to = m0 + panel * ROWS * m_row + group * LANES
                if group + GROUPS <= groups:
                    gemm_tile(u, a, ROWS, v, b, PANEL, m, to, m_row, count, c > 0)
                else:
                    gemm_edge(u, a, ROWS, v, b, PANEL, m, to, m_row, count, c > 0)
