"""Matrix products on the CPU against NumPy's in float64: shapes at the edges of blocks, transposes, sums, epilogues."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite import gemm
from caffe_lite.device import CPU
from caffe_lite.simd import PANEL, ROWS

TOLERANCE = {"float32": 2e-6, "float64": 1e-14}  # of the largest sum of absolute products


@pytest.fixture(autouse=True)
def nothing_is_too_small(monkeypatch):
    monkeypatch.setattr(gemm, "SMALL", 0)
    monkeypatch.setattr(gemm, "FEWEST", 1)


def operands(shape, dtype, turned=(False, False)):
    rows, terms, columns = shape
    rng = np.random.default_rng(rows + terms + columns)
    a, b = rng.normal(size=(rows, terms)).astype(dtype), rng.normal(size=(terms, columns)).astype(dtype)
    return [np.asfortranarray(m) if turn else m for m, turn in zip((a, b), turned, strict=True)]


def assert_product(got, a, b, base=0):
    want = base + a.astype(np.float64) @ b.astype(np.float64)
    size = np.abs(base).max() + (np.abs(a).astype(np.float64) @ np.abs(b)).max(initial=0)
    assert np.abs(got - want).max(initial=0) <= TOLERANCE[got.dtype.name] * size


SHAPES = {  # M, K, L
    "one number": (1, 1, 1),
    "whole tiles": (2 * ROWS, 32, 2 * PANEL),
    "a row and a column more": (2 * ROWS + 1, 33, 2 * PANEL + 1),
    "a row and a column less": (2 * ROWS - 1, 31, 2 * PANEL - 1),
    "several blocks of terms": (9, 2 * gemm.BLOCK_TERMS + 5, 40),
    "several blocks of rows": (gemm.BLOCK_ROWS + 3, 5, 20),
    "several blocks of columns": (10, 5, gemm.BLOCK_COLUMNS + 3),
    "wide": (3, 20, 3 * gemm.COLUMNS + 7),
    "few terms": (70, 1, 50),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_product(shape, turned, dtype):
    a, b = operands(SHAPES[shape], dtype, turned)
    out = np.full((len(a), b.shape[1]), np.nan, dtype)
    gemm.multiply(CPU, a, b, out)
    assert_product(out, a, b)
    base = np.arange(out.size, dtype=dtype).reshape(out.shape) / out.size
    out[...] = base
    gemm.multiply(CPU, a, b, out, add=True)
    assert_product(out, a, b, base)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 90)] * 3), st.booleans(), st.booleans(), st.integers(1, 4))
def test_any_shape_and_any_number_of_threads(shape, turn_a, turn_b, threads):
    a, b = operands(shape, "float32", (turn_a, turn_b))
    around = np.full((len(a) + 2, b.shape[1]), 7, np.float32)  # what lies before and after stays
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, "get_num_threads", lambda: threads)
        gemm.multiply(CPU, a, b, around[1:-1])
    assert_product(around[1:-1], a, b)
    assert (around[[0, -1]] == 7).all()


def test_terms_beyond_what_is_laid_out_at_a_time(monkeypatch):
    a, b = operands((20, 3 * gemm.BLOCK_TERMS + 4, 40), "float32")
    whole, pieces = np.empty((20, 40), "f"), np.empty((20, 40), "f")
    gemm.affine(CPU, a, b, b[0], whole, True)
    monkeypatch.setattr(gemm, "STRETCH_BYTES", 1)
    gemm.affine(CPU, a, b, b[0], pieces, True)
    np.testing.assert_array_equal(pieces, whole)


def test_number_of_threads_changes_nothing(monkeypatch):
    a, b = operands((150, 700, 170), "float32", (False, True))
    results = []
    for threads in (1, 2, 3, 7):
        monkeypatch.setattr(gemm, "get_num_threads", lambda threads=threads: threads)
        results.append(np.empty((150, 170), "f"))
        gemm.multiply(CPU, a, b, results[-1])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("small", [0, 1 << 20], ids=["own", "BLAS"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_bias_and_relu(small, clip, has_bias, monkeypatch):
    monkeypatch.setattr(gemm, "SMALL", small)
    a, b = operands((ROWS + 3, 300, PANEL + 5), "float32")
    bias = np.linspace(-30, 30, b.shape[1], dtype="f") if has_bias else np.zeros(0, "f")
    out = np.empty((len(a), b.shape[1]), "f")
    gemm.affine(CPU, a, b, bias, out, clip)
    want = a.astype(np.float64) @ b + (bias if has_bias else 0)
    assert (want < 0).any() and (want > 0).any()
    np.testing.assert_allclose(out, np.maximum(want, 0) if clip else want, atol=1e-4)


def test_a_nan_goes_through_the_relu():
    a, b = np.full((8, 8), np.nan, "f"), np.ones((8, 32), "f")
    out = np.zeros((8, 32), "f")
    gemm.affine(CPU, a, b, np.zeros(0, "f"), out, True)
    assert np.isnan(out).all()


def test_no_terms_give_zeros():
    out = np.full((9, 40), np.nan, "f")
    gemm.multiply(CPU, np.empty((9, 0), "f"), np.empty((0, 40), "f"), out)
    assert not out.any()
    out += 3
    gemm.multiply(CPU, np.empty((9, 0), "f"), np.empty((0, 40), "f"), out, add=True)
    assert (out == 3).all()


def test_a_matrix_with_gaps_is_refused():
    with pytest.raises(ValueError, match="is not contiguous"):
        gemm.multiply(CPU, np.ones((9, 80), "f")[:, ::2], np.ones((40, 9), "f"), np.empty((9, 9), "f"))
