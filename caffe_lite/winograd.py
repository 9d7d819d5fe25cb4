"""Winograd convolution F(4x4, 3x3) on the CPU: 3 x 3, stride 1, dilation 1, with 36 products for 16 outputs.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2015), section 4.3. The output is
cut into tiles of 4 x 4 pixels; d is the 6 x 6 patch of input that a tile sees, g a 3 x 3 kernel:

    out = A^T [ sum over channels (G g G^T) * (B^T d B) ] A          (* number by number)

so that for each of the 36 positions ("frequencies") the sum is a matrix product over channels.
A block of tiles is transformed, multiplied and transformed back by one thread while it is in that
thread's cache; bias and ReLU are applied on the way out.

    x  (N, C_all, H, W)   of which channels [c0, c0 + C) are read
    w  (K_all, C, 3, 3)   of which kernels [k0, k0 + K) are used
    y  (N, K_all, OH, OW) of which channels [k0, k0 + K) are written; OH = H + 2 pad - 2

Tiles are numbered through the batch, row by row: tile = (n * tiles_y + ty) * tiles_x + tx. The
gradient to x is the same convolution of dy with the kernels turned by 180 degrees, channels swapped,
pad 2 - pad (which may be negative). All sums run in an order that does not depend on the number of
threads, so the results do not either.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

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
)

FREQUENCIES = 36


def weights_size(outputs: int, inputs: int) -> int:
    """Elements of the transformed weights of a convolution of ``inputs`` to ``outputs`` channels."""
    return FREQUENCIES * -(-outputs // ROWS) * _round_up(inputs * ROWS)


def _round_up(n: int) -> int:
    return -(-n // LANES) * LANES


@njit(cache=True, parallel=True)
def _transform_weights(w, u, k0, kernels, turned):  # type: ignore[no-untyped-def]
    """G g G^T of kernels [k0, k0 + kernels) of w (K_all, C, 3, 3), laid out for gemm_tile.

    u[frequency][panel of ROWS outputs][input][output in panel], each panel filled up to LANES.
    ``turned``: for the gradient; kernels turned by 180 degrees, the C channels are the outputs.
    """
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
                if inp >= inputs or out >= outputs:
                    for e in range(9):
                        g[e * LANES + lane] = 0
                elif turned:
                    base = ((k0 + inp) * channels + out) * 9
                    for e in range(9):
                        g[e * LANES + lane] = flat[base + 8 - e]
                else:
                    base = ((k0 + out) * channels + inp) * 9
                    for e in range(9):
                        g[e * LANES + lane] = flat[base + e]
            for j in range(3):
                _kernel_1d(g, j * LANES, 3 * LANES, column, j * LANES, 3 * LANES)
            for i in range(6):
                target = (6 * i * panels + panel) * size + start
                _kernel_1d(column, 3 * i * LANES, LANES, u, target, panels * size)


@njit(cache=True)
def _kernel_1d(g, at, step, u, to, stride):  # type: ignore[no-untyped-def]
    """u = G g for LANES kernels at once: three Vectors ``step`` apart to six ``stride`` apart."""
    a, b, c = load(g, at), load(g, at + step), load(g, at + 2 * step)
    outer = (-1.0 / 6.0) * (a + c)
    inner = (1.0 / 24.0) * a + (1.0 / 6.0) * c
    store(u, to, 0.25 * a)
    store(u, to + stride, outer - (1.0 / 6.0) * b)
    store(u, to + 2 * stride, outer + (1.0 / 6.0) * b)
    store(u, to + 3 * stride, inner + (1.0 / 12.0) * b)
    store(u, to + 4 * stride, inner - (1.0 / 12.0) * b)
    store(u, to + 5 * stride, c)


@njit(cache=True)
def _fill_rows(x, plane, height, width, top, left, rows, length, buf, row_step):  # type: ignore[no-untyped-def]
    """buf[r, :length] = rows [top, top + rows) of the plane from column ``left``; 0 outside of it.

    Writes up to LANES - 1 numbers more, which the caller does not look at.
    """
    low = min(max(0, -left), length)
    high = max(low, min(length, width - left))
    zero = 0 * load(buf, 0)
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
def _transform_input(x, c_all, c0, channels, size, pad, tiles, first, last, buf, row_step, v, v_frequency, v_panel):  # type: ignore[no-untyped-def]
    """B^T d B of tiles [first, last) to v[frequency][panel of tiles][channel][tile in panel].

    Stores whole Vectors, so that what lies behind the end of a run of tiles is spilt over what is
    written next; the order of the loops matters, and a panel ends with LANES spare numbers.
    """
    height, width = size
    tiles_y, tiles_x = tiles
    for c in range(channels):
        tile = first
        while tile < last:
            row = tile // tiles_x
            tx = tile - row * tiles_x
            n = row // tiles_y
            ty = row - n * tiles_y
            run = min(tiles_x - tx, last - tile)
            plane = (n * c_all + c0 + c) * height * width
            length = 4 * run + 2
            _fill_rows(x, plane, height, width, 4 * ty - pad[0], 4 * tx - pad[1], 6, length, buf, row_step)
            for i in range(0, length, LANES):
                _input_1d(buf, i, row_step)
            done = 0
            while done < run:
                place = tile + done - first
                lane = place % PANEL
                piece = min(run - done, PANEL - lane)
                for i in range(0, piece, LANES):
                    to = place // PANEL * v_panel + c * PANEL + lane + i
                    for r in range(6):
                        at = r * row_step + 4 * (done + i)
                        d0, d1, d2, d3 = load_every_4th(buf, at)
                        d4, d5, _, _ = load_every_4th(buf, at + 4)
                        start = to + 6 * r * v_frequency
                        a, b = d4 - 4 * d2, d3 - 4 * d1
                        e, f = d4 - d2, 2 * (d3 - d1)
                        store(v, start, 4 * d0 - 5 * d2 + d4)
                        store(v, start + v_frequency, a + b)
                        store(v, start + 2 * v_frequency, a - b)
                        store(v, start + 3 * v_frequency, e + f)
                        store(v, start + 4 * v_frequency, e - f)
                        store(v, start + 5 * v_frequency, 4 * d1 - 5 * d3 + d5)
                done += piece
            tile += run


@njit(cache=True)
def _input_1d(d, at, step):  # type: ignore[no-untyped-def]
    """B^T d in place, down six rows ``step`` apart, for LANES columns."""
    d0, d1, d2 = load(d, at), load(d, at + step), load(d, at + 2 * step)
    d3, d4, d5 = load(d, at + 3 * step), load(d, at + 4 * step), load(d, at + 5 * step)
    a, b = d4 - 4 * d2, d3 - 4 * d1
    e, f = d4 - d2, 2 * (d3 - d1)
    store(d, at, 4 * d0 - 5 * d2 + d4)
    store(d, at + step, a + b)
    store(d, at + 2 * step, a - b)
    store(d, at + 3 * step, e + f)
    store(d, at + 4 * step, e - f)
    store(d, at + 5 * step, 4 * d1 - 5 * d3 + d5)


@njit(cache=True)
def _transform_output(m, m_frequency, m_row, kernels, y, channel, k_all, bias, size, tiles, first, last, clip, half, out):  # type: ignore[no-untyped-def]
    """A^T m A + bias (clipped at 0 if ``clip``) of tiles [first, last), channels [channel, channel + kernels)."""
    height, width = size
    tiles_y, tiles_x = tiles
    for k in range(kernels):
        b = bias[channel + k]
        for chunk in range(first, last, LANES):
            at = k * m_row + chunk - first
            for j in range(6):
                m0, m1, m2 = load(m, at + j * m_frequency), load(m, at + (6 + j) * m_frequency), load(m, at + (12 + j) * m_frequency)
                m3, m4, m5 = load(m, at + (18 + j) * m_frequency), load(m, at + (24 + j) * m_frequency), load(m, at + (30 + j) * m_frequency)
                p, q, r, s = m1 + m2, m1 - m2, m3 + m4, m3 - m4
                store(half, j * LANES, m0 + p + r)
                store(half, (6 + j) * LANES, q + 2 * s)
                store(half, (12 + j) * LANES, p + 4 * r)
                store(half, (18 + j) * LANES, q + 8 * s + m5)
            tile = chunk
            row = tile // tiles_x
            tx = tile - row * tiles_x
            n = row // tiles_y
            ty = row - n * tiles_y
            plane = (n * k_all + channel + k) * height * width
            direct = tile + LANES <= last and 4 * (tx + LANES) <= width and tx + LANES <= tiles_x
            for i in range(4):
                m0, m1, m2 = load(half, 6 * i * LANES), load(half, (6 * i + 1) * LANES), load(half, (6 * i + 2) * LANES)
                m3, m4, m5 = load(half, (6 * i + 3) * LANES), load(half, (6 * i + 4) * LANES), load(half, (6 * i + 5) * LANES)
                p, q, r, s = m1 + m2, m1 - m2, m3 + m4, m3 - m4
                y0, y1, y2, y3 = (m0 + p + r) + b, (q + 2 * s) + b, (p + 4 * r) + b, (q + 8 * s + m5) + b
                if clip:
                    y0, y1, y2, y3 = relu(y0), relu(y1), relu(y2), relu(y3)
                if direct:
                    if 4 * ty + i < height:
                        store_every_4th(y, plane + (4 * ty + i) * width + 4 * tx, y0, y1, y2, y3)
                else:
                    store_every_4th(out, 4 * i * LANES, y0, y1, y2, y3)
            if direct:
                continue
            lane = 0
            count = min(LANES, last - chunk)
            while lane < count:
                row = (chunk + lane) // tiles_x
                tx = chunk + lane - row * tiles_x
                n = row // tiles_y
                ty = row - n * tiles_y
                run = min(tiles_x - tx, count - lane)
                pixels = min(4 * run, width - 4 * tx)
                plane = (n * k_all + channel + k) * height * width
                for i in range(min(4, height - 4 * ty)):
                    to = plane + (4 * ty + i) * width + 4 * tx
                    source = 4 * i * LANES + 4 * lane
                    for e in range(pixels):
                        y[to + e] = out[source + e]
                lane += run


@njit(cache=True, parallel=True)
def _forward(x, c0, u, bias, y, k0, kernels, channels, pad, tiles, tasks, group_step, k_parts, k_block, c_block, scratch, v_size, row_step, clip):  # type: ignore[no-untyped-def]
    """The whole convolution; a task is a range of tiles and a part of the kernels."""
    batch, c_all, height, width = x.shape
    k_all, out_height, out_width = y.shape[1:]
    xf, yf = x.reshape(-1), y.reshape(-1)
    total = batch * tiles[0] * tiles[1]
    row_panels = (kernels + ROWS - 1) // ROWS
    u_panel = (channels * ROWS + LANES - 1) // LANES * LANES
    v_panel = channels * PANEL + LANES
    v_frequency = (group_step * LANES + PANEL - 1) // PANEL * v_panel
    m_row = (group_step * LANES + PANEL - 1) // PANEL * PANEL
    m_frequency = k_block * ROWS * m_row
    part = (row_panels + k_parts - 1) // k_parts
    for task in prange(tasks):
        mine = scratch[get_thread_id()]
        v, m = mine[:v_size], mine[v_size:]
        buf = np.zeros(6 * row_step, x.dtype)
        half, out = np.empty(24 * LANES, x.dtype), np.empty(16 * LANES, x.dtype)
        first = task // k_parts * group_step * LANES
        last = min(first + group_step * LANES, total)
        _transform_input(xf, c_all, c0, channels, (height, width), pad, tiles, first, last, buf, row_step, v, v_frequency, v_panel)
        groups = (last - first + LANES - 1) // LANES
        start = task % k_parts * part
        stop = min(start + part, row_panels)
        for block in range(start, stop, k_block):
            end = min(block + k_block, stop)
            for f in range(FREQUENCIES):
                for g in range(0, groups, PANEL // LANES):
                    for c in range(0, channels, c_block):
                        b0 = f * v_frequency + g * LANES // PANEL * v_panel + c * PANEL
                        count = min(c_block, channels - c)
                        for p in range(block, end):
                            a0 = (f * row_panels + p) * u_panel + c * ROWS
                            to = f * m_frequency + (p - block) * ROWS * m_row + g * LANES
                            if groups - g >= PANEL // LANES:
                                gemm_tile(u, a0, ROWS, v, b0, PANEL, m, to, m_row, count, c > 0)
                            else:
                                gemm_edge(u, a0, ROWS, v, b0, PANEL, m, to, m_row, count, c > 0)
            done = min(end * ROWS, kernels) - block * ROWS
            _transform_output(m, m_frequency, m_row, done, yf, k0 + block * ROWS, k_all, bias, (out_height, out_width), tiles, first, last, clip, half, out)
