"""The data gradient of strided convolutions against the definition: gaps, crops, dilations, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_lite import phases
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
    phases.data_gradient(spread, 1, w, dx, 1, Geometry(size, kernel, *sizes), CPU)
    tolerance = {"float32": 2e-6, "float64": 1e-14}[dtype]
    assert np.abs(dx[:, 1:-1] - want).max() <= tolerance * np.abs(want).max()
    assert np.isnan(dx[:, [0, -1]]).all()


def test_result_does_not_depend_on_the_threads():
    import numba

    rng = np.random.default_rng(0)
    dy, w = rng.normal(size=(2, 6, 20, 20)).astype("f"), rng.normal(size=(6, 16, 4, 4)).astype("f")
    geometry = Geometry((40, 40), (4, 4), (2, 2), (1, 1), (1, 1))
    results, before = [], numba.get_num_threads()
    for threads in (1, before):
        numba.set_num_threads(threads)
        results.append(np.empty((2, 16, 40, 40), "f"))
        phases.data_gradient(dy, 0, w, results[-1], 0, geometry, CPU)
    assert np.array_equal(*results)
