"""The data gradient of convolutions against the definition: strides, gaps, crops, dilations, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_lite import folding
from caffe_lite.device import CPU
from caffe_lite.im2col import Geometry
from tests import convolution_reference as reference

CASES = {  # N, C, K, (H, W), kernel, stride, pad, dilation
    "4x4 stride 2": (2, 8, 5, (10, 12), (4, 4), (2, 2), (1, 1), (1, 1)),
    "pixels that no tap meets": (1, 3, 4, (9, 11), (2, 1), (3, 2), (0, 0), (1, 1)),
    "rows and columns beyond the last kernel": (1, 2, 3, (12, 13), (3, 3), (4, 3), (0, 1), (1, 1)),
    "pad larger than the kernel": (1, 2, 2, (6, 7), (2, 2), (2, 2), (3, 4), (1, 1)),
    "dilation and stride share a factor": (1, 9, 3, (17, 15), (3, 3), (4, 2), (2, 1), (2, 4)),
    "dilation prime to the stride": (1, 4, 3, (16, 14), (3, 2), (3, 2), (1, 0), (2, 3)),
    "stride beyond the image": (1, 2, 2, (3, 3), (3, 3), (5, 5), (0, 0), (1, 1)),
    "stride 1": (3, 5, 4, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
    "stride 1, pad beyond the kernel": (1, 2, 3, (4, 20), (2, 2), (1, 1), (3, 3), (1, 1)),
    "stride 1, dilated": (2, 3, 9, (11, 18), (3, 3), (1, 1), (0, 2), (2, 3)),
    "one row longer than a block": (1, 2, 3, (3, 2 * folding.BLOCK_PIXELS + 37), (2, 3), (1, 1), (0, 1), (1, 1)),
    "several blocks of kernels": (1, 2, folding.BLOCK_KERNELS + 3, (6, 5), (3, 3), (1, 1), (1, 1), (1, 1)),
    "several chunks of channels": (1, 40, 3, (8, 9), (5, 5), (2, 2), (2, 2), (1, 1)),
    "one channel in bands": (1, 1, 2, (61, 9), (3, 3), (1, 1), (1, 1), (1, 1)),
    "another stride for each axis": (2, 17, 3, (7, 20), (3, 5), (1, 3), (1, 2), (1, 1)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_data_gradient(case, dtype):
    n, c, k, size, kernel, *sizes = CASES[case]
    rng = np.random.default_rng(len(case))
    x, w = rng.normal(size=(n, c, *size)), rng.normal(size=(k, c, *kernel))
    dy = rng.normal(size=reference.convolve(x, w, *sizes).shape)
    want = reference.gradients(x, w, dy, *sizes)[0]
    x, w, dy = (a.astype(dtype) for a in (x, w, dy))
    dx = np.full((n, c + 2, *size), np.nan, dtype)  # channels on both sides that are another group's
    spread = np.concatenate([np.full_like(dy[:, :1], np.nan), dy], axis=1)
    folding.data_gradient(spread, 1, w, dx, 1, Geometry(size, kernel, *sizes), CPU)
    tolerance = {"float32": 2e-6, "float64": 1e-14}[dtype]
    assert np.abs(dx[:, 1:-1] - want).max() <= tolerance * np.abs(want).max()
    assert np.isnan(dx[:, [0, -1]]).all()


@pytest.mark.parametrize("case", CASES)
def test_result_does_not_depend_on_the_threads(case, monkeypatch):
    n, c, k, size, kernel, *sizes = CASES[case]
    rng = np.random.default_rng(0)
    w = rng.normal(size=(k, c, *kernel)).astype("f")
    dy = rng.normal(size=reference.convolve(np.zeros((n, c, *size)), w, *sizes).shape).astype("f")
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(folding, "get_num_threads", lambda threads=threads: threads)
        results.append(np.full((n, c, *size), np.nan, "f"))
        folding.data_gradient(dy, 0, w, results[-1], 0, Geometry(size, kernel, *sizes), CPU)
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
