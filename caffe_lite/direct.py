"""Convolution with kernels of any size, stride and dilation in two dimensions, on the CPU.

The product of the kernels with the matrix of patches (im2col), of which only a cache-sized block
exists at a time, made where the product needs it. One thread makes a block of patches, multiplies
it, adds the bias and applies the ReLU.

    x  (N, C_all, H, W)    of which channels [c0, c0 + C) are read
    y  (N, K_all, OH, OW)  of which channels [k0, k0 + K) are written
    taps = C * kernel height * kernel width: the terms of a sum, in the order of the weights

No sum depends on how the work is divided, so the results do not depend on the number of threads.
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
    keep,
    load,
    load_every_2nd,
    load_every_4th,
    store,
    zeros,
)

PIECE = 6  # numbers that describe a piece of a row, see ``cut``
BLOCK_TAPS = 256  # a sum is made of partial sums of so many terms: faster, and rounds less


def pack_weights(w: np.ndarray, device: Device) -> np.ndarray:
    """w (K, taps) in the layout of ``convolve``: [panel of ROWS kernels][tap][kernel in panel].

    The array is scratch of ``device``: valid until the next call.
    """
    kernels, taps = w.shape
    packed = scratch_array(device, "direct_weights", round_up(kernels, ROWS) * taps, w.dtype).reshape(-1, taps, ROWS)
    whole = kernels // ROWS
    packed[:whole] = w[: whole * ROWS].reshape(whole, ROWS, taps).transpose(0, 2, 1)
    if whole * ROWS < kernels:
        packed[whole] = 0
        packed[whole, :, : kernels - whole * ROWS] = w[whole * ROWS :].T
    return packed.reshape(-1)


def convolve(
    x: np.ndarray,
    c0: int,
    channels: int,
    packed: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    k0: int,
    kernels: int,
    kernel: Sizes,
    stride: Sizes,
    pad: Sizes,
    dilation: Sizes,
    device: Device,
    clip: bool = False,
) -> None:
    """Write channels [k0, k0 + kernels) of y (see the module); ``packed`` from ``pack_weights``.

    ``pad`` is (rows, columns), negative to crop; bias (K_all,) or None; ``clip`` applies a ReLU.
    """
    pointwise = (kernel, stride, pad) == ((1, 1), (1, 1), (0, 0)) and x.shape[2:] == y.shape[2:]
    if pointwise:  # rows do not matter: one long one is faster
        x, y = x.reshape(*x.shape[:2], 1, -1), y.reshape(*y.shape[:2], 1, -1)
    groups = ceil_divide(y.shape[0] * y.shape[2] * y.shape[3], LANES)
    threads = get_num_threads()
    step = even_step(groups, threads)
    tasks = ceil_divide(groups, step)
    panels = ceil_divide(kernels, ROWS)
    parts = max(1, min(ceil_divide(threads, tasks), panels * ROWS // 64))
    width = ceil_divide(step * LANES, PANEL)
    taps = channels * kernel[0] * kernel[1]
    b_size = width * (min(taps, BLOCK_TAPS) * PANEL + LANES)
    each = round_up(b_size + ceil_divide(panels, parts) * ROWS * width * PANEL, LANES)
    scratch = scratch_array(device, "direct_tiles", threads * each, x.dtype).reshape(threads, each)
    if bias is None:
        bias = np.zeros(y.shape[1], y.dtype)
    geometry = np.array((kernel, stride, pad, dilation), np.int64)
    _convolve(x, c0, channels, packed, bias, y, k0, kernels, geometry, (tasks, step, parts), scratch, b_size, clip)


@njit(cache=True, parallel=True)
def _convolve(
    x: np.ndarray, c0: int, channels: int, packed: np.ndarray, bias: np.ndarray, y: np.ndarray, k0: int, kernels: int,
    geometry: np.ndarray, plan: tuple[int, int, int], scratch: np.ndarray, b_size: int, clip: bool,
) -> None:  # fmt: skip
    """``plan``: tasks (blocks of pixels) of ``step`` groups of LANES, each in ``parts`` parts of the kernels."""
    tasks, step, parts = plan
    xf, yf = x.reshape(-1), y.reshape(-1)
    c_all, x_size = x.shape[1], (x.shape[2], x.shape[3])
    total = y.shape[0] * y.shape[2] * y.shape[3]
    taps = channels * geometry[0, 0] * geometry[0, 1]
    panels = (kernels + ROWS - 1) // ROWS
    part = (panels + parts - 1) // parts
    width = (step * LANES + PANEL - 1) // PANEL
    threads = scratch.shape[0]
    for thread in prange(threads):
        b, m = scratch[thread, :b_size], scratch[thread, b_size:]
        pieces = np.empty((step * LANES, PIECE), np.int64)
        for task in range(tasks * parts * thread // threads, tasks * parts * (thread + 1) // threads):
            first = task // parts * step * LANES
            last = min(first + step * LANES, total)
            count = cut(first, last, y.shape[2:], c_all, c0, channels, x_size, geometry, xf.size, pieces)
            groups = (last - first + LANES - 1) // LANES
            start, stop = task % parts * part, min(task % parts * part + part, panels)
            m_row = width * PANEL
            for tap in range(0, taps, BLOCK_TAPS):
                depth = min(BLOCK_TAPS, taps - tap)
                patches(xf, x_size, geometry, pieces, count, tap, depth, b)
                for group in range(0, groups, GROUPS):
                    source = group // GROUPS * (depth * PANEL + LANES)
                    for panel in range(start, stop):
                        a = (panel * taps + tap) * ROWS
                        to = (panel - start) * ROWS * m_row + group * LANES
                        if group + GROUPS <= groups:
                            gemm_tile(packed, a, ROWS, b, source, PANEL, m, to, m_row, depth, tap > 0)
                        else:
                            gemm_edge(packed, a, ROWS, b, source, PANEL, m, to, m_row, depth, tap > 0)
            for k in range(start * ROWS, min(stop * ROWS, kernels)):
                at = (k - start * ROWS) * m_row
                _finish(m, at, yf, y.shape[1], k0 + k, y.shape[2] * y.shape[3], bias[k0 + k], clip, first, last)


@njit(cache=True)
def cut(
    first: int, last: int, out: Sizes, c_all: int, c0: int, channels: int, size: Sizes, geometry: np.ndarray,
    limit: int, pieces: np.ndarray,
) -> int:  # fmt: skip
    """Cut pixels [first, last) at the ends of rows, of panels, and to LANES; returns how many pieces.

    A piece (PIECE numbers): row and column of x where its first tap lies, place among the pixels, length, where the
    first tap is in x, which has ``limit`` numbers, and whether whole Vectors can be loaded for every tap.
    """
    kernel, stride, pad, dilation = geometry[0], geometry[1], geometry[2], geometry[3]
    down, across = (kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1]
    count, pixel = 0, first
    while pixel < last:
        line = pixel // out[1]
        column = pixel - line * out[1]
        room = PANEL - (pixel - first) % PANEL
        length = min(min(LANES, room), min(out[1] - column, last - pixel))
        y, x = line % out[0] * stride[0] - pad[0], column * stride[1] - pad[1]
        source = ((line // out[0] * c_all + c0) * size[0] + y) * size[1] + x
        inside = y >= 0 and y + down < size[0] and x >= 0 and x + (length - 1) * stride[1] + across < size[1]
        end = source + ((channels - 1) * size[0] + down) * size[1] + across + LANES * stride[1]
        piece = pieces[count]
        piece[0], piece[1], piece[2], piece[3], piece[4] = y, x, pixel - first, length, source
        piece[5] = inside and end <= limit and stride[1] in (1, 2, 4)
        count += 1
        pixel += length
    return count


@njit(cache=True)
def patches(
    x: np.ndarray, size: Sizes, geometry: np.ndarray, pieces: np.ndarray, count: int, tap: int, depth: int,
    b: np.ndarray,
) -> None:  # fmt: skip
    """Taps [tap, tap + depth) of the pixels to b[panel][tap][pixel in panel].

    Whole Vectors are stored: what lies behind the end of a piece spills over what is written next,
    so the order of the loops matters, and each panel ends with LANES spare numbers.
    """
    kernel, step, dilation = geometry[0], geometry[1, 1], geometry[3]
    for e in range(tap, tap + depth):
        c, i, j = e // (kernel[0] * kernel[1]), e // kernel[1] % kernel[0] * dilation[0], e % kernel[1] * dilation[1]
        shift = (c * size[0] + i) * size[1] + j
        for p in range(count):
            place, source = pieces[p, 2], pieces[p, 4] + shift
            to = place // PANEL * (depth * PANEL + LANES) + (e - tap) * PANEL + place % PANEL
            if pieces[p, 5]:
                store(b, to, _every(x, source, step))
            elif 0 <= pieces[p, 0] + i < size[0]:
                _at_the_edge(x, source, step, pieces[p, 1] + j, size[1], pieces[p, 3], b, to)
            else:
                store(b, to, zeros(b))


@njit(inline="always")
def _every(x: np.ndarray, source: int, step: int) -> Any:
    """The Vector of x[source + i step]; step 1, 2 or 4."""
    if step == 1:
        v = load(x, source)
    elif step == 2:
        v = load_every_2nd(x, source)
    else:
        v, _, _, _ = load_every_4th(x, source)
    return v


@njit(cache=True)
def _at_the_edge(
    x: np.ndarray, source: int, step: int, column: int, width: int, length: int, b: np.ndarray, to: int
) -> None:
    """Numbers source + i step of a row, whose first is in ``column``, to b; zeros beyond [0, width)."""
    if step in (1, 2, 4) and source >= 0 and source + LANES * step <= x.size:
        v = _every(x, source, step)
        if column < 0 or column + (length - 1) * step >= width:  # part of it lies in the padding
            v = keep(v, (step - 1 - column) // step, (width - column + step - 1) // step)
        store(b, to, v)
    else:
        for t in range(length):
            at = column + t * step
            b[np.uintp(to + t)] = x[np.uintp(source + t * step)] if 0 <= at < width else 0


@njit(cache=True)
def _finish(
    m: np.ndarray, at: int, y: np.ndarray, k_all: int, k: int, pixels: int, bias: float, clip: bool, first: int,
    last: int,
) -> None:  # fmt: skip
    """Row ``at`` of m plus bias, clipped at 0 if ``clip``, to channel k of y."""
    pixel = first
    while pixel < last:
        n = pixel // pixels
        length = min(last, (n + 1) * pixels) - pixel
        to = (n * k_all + k) * pixels + pixel - n * pixels
        source = at + pixel - first
        if clip:
            for i in range(length):
                value = m[np.uintp(source + i)] + bias
                y[np.uintp(to + i)] = 0 if value < 0 else value
        else:
            for i in range(length):
                y[np.uintp(to + i)] = m[np.uintp(source + i)] + bias
        pixel += length
