"""Vectors of 16 numbers, and the register tile of a matrix product, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from caffe_lite import simd
from caffe_lite.simd import LANES, PANEL, ROWS

DTYPES = ["float32", "float64"]


@njit
def move(x, y):
    simd.store(y, 1, simd.load(x, 3))
    a, b, c, d = simd.load_every_4th(x, 5)
    simd.store_every_4th(y, 20, d, c, b, a)
    simd.store(y, 100, simd.load_every_2nd(x, 7))
    simd.store(y, 120, simd.zeros(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_moving(dtype):
    x, y = np.arange(200, dtype=dtype), np.full(200, -1, dtype)
    move(x, y)
    want = np.full(200, -1, dtype)
    want[1 : 1 + LANES] = x[3 : 3 + LANES]
    groups = x[5 : 5 + 4 * LANES].reshape(LANES, 4)
    want[20 : 20 + 4 * LANES] = groups[:, ::-1].ravel()
    want[100 : 100 + LANES] = x[7 : 7 + 2 * LANES : 2]
    want[120 : 120 + LANES] = 0
    np.testing.assert_array_equal(y, want)


@njit
def calculate(x, y, number):
    a, b = simd.load(x, 0), simd.load(x, LANES)
    simd.store(y, 0, a + b)
    simd.store(y, LANES, a - b)
    simd.store(y, 2 * LANES, a * b)
    simd.store(y, 3 * LANES, 2 * a)
    simd.store(y, 4 * LANES, b - number)
    simd.store(y, 5 * LANES, 0.75 * b + a)
    simd.store(y, 6 * LANES, simd.relu(a))
    simd.store(y, 7 * LANES, simd.keep(b, -2, 5))
    simd.store(y, 8 * LANES, simd.keep(b, 3, 100))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic(dtype):
    x = np.random.default_rng(0).integers(-9, 9, (2, LANES)).astype(dtype)
    x[0, 3], x[0, 4] = np.nan, -np.inf
    y = np.zeros((9, LANES), dtype)
    calculate(x, y, np.dtype(dtype).type(0.5))
    a, b = x
    want = [a + b, a - b, a * b, 2 * a, b - 0.5, 0.75 * b + a, np.where(a < 0, 0, a)]
    want += [np.where(np.arange(LANES) < 5, b, 0), np.where(np.arange(LANES) >= 3, b, 0)]
    np.testing.assert_array_equal(y, np.array(want, dtype))
    assert y.dtype == dtype


@njit
def compare(x, y, places):
    best, which = simd.larger(simd.load(x, LANES), simd.load(x, 0), 7, simd.load(x, 0))
    simd.store(y, 0, best)
    simd.store(y, LANES, which)
    simd.store_places(places, 1, simd.load(x, 2 * LANES), 100, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_comparing(dtype):
    x = np.random.default_rng(1).integers(-4, 4, (3, LANES)).astype(dtype)
    x[0, 3] = x[1, 4] = np.nan  # greater than nothing, and nothing is greater
    y, places = np.zeros((2, LANES), dtype), np.full(LANES + 2, 5, np.int32)
    compare(x.ravel(), y.ravel(), places)
    greater = x[1] > x[0]
    assert greater.any() and not greater.all() and (x[2] < 0).any()
    np.testing.assert_array_equal(y[0], np.where(greater, x[1], x[0]))
    np.testing.assert_array_equal(y[1], np.where(greater, 7, x[0]))
    np.testing.assert_array_equal(places[1:-1], np.where(x[2] < 0, -1, 100 + 3 * np.arange(LANES) + x[2]))
    assert places[0] == places[-1] == 5


@njit
def transpose(x, y):
    simd.transpose_tile(x, 2, 20, y, 1, 18)


def test_transpose():
    x, y = np.arange(LANES * 20 + 2, dtype=np.float32), np.full(LANES * 18 + 1, -1, np.float32)
    transpose(x, y)
    got = y[1:].reshape(LANES, 18)
    np.testing.assert_array_equal(got[:, :LANES], x[2:].reshape(LANES, 20)[:, :LANES].T)
    assert (got[:, LANES:] == -1).all()


@njit
def multiply(a, b, c, n, edge, add):
    if edge:
        simd.gemm_edge(a, 2, ROWS + 1, b, 3, PANEL + 2, c, 5, PANEL + 7, n, add)
    else:
        simd.gemm_tile(a, 2, ROWS + 1, b, 3, PANEL + 2, c, 5, PANEL + 7, n, add)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_gemm_tile(dtype, n, edge, add):
    """Whole numbers: exact. Nothing outside the tile is touched."""
    rng = np.random.default_rng(n)
    columns = LANES if edge else PANEL
    a, b, c = (rng.integers(-9, 9, size).astype(dtype) for size in (2 + n * (ROWS + 1), 3 + n * (PANEL + 2), 600))
    want = c.copy()
    tile = want[5 : 5 + ROWS * (PANEL + 7)].reshape(ROWS, PANEL + 7)[:, :columns]
    product = a[2:].reshape(n, ROWS + 1)[:, :ROWS].T @ b[3:].reshape(n, PANEL + 2)[:, :columns]
    tile[...] = tile + product if add else product
    multiply(a, b, c, n, edge, add)
    np.testing.assert_array_equal(c, want)
