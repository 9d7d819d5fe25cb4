"""Direct convolution in two dimensions against the definition; stride, dilation, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_lite import direct, direct_gradient
from caffe_lite.device import CPU
from tests import convolution_reference as reference

CASES = {  # N, C, K, H, W, kernel, stride, pad, dilation
    "3x3": (1, 3, 5, 7, 9, (3, 3), (1, 1), (1, 1), (1, 1)),
    "long rows": (1, 2, 3, 5, 300, (3, 3), (1, 1), (1, 1), (1, 1)),
    "11x11 stride 4": (1, 3, 10, 43, 99, (11, 11), (4, 4), (0, 0), (1, 1)),
    "5x3, stride 2, dilated": (2, 7, 13, 13, 12, (5, 3), (2, 2), (2, 0), (1, 2)),
    "stride 2, long rows": (2, 3, 4, 9, 131, (3, 3), (2, 2), (1, 1), (1, 1)),
    "1x1": (3, 30, 10, 7, 5, (1, 1), (1, 1), (0, 0), (1, 1)),
    "small images share blocks": (9, 4, 3, 4, 3, (2, 2), (1, 1), (0, 0), (1, 1)),
    "pad beyond the kernel": (1, 2, 3, 4, 20, (2, 2), (1, 1), (3, 3), (1, 1)),
    "several blocks of taps": (1, 70, 20, 12, 21, (3, 3), (1, 1), (1, 1), (1, 1)),
}


def run(x, w, bias, stride, pad, dilation, clip=False):
    shape = reference.convolve(x[:, :1], w[:, :1], stride, pad, dilation).shape
    y = np.full(shape, np.nan, x.dtype)
    packed = direct.pack_weights(w.reshape(len(w), -1), CPU)
    sizes = (w.shape[2], w.shape[3]), stride, pad, dilation
    direct.convolve(x, 0, x.shape[1], packed, bias, y, 0, len(w), *sizes, CPU, clip)
    return y


def data(case, dtype):
    n, c, k, height, width, kernel, *sizes = CASES[case]
    rng = np.random.default_rng(len(case))
    return rng.normal(size=(n, c, height, width)).astype(dtype), rng.normal(size=(k, c, *kernel)).astype(dtype), sizes


def assert_close(got, want):
    assert np.abs(got - want).max() <= {"float32": 2e-6, "float64": 1e-14}[got.dtype.name] * np.abs(want).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_convolution(case, dtype):
    x, w, sizes = data(case, dtype)
    bias = np.arange(len(w), dtype=dtype)
    want = reference.convolve(x, w, *sizes) + bias[:, None, None]
    assert_close(run(x, w, bias, *sizes), want)
    assert_close(run(x, w, bias, *sizes, clip=True), np.maximum(want, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_weight_gradient(case, dtype, monkeypatch):
    x, w, sizes = data(case, dtype)
    dy = np.random.default_rng(3).normal(size=reference.convolve(x, w, *sizes).shape).astype(dtype)
    want = reference.gradients(x, w, dy, *sizes)[1]
    for limit in (direct_gradient.STRETCH_BYTES, 1):  # all pixels at once, 64 at a time
        monkeypatch.setattr(direct_gradient, "STRETCH_BYTES", limit)
        dw = np.ones((len(w), w[0].size), dtype)
        direct_gradient.weight_gradient(x, 0, dy, 0, dw, (w.shape[2], w.shape[3]), *sizes, CPU)
        assert (
            np.abs(dw.reshape(w.shape) - 1 - want).max() <= (1e-5 if dtype == "float32" else 1e-13) * np.abs(want).max()
        )


def test_groups_leave_the_other_channels_alone():
    x, w, sizes = data("5x3, stride 2, dilated", "float64")
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(2, 20, 13, 12))
    wide[:, 4:11] = x
    want = reference.convolve(x, w, *sizes)
    y = np.full((2, 40, *want.shape[2:]), 9.0)
    packed = direct.pack_weights(w.reshape(13, -1), CPU)
    direct.convolve(wide, 4, 7, packed, None, y, 11, 13, (5, 3), *sizes, CPU)
    assert_close(y[:, 11:24], want)
    assert (y[:, :11] == 9).all() and (y[:, 24:] == 9).all()
    dy, dw = rng.normal(size=y.shape), np.zeros((13, w[0].size))
    direct_gradient.weight_gradient(wide, 4, dy, 11, dw, (5, 3), *sizes, CPU)
    assert_close(dw.reshape(w.shape), reference.gradients(x, w, dy[:, 11:24], *sizes)[1])


def test_number_of_threads_changes_nothing(monkeypatch):
    x, w, sizes = data("several blocks of taps", "float32")

    def everything():
        y, dw = run(x, w, None, *sizes), np.zeros((len(w), w[0].size), x.dtype)
        direct_gradient.weight_gradient(x, 0, y, 0, dw, (3, 3), *sizes, CPU)
        return np.concatenate([y.ravel(), dw.ravel()])

    want = everything()
    for threads in (1, 3, 64):
        for module in (direct, direct_gradient):
            monkeypatch.setattr(module, "get_num_threads", lambda threads=threads: threads)
        np.testing.assert_array_equal(everything(), want)
