"""Winograd convolution and its gradients against the definition."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from caffe_lite import winograd, winograd_gradient
from caffe_lite.device import CPU
from tests import convolution_reference as reference

ONE = (1, 1)
CASES = {  # N, C, K, H, W, pad
    "smaller than a tile": (1, 3, 5, 2, 3, (1, 1)),
    "one row of pixels": (2, 2, 3, 1, 40, (1, 1)),
    "one pixel out": (3, 2, 2, 3, 3, (0, 0)),
    "odd, no pad": (2, 17, 9, 9, 23, (0, 0)),
    "tiles straddle rows of the image and the batch": (5, 3, 8, 7, 9, (1, 1)),
    "long rows": (1, 2, 3, 6, 400, (1, 1)),
    "pad 2 and 0": (2, 8, 49, 10, 33, (2, 0)),
    "pad 3": (1, 33, 6, 5, 70, (3, 3)),
    "several blocks of channels and kernels": (1, 150, 140, 9, 18, (1, 1)),
}


def run(x, w, bias, pad, clip=False):
    n, _, height, width = x.shape
    y = np.full((n, w.shape[0], height + 2 * pad[0] - 2, width + 2 * pad[1] - 2), np.nan, x.dtype)
    u = winograd.transform_weights(w, 0, w.shape[0], CPU)
    winograd.convolve(x, 0, x.shape[1], u, bias, y, 0, w.shape[0], pad, CPU, clip)
    return y


def data(case, dtype):
    n, c, k, height, width, pad = CASES[case]
    rng = np.random.default_rng(len(case))
    x = rng.normal(size=(n, c, height, width)).astype(dtype)
    w = rng.normal(size=(k, c, 3, 3)).astype(dtype)
    dy = rng.normal(size=(n, k, height + 2 * pad[0] - 2, width + 2 * pad[1] - 2)).astype(dtype)
    return x, w, dy, pad


def assert_close(got, want, tolerance=None):
    tolerance = tolerance or {"float32": 5e-6, "float64": 1e-13}[got.dtype.name]
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_convolution(case, dtype):
    x, w, _, pad = data(case, dtype)
    bias = np.arange(w.shape[0], dtype=dtype)
    want = reference.convolve(x, w, ONE, pad, ONE) + bias[:, None, None]
    assert_close(run(x, w, bias, pad), want)
    assert_close(run(x, w, bias, pad, clip=True), np.maximum(want, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_gradients(case, dtype):
    x, w, dy, pad = data(case, dtype)
    want_dx, want_dw = reference.gradients(x, w, dy, ONE, pad, ONE)
    dx, dw = np.full(x.shape, np.nan, dtype), np.full(w.shape, 2, dtype)
    winograd.data_gradient(dy, 0, len(w), w, dx, 0, pad, CPU)
    winograd_gradient.weight_gradient(x, 0, dy, 0, len(w), dw, pad, CPU)
    assert_close(dx, want_dx)
    assert_close(dw - dw.dtype.type(2), want_dw, 2e-5 if dtype == "float32" else 1e-12)  # 2 + it is rounded


def test_weight_gradient_takes_tiles_in_stretches(monkeypatch):
    x, w, dy, pad = data("long rows", "float64")
    results = []
    for limit in (winograd_gradient.STRETCH_BYTES, 1):
        monkeypatch.setattr(winograd_gradient, "STRETCH_BYTES", limit)
        dw = np.zeros(w.shape)
        winograd_gradient.weight_gradient(x, 0, dy, 0, len(w), dw, pad, CPU)
        results.append(dw)
    np.testing.assert_allclose(*results, rtol=1e-10)
    assert not np.array_equal(*results)  # it did take stretches


def test_groups_leave_the_other_channels_alone():
    x, w, dy, pad = data("odd, no pad", "float64")
    c, k, total_c, total_k = 17, 9, 30, 40
    rng = np.random.default_rng(1)
    wide, weights = rng.normal(size=(2, total_c, 9, 23)), rng.normal(size=(total_k, c, 3, 3))
    wide[:, 5 : 5 + c], weights[20 : 20 + k] = x, w
    y = np.full((2, total_k, 7, 21), 9.0)
    u = winograd.transform_weights(weights, 20, k, CPU)
    winograd.convolve(wide, 5, c, u, None, y, 20, k, pad, CPU)
    assert_close(y[:, 20 : 20 + k], reference.convolve(x, w, ONE, pad, ONE))
    assert (y[:, :20] == 9).all() and (y[:, 20 + k :] == 9).all()

    wide_dy, dx, dw = rng.normal(size=y.shape), np.full(wide.shape, 9.0), np.zeros(weights.shape)
    wide_dy[:, 20 : 20 + k] = dy
    winograd.data_gradient(wide_dy, 20, k, weights, dx, 5, pad, CPU)
    winograd_gradient.weight_gradient(wide, 5, wide_dy, 20, k, dw, pad, CPU)
    want_dx, want_dw = reference.gradients(x, w, dy, ONE, pad, ONE)
    assert_close(dx[:, 5 : 5 + c], want_dx)
    assert (dx[:, :5] == 9).all() and (dx[:, 5 + c :] == 9).all()
    assert_close(dw[20 : 20 + k], want_dw)
    assert not dw[:20].any() and not dw[20 + k :].any()


@pytest.mark.parametrize("channels", [64, 512])
def test_rounding_on_vgg_like_data(channels):
    """Rectified inputs, weights that keep their size: within 4e-6 of the largest value (5e-6 for dw)."""
    rng = np.random.default_rng(channels)
    x = np.maximum(rng.normal(size=(1, channels, 22, 31)), 0).astype(np.float32)
    w = (rng.normal(size=(48, channels, 3, 3)) * np.sqrt(2 / (9 * channels))).astype(np.float32)
    want = reference.convolve(x, w, ONE, ONE, ONE)
    assert_close(run(x, w, None, ONE), want, 4e-6)
    dy = rng.normal(size=want.shape).astype(np.float32)
    want_dx, want_dw = reference.gradients(x, w, dy, ONE, ONE, ONE)
    dx, dw = np.empty_like(x), np.zeros_like(w)
    winograd.data_gradient(dy, 0, 48, w, dx, 0, ONE, CPU)
    winograd_gradient.weight_gradient(x, 0, dy, 0, 48, dw, ONE, CPU)
    assert_close(dx, want_dx, 4e-6)
    assert_close(dw, want_dw, 5e-6)


def test_nan_stays_near_its_pixel():
    """NaN spreads over the tiles that see the pixel, no further."""
    x, w, _, pad = data("tiles straddle rows of the image and the batch", "float32")
    x[1, 0, 3, 2] = np.nan
    lost = np.isnan(run(x, w, None, pad, clip=True))
    assert lost[1, :, 2:5, 1:4].all()
    assert not lost[[0, 2, 3, 4]].any() and not lost[1, :, :, 8:].any()


def test_number_of_threads_changes_nothing():
    x, w, dy, pad = data("several blocks of channels and kernels", "float32")

    def everything():
        dx, dw = np.empty_like(x), np.zeros_like(w)
        winograd.data_gradient(dy, 0, len(w), w, dx, 0, pad, CPU)
        winograd_gradient.weight_gradient(x, 0, dy, 0, len(w), dw, pad, CPU)
        return run(x, w, None, pad), dx, dw

    most = numba.get_num_threads()
    many = everything()
    try:
        numba.set_num_threads(1)
        for a, b in zip(many, everything(), strict=True):
            np.testing.assert_array_equal(a, b)
    finally:
        numba.set_num_threads(most)


@pytest.mark.parametrize("threads", [1, 2, 5, 64])
def test_plan_for_any_number_of_threads(monkeypatch, threads):
    """Kernels are shared out where there are fewer blocks of tiles than threads."""
    monkeypatch.setattr(winograd, "get_num_threads", lambda: threads)
    monkeypatch.setattr(winograd_gradient, "get_num_threads", lambda: threads)
    test_convolution("several blocks of channels and kernels", "float32")
    test_gradients("several blocks of channels and kernels", "float32")
