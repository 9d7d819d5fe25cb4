"""im2col, col2im and the products built on them, for 0 to 4 spatial axes, against the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from caffe_lite import im2col
from caffe_lite.device import CPU
from caffe_lite.im2col import Geometry
from tests import convolution_reference as reference

GEOMETRIES = {  # size, kernel, stride, pad, dilation
    "0-D": ((), (), (), (), ()),
    "1-D": ((9,), (3,), (2,), (1,), (1,)),
    "2-D": ((7, 6), (3, 2), (1, 1), (1, 0), (1, 1)),
    "2-D, stride 3, pad 2, dilation 2": ((11, 8), (3, 3), (3, 2), (2, 2), (1, 2)),
    "kernel of the padded size": ((3, 4), (5, 6), (1, 1), (1, 1), (1, 1)),
    "pad wider than the image": ((1, 2), (2, 2), (1, 1), (4, 5), (1, 1)),
    "3-D": ((4, 3, 5), (2, 1, 3), (2, 1, 2), (1, 0, 1), (1, 1, 1)),
    "4-D": ((3, 2, 3, 4), (2, 2, 2, 2), (1, 1, 1, 2), (0, 1, 0, 1), (2, 1, 1, 1)),
}


@pytest.fixture(params=GEOMETRIES)
def geometry(request):
    return Geometry(*GEOMETRIES[request.param])


def columns_by_definition(x, g):
    """(C * taps, N * positions), each number looked up on its own."""
    n, channels = x.shape[:2]
    col = np.zeros((channels, *g.kernel, n, *g.out))
    for at in np.ndindex(col.shape):
        c, tap, image, position = at[0], at[1 : 1 + len(g.size)], at[1 + len(g.size)], at[2 + len(g.size) :]
        where = [o * s - p + t * d for o, s, p, t, d in zip(position, g.stride, g.pad, tap, g.dilation, strict=True)]
        if all(0 <= i < size for i, size in zip(where, g.size, strict=True)):
            col[at] = x[(image, c, *where)]
    return col.reshape(channels * g.taps, -1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_im2col_and_back(geometry, dtype):
    """Any range of positions, through the batch; col2im is the transpose of im2col."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, *geometry.size)).astype(dtype)
    want = columns_by_definition(x[:, 1:], geometry)
    total = want.shape[1]
    for first, last in {(0, total), (total // 3, total), (0, max(1, total // 2)), (total // 2, total // 2 + 1)}:
        col = np.full((want.shape[0], last - first), np.nan, dtype)
        im2col.im2col(x, 1, geometry, first, col)
        np.testing.assert_array_equal(col, want[:, first:last].astype(dtype))
        weights = rng.normal(size=col.shape).astype(dtype)
        back = np.ones_like(x)
        im2col.col2im(weights, first, geometry, back, 1)
        assert (back[:, 0] == 1).all()
        assert ((back - 1) * x).sum() == pytest.approx((weights * col).sum(), rel=1e-3 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("tile_bytes", [im2col.TILE_BYTES, 1])  # whole, and 64 positions at a time
def test_products(geometry, monkeypatch, tile_bytes):
    monkeypatch.setattr(im2col, "TILE_BYTES", tile_bytes)
    rng = np.random.default_rng(1)
    sizes = geometry.stride, geometry.pad, geometry.dilation
    x, w = rng.normal(size=(5, 2, *geometry.size)), rng.normal(size=(4, 2, *geometry.kernel))
    bias = rng.normal(size=4)
    want = reference.convolve(x, w, *sizes)
    y = np.empty((5, 4, *geometry.out))
    im2col.forward(x, 0, w.reshape(4, -1), bias, y, 0, geometry, CPU, clip=True)
    np.testing.assert_allclose(y, np.maximum(want + bias.reshape(-1, *[1] * len(geometry.size)), 0), atol=1e-12)
    im2col.forward(x, 0, w.reshape(4, -1), None, y, 0, geometry, CPU)
    np.testing.assert_allclose(y, want, atol=1e-12)

    dy = rng.normal(size=y.shape)
    want_dx, want_dw = reference.gradients(x, w, dy, *sizes)
    dx, dw = np.full(x.shape, np.nan), np.full((4, w[0].size), 2.0)
    im2col.data_gradient(dy, 0, w.reshape(4, -1), dx, 0, geometry, CPU)
    im2col.weight_gradient(x, 0, dy, 0, dw, geometry, CPU)
    np.testing.assert_allclose(dx, want_dx, atol=1e-12)
    np.testing.assert_allclose(dw.reshape(w.shape) - 2, want_dw, atol=1e-11)


def test_groups_leave_the_other_channels_alone():
    rng = np.random.default_rng(2)
    g = Geometry((5, 6), (3, 2), (2, 1), (1, 1), (1, 1))
    sizes = g.stride, g.pad, g.dilation
    x, w = rng.normal(size=(2, 7, 5, 6)), rng.normal(size=(3, 4, 3, 2))
    want = reference.convolve(x[:, 2:6], w, *sizes)
    y, dx = np.full((2, 8, *g.out), 9.0), np.full(x.shape, 9.0)
    im2col.forward(x, 2, w.reshape(3, -1), None, y, 4, g, CPU)
    np.testing.assert_allclose(y[:, 4:7], want, atol=1e-12)
    assert (y[:, :4] == 9).all() and (y[:, 7:] == 9).all()
    dy = rng.normal(size=y.shape)
    im2col.data_gradient(dy, 4, w.reshape(3, -1), dx, 2, g, CPU)
    want_dx, want_dw = reference.gradients(x[:, 2:6], w, dy[:, 4:7], *sizes)
    np.testing.assert_allclose(dx[:, 2:6], want_dx, atol=1e-12)
    assert (dx[:, :2] == 9).all() and (dx[:, 6:] == 9).all()
    dw = np.zeros((3, w[0].size))
    im2col.weight_gradient(x, 2, dy, 4, dw, g, CPU)
    np.testing.assert_allclose(dw.reshape(w.shape), want_dw, atol=1e-12)


def test_output_size_is_the_number_of_places_the_kernel_fits():
    for size, kernel, stride, pad, dilation in itertools.product(range(3, 9), (1, 2, 3), (1, 2, 3), (0, 1), (1, 2)):
        reach = dilation * (kernel - 1) + 1
        if reach <= size + 2 * pad:
            places = [i for i in range(-pad, size + pad, stride) if i + reach <= size + pad]
            assert Geometry((size,), (kernel,), (stride,), (pad,), (dilation,)).out == (len(places),)


def test_no_images():
    g = Geometry((4, 4), (3, 3), (1, 1), (0, 0), (1, 1))
    im2col.forward(np.zeros((0, 2, 4, 4)), 0, np.ones((3, 18)), None, np.zeros((0, 3, 2, 2)), 0, g, CPU)
