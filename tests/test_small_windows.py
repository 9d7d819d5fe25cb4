"""The maxima of small windows and their places against the definition, at every edge of vectors and images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite import small_windows
from caffe_lite.simd import LANES

LOWEST = -1e30


def windows(size, kernel, stride, pad):
    """How many windows begin before the end of the padded image, the last of which may reach beyond it."""
    count = -(-max(size + 2 * pad - kernel, 0) // stride) + 1
    return count - 1 if pad and (count - 1) * stride >= size + pad else count


def expected(x, kernel, stride, pad):
    sizes = [windows(*axis) for axis in zip(x.shape[2:], kernel, stride, pad, strict=True)]
    y = np.full((*x.shape[:2], *sizes), LOWEST, x.dtype)
    mask = np.full(y.shape, -1, np.int32)
    for n, c, i, j in np.ndindex(*y.shape):
        for h in range(i * stride[0] - pad[0], i * stride[0] - pad[0] + kernel[0]):
            for w in range(j * stride[1] - pad[1], j * stride[1] - pad[1] + kernel[1]):
                inside = 0 <= h < x.shape[2] and 0 <= w < x.shape[3]
                if inside and x[n, c, h, w] > y[n, c, i, j]:
                    y[n, c, i, j], mask[n, c, i, j] = x[n, c, h, w], h * x.shape[3] + w
    return y, mask


def assert_forward(x, kernel, stride, pad):
    want, want_mask = expected(x, kernel, stride, pad)
    for keep in (True, False):
        around = np.full((want.size + 2 * LANES,), 7, x.dtype)  # the arrays' neighbours stay
        places = np.full(around.shape, 7, np.int32)
        y, mask = (a[LANES:-LANES].reshape(want.shape) for a in (around, places))
        small_windows.forward(x, LOWEST, keep, y, mask, *kernel, *stride, *pad)
        np.testing.assert_array_equal(y, want)
        np.testing.assert_array_equal(mask, want_mask if keep else 7)
        for array in (around, places):
            assert (array[:LANES] == 7).all() and (array[-LANES:] == 7).all()


pairs = st.tuples(st.integers(1, small_windows.LARGEST), st.integers(1, small_windows.LARGEST))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 3 * LANES)),
    pairs,
    st.tuples(st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.sampled_from(["float32", "float64"]),
)
def test_forward(shape, kernel, stride, pad, dtype):
    pad = tuple(min(p, k - 1) for p, k in zip(pad, kernel, strict=True))
    x = np.random.default_rng(shape[3]).integers(-3, 4, shape).astype(dtype)  # many are equal
    assert_forward(x, kernel, stride, pad)


def test_nan_and_values_below_the_lowest_are_nowhere():
    x = np.zeros((1, 1, 4, 40), np.float32)
    x[0, 0, :2, :6] = np.nan
    x[0, 0, :2, 6:12] = -np.inf
    x[0, 0, 0, 9] = np.nan
    assert_forward(x, (2, 2), (2, 2), (0, 0))
    assert (expected(x, (2, 2), (2, 2), (0, 0))[1][0, 0, 0, :6] == -1).all()


@pytest.mark.parametrize(
    "kernel, stride, width, want",
    [((2, 2), (2, 2), 24, True), ((3, 3), (1, 1), 160, True), ((2, 2), (2, 2), 161, False), ((5, 2), (1, 1), 9, False),
     ((2, 2), (1, 3), 9, False)],
)  # fmt: skip
def test_covers(kernel, stride, width, want):
    assert small_windows.covers(kernel, stride, width) is want
