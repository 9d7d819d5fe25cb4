"""Deconvolution against its definition: every value of the bottom lays its kernel onto the top."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite import gpu_columns
from caffe_lite.blob import Blob
from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from caffe_lite.im2col import read_sizes
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


def deconvolve(x, w, bias, group, kernel, stride, pad, dilation):
    """x (N, C, *in), w (C, K / group, *kernel), bias (K,) or None."""
    size = x.shape[2:]
    full = [s * (n - 1) + d * (k - 1) + 1 for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)]
    c, k = x.shape[1] // group, w.shape[1]
    y = np.zeros((x.shape[0], k * group, *full))
    for channel, tap in itertools.product(range(x.shape[1]), itertools.product(*map(range, kernel))):
        where = [
            slice(t * d, t * d + s * (n - 1) + 1, s) for t, d, s, n in zip(tap, dilation, stride, size, strict=True)
        ]
        laid = x[:, channel, None] * w[(channel, slice(None), *tap)].reshape(-1, *[1] * len(size))
        first = channel // c * k
        y[(slice(None), slice(first, first + k), *where)] += laid
    y = y[(slice(None), slice(None), *(slice(p, n - p) for p, n in zip(pad, full, strict=True)))]
    return y if bias is None else y + bias.reshape(-1, *[1] * len(size))


class DeconvolutionCase(LayerCase):
    path = ""  # that must be taken on the CPU, if said

    def expected(self, *bottoms):
        p = self.param.convolution_param
        bias = self.weights[1] if len(self.weights) == 2 else None
        tops = []
        for x in bottoms:
            flat = x.reshape(-1, *x.shape[p.axis :])
            sizes = read_sizes(p, flat.ndim - 2, lambda ok, message: None)
            y = deconvolve(flat, self.weights[0], bias, p.group, *sizes)
            tops.append(y.reshape(*x.shape[: p.axis], *y.shape[1:]))
        return tuple(tops)

    def test_path(self, variant):
        layer, _, _ = self.build(CPU, next(iter(self._cases().values())), variant)
        assert not self.path or layer.path == self.path, layer.reason


class TestSmall(DeconvolutionCase):
    path = "im2col"
    layer = {
        "4x4": 'type: "Deconvolution" convolution_param { num_output: 3 kernel_size: 4 stride: 2 pad: 1 }',
        "group, no bias": """type: "Deconvolution"
            convolution_param { num_output: 6 kernel_size: 3 stride: 2 group: 2 bias_term: false }""",
        "dilation": 'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 2 dilation: 3 pad: 1 }',
        "h and w": """type: "Deconvolution" convolution_param {
            num_output: 3 kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1 pad_h: 0 pad_w: 2 }""",
        "gaps": 'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 1 stride: 3 }',
        "1x1": 'type: "Deconvolution" convolution_param { num_output: 5 kernel_size: 1 }',
        "plain": 'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 engine: CAFFE }',
        "as nd": """type: "Deconvolution"
            convolution_param { num_output: 4 kernel_size: 3 stride: 2 force_nd_im2col: true }""",
    }
    golden = ["deconv_4x4_s2"]

    def bottoms(self, rng):
        return {"odd": [rng.normal(size=(1, 4, 5, 6))], "two images": [rng.normal(size=(2, 4, 3, 4))]}

    @any_shape(n=st.integers(0, 2), h=st.integers(3, 5), w=st.integers(3, 5))
    def test_any_shape(self, rng, n, h, w):
        return [rng.normal(size=(n, 4, h, w))]


class TestOtherAxes(DeconvolutionCase):
    path = "im2col"
    layer = 'type: "Deconvolution" convolution_param { num_output: 3 kernel_size: 3 pad: 1 stride: 2 dilation: 2 }'

    def bottoms(self, rng):
        return {"1-D": [rng.normal(size=(3, 2, 6))], "3-D": [rng.normal(size=(2, 2, 2, 3, 2))]}


class TestLaterAxis(DeconvolutionCase):
    layer = 'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 2 axis: 2 }'

    def bottoms(self, rng):
        return {"axes before the channels": [rng.normal(size=(2, 3, 2, 3, 4))]}


class TestTwoBottoms(DeconvolutionCase):
    layer = 'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 }'
    tops = 2

    def bottoms(self, rng):
        return {"same weights": [rng.normal(size=(2, 2, 3, 4)), rng.normal(size=(2, 2, 3, 4))]}


class TestDirect(DeconvolutionCase):
    path = "direct"
    layer = {
        "5x5": 'type: "Deconvolution" convolution_param { num_output: 9 kernel_size: 5 pad: 2 }',
        "pad over kernel": 'type: "Deconvolution" convolution_param { num_output: 3 kernel_size: 2 pad: 3 }',
        "stride, group": """type: "Deconvolution"
            convolution_param { num_output: 4 group: 2 kernel_size: 4 stride: 2 pad: 1 }""",
    }

    def bottoms(self, rng):
        return {"images": [rng.normal(size=(2, 4, 9, 21))]}


class TestWinograd(DeconvolutionCase):
    path = "winograd"
    layer = {
        "pad 1": 'type: "Deconvolution" convolution_param { num_output: 17 kernel_size: 3 pad: 1 }',
        "pad 0, group": 'type: "Deconvolution" convolution_param { num_output: 16 group: 2 kernel_size: 3 }',
    }

    def bottoms(self, rng):
        return {"images": [rng.normal(size=(2, 18, 15, 21))]}


def layer_of(prototxt, *shape, device=CPU, dtype="float64"):
    case = DeconvolutionCase()
    case.layer = f'type: "Deconvolution" convolution_param {{ {prototxt} }}'
    return case.build(device, [np.random.default_rng(0).normal(size=shape)], dtype=dtype)


def test_gpu_takes_a_large_column_matrix_in_pieces(device, monkeypatch):
    results = []
    for limit in (1 << 20, 3 * 16 * 7):  # seven positions at a time
        monkeypatch.setattr(gpu_columns, "LIMIT", limit)
        layer, bottom, top = layer_of("num_output: 3 kernel_size: 4 stride: 2 pad: 1", 2, 2, 5, 4, device=device)
        layer.forward(bottom, top)
        top[0].diff[...] = top[0].data
        layer.backward(top, [True], bottom)
        results.append([device.to_host(a).copy() for a in (top[0].data, bottom[0].diff, layer.blobs[0].diff)])
    for whole, pieces in zip(*results, strict=True):
        np.testing.assert_allclose(pieces, whole, rtol=1e-12, atol=1e-12)


def test_bilinear_filler_upsamples(device):
    """Far from the border, twice the size: 3/4 and 1/4 of the two nearest, on each axis."""
    prototxt = """num_output: 2 group: 2 kernel_size: 4 stride: 2 pad: 1 bias_term: false
        weight_filler { type: "bilinear" }"""
    case = DeconvolutionCase()
    case.fill_params = lambda blobs, rng: None
    case.layer = f'type: "Deconvolution" convolution_param {{ {prototxt} }}'
    ramp = np.arange(6.0) + 10 * np.arange(6.0)[:, None] + np.array([0.0, 100.0])[:, None, None]
    layer, bottom, top = case.build(device, [ramp[None]])
    layer.forward(bottom, top)
    fine = (np.arange(12) - 0.5) / 2
    want = fine + 10 * fine[:, None] + np.array([0.0, 100.0])[:, None, None]
    np.testing.assert_allclose(device.to_host(top[0].data)[0, :, 1:-1, 1:-1], want[:, 1:-1, 1:-1], atol=1e-12)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_wanted_parameter_gradients(device, wanted):
    layer, bottom, top = layer_of("num_output: 3 kernel_size: 3", 2, 2, 9, 8, device=device)
    layer.param_propagate_down = list(wanted)
    layer.forward(bottom, top)
    top[0].diff[...] = 1
    layer.backward(top, [True], bottom)
    assert [bool(device.to_host(b.diff).any()) for b in layer.blobs] == list(wanted)


@pytest.mark.parametrize(
    ("prototxt", "message"),
    [
        ("num_output: 4", "needs kernel_size, or kernel_h and kernel_w"),
        ("kernel_size: 3", "num_output must be > 0, got 0"),
        ("num_output: 4 kernel_size: 3 stride: 0", "stride must be > 0, got 0 x 0"),
        ("num_output: 4 kernel_size: 3 group: 3", "group 3 does not divide the channels of the bottom, 4"),
        ("num_output: 5 kernel_size: 3 group: 2", "group 2 does not divide the num_output, 5"),
        ("num_output: 4 kernel_size: 2 pad: 4", r"pad \(4, 4\) do not fit a bottom of shape \(1, 4, 6, 6\)"),
    ],
)
def test_bad_parameters(prototxt, message):
    with pytest.raises(NetError, match=r"layer 'layer' \(Deconvolution\): .*" + message):
        layer_of(prototxt, 1, 4, 6, 6)


def test_bad_shapes():
    with pytest.raises(ShapeError, match=r"bottom has no channels: it has shape \(1, 0, 6, 6\)"):
        layer_of("num_output: 4 kernel_size: 3", 1, 0, 6, 6)
    layer, bottom, top = layer_of("num_output: 6 kernel_size: 3 stride: 2 group: 2", 1, 4, 6, 6)
    assert layer.blobs[0].shape == (4, 3, 3, 3) and layer.blobs[1].shape == (6,) and top[0].shape == (1, 6, 13, 13)
    for shape in ((1, 3, 6, 6), (1, 4, 6)):
        with pytest.raises(ShapeError, match="the weights are for 4 channels on axis 1 and 2 spatial axes"):
            layer.reshape([Blob(shape)], top)
    with pytest.raises(ShapeError, match=r"bottom\[1\] has"):
        layer.reshape([bottom[0], Blob((1, 4, 6, 7))], [top[0], Blob()])
