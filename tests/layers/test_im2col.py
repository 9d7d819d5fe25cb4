"""Im2col: every number of the top looked up on its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite.blob import Blob
from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from caffe_lite.im2col import read_sizes
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


class TestIm2col(LayerCase):
    layer = {
        "3x3": 'type: "Im2col" convolution_param { kernel_size: 3 stride: 2 pad: 1 }',
        "dilation": 'type: "Im2col" convolution_param { kernel_size: 2 dilation: 2 pad: 2 }',
        "oblong": """type: "Im2col" convolution_param {
            kernel_h: 1 kernel_w: 4 stride_h: 3 stride_w: 1 pad_h: 0 pad_w: 2 }""",
        "as nd": 'type: "Im2col" convolution_param { kernel_size: 3 stride: 2 pad: 1 force_nd_im2col: true }',
        "pointwise": 'type: "Im2col" convolution_param { kernel_size: 1 }',
    }
    exact = True
    golden = ["im2col"]

    def bottoms(self, rng):
        return {"maps": [rng.normal(size=(2, 3, 5, 6))], "no images": [np.zeros((0, 2, 5, 4))]}

    def expected(self, x):
        p = self.param.convolution_param
        axis = p.axis % x.ndim
        size = x.shape[axis + 1 :]
        kernel, stride, pad, dilation = read_sizes(p, len(size), lambda ok, message: None)
        every = list(zip(size, kernel, stride, pad, dilation, strict=True))
        out = [(n + 2 * p - (d * (k - 1) + 1)) // s + 1 for n, k, s, p, d in every]
        y = np.zeros((*x.shape[: axis + 1], *kernel, *out))
        for at in np.ndindex(*y.shape):
            tap, position = at[axis + 1 : axis + 1 + len(size)], at[axis + 1 + len(size) :]
            where = [o * s - p + t * d for o, t, (_, _, s, p, d) in zip(position, tap, every, strict=True)]
            if all(0 <= i < n for i, n in zip(where, size, strict=True)):
                y[at] = x[(*at[: axis + 1], *where)]
        return y.reshape(*x.shape[:axis], -1 if x.size else x.shape[axis] * int(np.prod(kernel)), *out)

    @any_shape(n=st.integers(0, 2), c=st.integers(1, 3), h=st.integers(3, 5), w=st.integers(3, 5))
    def test_any_shape(self, rng, n, c, h, w):
        return [rng.normal(size=(n, c, h, w))]


class TestOtherAxes(LayerCase):
    layer = {
        "last two": 'type: "Im2col" convolution_param { kernel_size: 2 axis: -2 stride: 2 pad: 1 }',
        "last three": 'type: "Im2col" convolution_param { kernel_size: 2 kernel_size: 1 axis: -3 dilation: 2 }',
        "none": 'type: "Im2col" convolution_param { kernel_size: 1 axis: -1 }',
    }
    exact = True
    expected = TestIm2col.expected

    def bottoms(self, rng):
        return {"five axes": [rng.normal(size=(2, 1, 2, 4, 3))]}


@pytest.mark.parametrize(
    ("prototxt", "message"),
    [
        ("", "needs kernel_size"),
        ("kernel_size: 0", "kernel_size must be > 0, got 0 x 0"),
        ("kernel_size: 2 stride: 0", "stride must be > 0"),
        ("kernel_size: 2 kernel_w: 2", "not both"),
        ("kernel_size: 7", r"do not fit a bottom of shape \(1, 2, 4, 5\)"),
        ("kernel_size: 1 axis: 4", "axis 4 is outside"),
    ],
)
def test_bad_parameters(prototxt, message):
    case = LayerCase()
    case.layer = f'type: "Im2col" convolution_param {{ {prototxt} }}'
    with pytest.raises(NetError, match=r"layer 'layer' \(Im2col\): .*" + message):
        case.build(CPU, [np.zeros((1, 2, 4, 5))])


def test_number_of_axes_stays():
    layer, bottom, top = TestIm2col().build(CPU, [np.zeros((1, 2, 4, 5))])
    with pytest.raises(ShapeError, match=r"shape \(1, 2, 4\); the sizes are for 2 spatial axes from axis 2 on"):
        layer.reshape([Blob((1, 2, 4))], top)
    layer.reshape([Blob((1, 7, 9, 9))], top)  # anything else may change
    assert top[0].shape == (1, 63, 5, 5)
