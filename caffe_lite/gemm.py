"""Products of two matrices, on any device; on the CPU with bias and ReLU done as the result is written.

    out (M, L) = a (M, K) b (K, L)    or    out += a b

An operand is row-major, or the transpose of a row-major array; out is row-major and shares no memory with them. All
are of one dtype, float32 or float64. A GPU's products are ``caffe_lite.gpu_gemm``'s. On the CPU both operands are laid
out in panels, block by block, and the inner loop is ``caffe_lite.simd``'s: no threads of a library's own wait in the
way of the other kernels', nothing is copied whole, and one pass over ``out`` does it all. BLAS has what is too small
for that, and what is no more than reading a matrix: products with fewer than FEWEST rows or columns.

No sum of the kernels here depends on how the work is divided, so their results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange

from caffe_lite import gpu_gemm
from caffe_lite.blocks import ceil_divide, scratch_array
from caffe_lite.device import Device
from caffe_lite.simd import LANES, PANEL, ROWS, gemm_tile, load, store, transpose_tile

FEWEST = 8  # rows, and columns, of a product that pays for laying out the operands
SMALL = 1 << 23  # multiplications that do
NEAR = 2  # panels of a that are multiplied with a panel of b while it is in the first cache
BLOCK_TERMS = 256  # a sum is made of partial sums of so many terms: faster, and rounds less
BLOCK_ROWS = 4096  # laid out at a time
BLOCK_COLUMNS = 4096
STRETCH_BYTES = 16 << 20  # laid out at a time, about
COLUMNS = 256  # whose panels stay in the second cache


def multiply(device: Device, a: Any, b: Any, out: Any, add: bool = False) -> None:
    """out = a b, or out += a b; see the module."""
    if device.is_gpu:
        gpu_gemm.multiply(device, a, b, out, add)
    else:
        _on_cpu(device, a, b, out, out.reshape(-1)[:0], False, add)


def affine(device: Device, a: np.ndarray, b: np.ndarray, bias: np.ndarray, out: np.ndarray, clip: bool) -> None:
    """out = a b + bias, max(., 0) of it if ``clip``, on the CPU; bias (L,), or empty: none."""
    _on_cpu(device, a, b, out, bias, clip, False)


def _on_cpu(
    device: Device, a: np.ndarray, b: np.ndarray, out: np.ndarray, bias: np.ndarray, clip: bool, add: bool
) -> None:
    (rows, terms), columns = a.shape, b.shape[1]
    if not terms or min(rows, columns) < FEWEST or rows * columns * terms < SMALL:
        _by_blas(a, b, out, bias, clip, add)
        return
    threads = get_num_threads()
    tall, wide = ceil_divide(min(rows, BLOCK_ROWS), ROWS), ceil_divide(min(columns, BLOCK_COLUMNS), PANEL)
    per_term = (tall * ROWS + wide * PANEL) * out.itemsize
    depth = min(terms, max(1, STRETCH_BYTES // (per_term * BLOCK_TERMS)) * BLOCK_TERMS)
    a_size, b_size = tall * (depth * ROWS + LANES), wide * (depth * PANEL + LANES)
    panels = scratch_array(device, "gemm", a_size + b_size, out.dtype)
    down = max(1, min(threads, rows // 64))
    plan = depth, down, ceil_divide(threads, down)
    _multiply(*_flat(a), *_flat(b), out, bias, clip, add, plan, panels[:a_size], panels[a_size:])


def _by_blas(a: np.ndarray, b: np.ndarray, out: np.ndarray, bias: np.ndarray, clip: bool, add: bool) -> None:
    if add:
        out += np.dot(a, b)
    else:
        np.dot(a, b, out=out)
    if bias.size:
        out += bias
    if clip:
        np.maximum(out, 0, out=out)


def _flat(matrix: np.ndarray) -> tuple[np.ndarray, int, bool]:
    """(its numbers in memory, numbers from line to line, is a line a column?)"""
    if matrix.flags.c_contiguous:
        return matrix.reshape(-1), matrix.shape[1], False
    if matrix.flags.f_contiguous:
        return matrix.T.reshape(-1), matrix.shape[0], True
    raise ValueError(f"a matrix of shape {matrix.shape} and strides {matrix.strides} is not contiguous")


@njit(cache=True, parallel=True)
def _multiply(
    a: np.ndarray, a_line: int, a_turned: bool, b: np.ndarray, b_line: int, b_turned: bool, out: np.ndarray,
    bias: np.ndarray, clip: bool, add: bool, plan: tuple[int, int, int], a_panels: np.ndarray, b_panels: np.ndarray,
) -> None:  # fmt: skip
    """``plan``: terms laid out at a time, parts of the rows, parts of the columns."""
    stretch, down, across = plan
    rows, columns = out.shape
    terms = a.size // rows
    for i in range(0, rows, BLOCK_ROWS):
        tall = (min(BLOCK_ROWS, rows - i) + ROWS - 1) // ROWS
        for j in range(0, columns, BLOCK_COLUMNS):
            wide = (min(BLOCK_COLUMNS, columns - j) + PANEL - 1) // PANEL
            for k in range(0, terms, stretch):
                depth = min(stretch, terms - k)
                for task in prange(tall + wide):
                    if task < tall:
                        to = task * (depth * ROWS + LANES)
                        _lay_out(a, a_line, not a_turned, i + task * ROWS, rows, k, depth, ROWS, a_panels, to)
                    else:
                        panel = task - tall
                        to = panel * (depth * PANEL + LANES)
                        _lay_out(b, b_line, b_turned, j + panel * PANEL, columns, k, depth, PANEL, b_panels, to)
                last = k + depth == terms
                for task in prange(down * across):
                    row, column = task // across, task % across
                    of_rows = tall * row // down, tall * (row + 1) // down
                    of_columns = wide * column // across, wide * (column + 1) // across
                    _part(a_panels, b_panels, out, bias, clip, add or k > 0, last, i, j, depth, of_rows, of_columns)


@njit(cache=True)
def _part(
    a: np.ndarray, b: np.ndarray, out: np.ndarray, bias: np.ndarray, clip: bool, add: bool, last: bool, i: int, j: int,
    depth: int, of_rows: tuple[int, int], of_columns: tuple[int, int],
) -> None:  # fmt: skip
    """Panels of rows and of columns [first, last) of the block at (i, j); ``last``: no terms follow."""
    flat, (rows, columns) = out.reshape(-1), out.shape
    edge = np.empty(ROWS * PANEL, out.dtype)
    for start in range(of_columns[0], of_columns[1], COLUMNS // PANEL):
        stop = min(start + COLUMNS // PANEL, of_columns[1])
        for k in range(0, depth, BLOCK_TERMS):
            count = min(BLOCK_TERMS, depth - k)
            adds, finishes = add or k > 0, last and k + count == depth and (clip or bias.size > 0)
            for first in range(of_rows[0], of_rows[1], NEAR):
                for panel in range(start, stop):
                    column, other = j + panel * PANEL, panel * (depth * PANEL + LANES) + k * PANEL
                    wide = min(PANEL, columns - column)
                    for of_row in range(first, min(first + NEAR, of_rows[1])):
                        row, source = i + of_row * ROWS, of_row * (depth * ROWS + LANES) + k * ROWS
                        tall = min(ROWS, rows - row)
                        if tall == ROWS and wide == PANEL:
                            to = row * columns + column
                            gemm_tile(a, source, ROWS, b, other, PANEL, flat, to, columns, count, adds)
                        else:
                            gemm_tile(a, source, ROWS, b, other, PANEL, edge, 0, PANEL, count, False)
                            _write_edge(edge, out, row, tall, column, wide, adds)
                        if finishes:
                            _finish(out, row, tall, column, wide, bias, clip)


@njit(cache=True)
def _write_edge(edge: np.ndarray, out: np.ndarray, row: int, tall: int, column: int, wide: int, add: bool) -> None:
    for r in range(tall):
        for c in range(wide):
            value = edge[np.uintp(r * PANEL + c)]
            out[row + r, column + c] = out[row + r, column + c] + value if add else value


@njit(cache=True)
def _finish(out: np.ndarray, row: int, tall: int, column: int, wide: int, bias: np.ndarray, clip: bool) -> None:
    zero = out.dtype.type(0)
    for r in range(row, row + tall):
        part = out[r, column : column + wide]
        if bias.size:
            for c in range(wide):
                part[c] += bias[column + c]
        if clip:
            for c in range(wide):
                part[c] = zero if part[c] <= zero else part[c]  # a NaN stays


@njit(cache=True)
def _lay_out(
    source: np.ndarray, line: int, turned: bool, first: int, limit: int, k: int, depth: int, width: int,
    target: np.ndarray, start: int,
) -> None:  # fmt: skip
    """target[term][place] of ``width`` rows of a or columns of b from ``first`` on, terms [k, k + depth).

    Whole Vectors are stored: what lies beyond ``width`` is overwritten by the next term, or spare.
    """
    for t in range(0, depth, LANES):
        terms = min(LANES, depth - t)
        for p in range(0, width, LANES):
            at, to = (first + p) * line + k + t, start + t * width + p
            inside = first + p + LANES <= limit
            if turned and inside and terms == LANES:
                transpose_tile(source, at, line, target, to, width)
                continue
            for s in range(terms):
                at = (k + t + s) * line + first + p
                if inside and not turned:
                    store(target, to + s * width, load(source, at))
                    continue
                for q in range(min(LANES, width - p)):
                    if turned:
                        at = (first + p + q) * line + k + t + s - q
                    target[np.uintp(to + s * width + q)] = source[np.uintp(at + q)] if first + p + q < limit else 0
