"""Convolution against its definition, every way to compute it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import gpu_columns
from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.convolution_reference import convolve
from tests.layers.layer_case import LayerCase


def each(values: Any, axes: int, default: int) -> tuple[int, ...]:
    return (tuple(values) * axes)[:axes] if len(values) <= 1 and values else tuple(values) or (default,) * axes


class ConvolutionCase(LayerCase):
    path = ""  # that must be taken on the CPU, if said

    def sizes(self, axes: int) -> tuple[Any, Any, Any]:
        p = self.param.convolution_param
        split = [(p.stride_h, p.stride_w), (p.pad_h, p.pad_w)]
        stride = split[0] if p.HasField("stride_h") else each(p.stride, axes, 1)
        pad = split[1] if p.HasField("pad_h") else each(p.pad, axes, 0)
        return stride, pad, each(p.dilation, axes, 1)

    def expected(self, *bottoms):
        p = self.param.convolution_param
        axes = bottoms[0].ndim - p.axis - 1
        tops = []
        for x in bottoms:
            channels = np.split(x.reshape(-1, *x.shape[p.axis :]), p.group, axis=1)
            kernels = np.split(self.weights[0], p.group)
            groups = zip(channels, kernels, strict=True)
            y = np.concatenate([convolve(c, k, *self.sizes(axes)) for c, k in groups], axis=1)
            if p.bias_term:
                y += self.weights[1].reshape(-1, *[1] * axes)
            tops.append(y.reshape(*x.shape[: p.axis], *y.shape[1:]))
        return tuple(tops)

    def test_path(self, variant):
        layer, _, _ = self.build(CPU, next(iter(self._cases().values())), variant)
        assert not self.path or layer.path == self.path, layer.reason


class TestSmall(ConvolutionCase):
    layer = {
        "3x3": 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 }',
        "group, stride": 'type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 stride: 2 group: 2 }',
        "dilation, no bias": """type: "Convolution"
            convolution_param { num_output: 2 kernel_size: 2 dilation: 3 pad: 2 bias_term: false }""",
        "h and w": """type: "Convolution" convolution_param {
            num_output: 3 kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1 pad_h: 0 pad_w: 2 }""",
        "1x1": 'type: "Convolution" convolution_param { num_output: 5 kernel_size: 1 }',
        "whole image": 'type: "Convolution" convolution_param { num_output: 2 kernel_size: 7 kernel_size: 6 }',
        "plain": 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 engine: CAFFE }',
        "as nd": """type: "Convolution"
            convolution_param { num_output: 4 kernel_size: 3 stride: 2 force_nd_im2col: true }""",
    }
    path = "im2col"
    golden = ["conv_3x3_pad1", "conv_5x5_stride2_group2", "conv_dilation2_nobias"]

    def bottoms(self, rng):
        return {"odd": [rng.normal(size=(1, 4, 7, 6))], "two images": [rng.normal(size=(2, 4, 8, 9))]}


class TestOtherAxes(ConvolutionCase):
    path = "im2col"
    layer = 'type: "Convolution" convolution_param { num_output: 3 kernel_size: 2 pad: 1 stride: 2 dilation: 2 }'

    def bottoms(self, rng):
        shapes = {"1-D": (3, 2, 9), "3-D": (2, 2, 4, 5, 3), "4-D": (1, 1, 3, 3, 3, 4)}
        return {name: [rng.normal(size=shape)] for name, shape in shapes.items()}


class TestNoSpatialAxis(ConvolutionCase):
    layer = 'type: "Convolution" convolution_param { num_output: 4 group: 2 kernel_size: 1 axis: -1 }'

    def bottoms(self, rng):
        return {"vectors": [rng.normal(size=(5, 6))], "two axes before": [rng.normal(size=(2, 3, 4))]}

    def expected(self, x):
        w = self.weights[0].reshape(2, 2, -1)
        halves = x.reshape(*x.shape[:-1], 2, -1)
        return np.einsum("...gc,gkc->...gk", halves, w).reshape(*x.shape[:-1], 4) + self.weights[1]


class TestLaterAxis(ConvolutionCase):
    layer = 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 2 axis: 2 }'

    def bottoms(self, rng):
        return {"axes before the channels": [rng.normal(size=(2, 3, 2, 4, 5))]}


class TestTwoBottoms(ConvolutionCase):
    layer = 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 }'
    tops = 2

    def bottoms(self, rng):
        return {"same weights": [rng.normal(size=(2, 2, 4, 5)), rng.normal(size=(2, 2, 4, 5))]}


class TestDirect(ConvolutionCase):
    """Two-dimensional, more than 64 output pixels."""

    path = "direct"
    layer = {
        "5x5": 'type: "Convolution" convolution_param { num_output: 9 kernel_size: 5 pad: 2 }',
        "pad over kernel": 'type: "Convolution" convolution_param { num_output: 3 kernel_size: 2 pad: 3 }',
        "stride 4": """type: "Convolution"
            convolution_param { num_output: 3 kernel_size: 4 kernel_size: 7 stride: 1 stride: 4 }""",
        "stride 2, group": """type: "Convolution"
            convolution_param { num_output: 4 group: 2 kernel_size: 3 stride: 2 pad: 1 }""",
        "stride 3": 'type: "Convolution" convolution_param { num_output: 3 kernel_size: 3 stride: 2 stride: 3 }',
        "dilation, no bias": """type: "Convolution" convolution_param {
            num_output: 3 kernel_size: 3 dilation: 2 pad: 1 bias_term: false engine: CUDNN }""",
        "1x1": 'type: "Convolution" convolution_param { num_output: 3 kernel_size: 1 }',
        "1x1, stride": 'type: "Convolution" convolution_param { num_output: 3 kernel_size: 1 stride: 2 pad: 1 }',
    }

    def bottoms(self, rng):
        return {"images": [rng.normal(size=(3, 4, 13, 37))]}


class TestWinograd(ConvolutionCase):
    path = "winograd"
    layer = {
        "pad 1": 'type: "Convolution" convolution_param { num_output: 17 kernel_size: 3 pad: 1 }',
        "pad 0, group": """type: "Convolution"
            convolution_param { num_output: 16 group: 2 kernel_size: 3 bias_term: false }""",
        "pad 2 and 3": 'type: "Convolution" convolution_param { num_output: 9 kernel_size: 3 pad: 2 pad: 3 }',
    }

    no_gradient = ("low",)

    def bottoms(self, rng):
        return {"images": [rng.normal(size=(2, 18, 15, 17))], "low": [rng.normal(size=(3, 20, 6, 47))]}


def layer_of(prototxt: str, *shape: int, device=CPU, dtype="float32"):
    case = ConvolutionCase()
    case.layer = f'type: "Convolution" convolution_param {{ {prototxt} }}'
    return case.build(device, [np.random.default_rng(0).normal(size=shape)], dtype=dtype)


@pytest.mark.parametrize("path", ["winograd", "direct", "im2col"])
def test_fused_relu_is_a_relu_and_keeps_nan(device, path):
    engine = "engine: CAFFE" if path == "im2col" else ""
    size = 5 if path == "direct" else 3
    layer, bottom, top = layer_of(f"num_output: 8 kernel_size: {size} pad: 1 {engine}", 1, 8, 25, 26, device=device)
    assert device.is_gpu or layer.path == path
    bottom[0].data[0, 0, 3, 3] = np.nan
    layer.forward(bottom, top)
    plain = device.to_host(top[0].data).copy()
    layer.fused_relu = True
    layer.forward(bottom, top)
    fused = device.to_host(top[0].data)
    assert np.isnan(fused).any()
    np.testing.assert_array_equal(fused, np.where(plain < 0, 0, plain))


def test_weights_written_through_an_alias_count():
    layer, bottom, top = layer_of("num_output: 8 kernel_size: 3 pad: 1 bias_term: false", 1, 8, 25, 26)
    alias = layer.blobs[0].data
    layer.forward(bottom, top)
    assert np.abs(top[0].data).max() > 1
    alias[...] = 0
    layer.forward(bottom, top)
    assert not top[0].data.any()


def test_gpu_takes_a_large_column_matrix_in_pieces(device, monkeypatch):
    prototxt = "num_output: 3 kernel_size: 3 stride: 2 pad: 1"
    results = []
    for limit in (1 << 20, 2 * 9 * 7):  # seven positions at a time
        monkeypatch.setattr(gpu_columns, "LIMIT", limit)
        layer, bottom, top = layer_of(prototxt, 2, 2, 9, 8, device=device, dtype="float64")
        layer.forward(bottom, top)
        top[0].diff[...] = top[0].data
        layer.backward(top, [True], bottom)
        results.append([device.to_host(a).copy() for a in (top[0].data, bottom[0].diff, layer.blobs[0].diff)])
    for whole, pieces in zip(*results, strict=True):
        np.testing.assert_allclose(pieces, whole, rtol=1e-12, atol=1e-12)


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
        ("num_output: 4 kernel_size: 0", "kernel_size must be > 0, got 0 x 0"),
        ("num_output: 4 kernel_size: 3 stride: 0", "stride must be > 0, got 0 x 0"),
        ("num_output: 4 kernel_size: 3 dilation: 0", "dilation must be > 0"),
        ("num_output: 4 kernel_size: 3 kernel_h: 3", "give kernel_size, or kernel_h and kernel_w, not both"),
        ("num_output: 4 kernel_h: 3", "kernel_size must be > 0, got 3 x 0"),
        ("num_output: 4 kernel_size: 3 pad: 1 pad_w: 1", "give pad, or pad_h and pad_w, not both"),
        (
            "num_output: 4 kernel_size: 3 stride: 1 stride: 1 stride: 1",
            "each of the 2 spatial axes; it is there 3 times",
        ),
        ("num_output: 4 kernel_size: 3 group: 3", "group 3 does not divide the channels of the bottom, 4"),
        ("num_output: 5 kernel_size: 3 group: 2", "group 2 does not divide the num_output, 5"),
        ("num_output: 5 kernel_size: 3 group: 0", "group must be > 0"),
        ("num_output: 4 kernel_size: 7", "do not fit a bottom of shape"),
        ("num_output: 4 kernel_size: 3 dilation: 3", "do not fit a bottom of shape"),
        ("num_output: 4 kernel_size: 3 axis: 4", "axis 4 is outside"),
    ],
)
def test_bad_parameters(prototxt, message):
    with pytest.raises(NetError, match=".*layer 'layer'.*" + message.replace("(", r"\(")):
        layer_of(prototxt, 1, 4, 6, 6)


def test_split_sizes_are_for_two_axes():
    with pytest.raises(NetError, match="kernel_h and kernel_w are for 2 spatial axes; the bottom has 1"):
        layer_of("num_output: 4 kernel_h: 1 kernel_w: 1", 1, 4, 6)


def test_bad_shapes():
    with pytest.raises(ShapeError, match=r"bottom has no channels: it has shape \(1, 0, 6, 6\)"):
        layer_of("num_output: 4 kernel_size: 3", 1, 0, 6, 6)
    layer, bottom, top = layer_of("num_output: 4 kernel_size: 3", 1, 4, 6, 6)
    other = caffe_lite.Blob((1, 4, 6, 7))
    with pytest.raises(ShapeError, match=r"bottom\[1\] has \(1, 4, 6, 7\), bottom\[0\] \(1, 4, 6, 6\)"):
        layer.reshape([bottom[0], other], [top[0], caffe_lite.Blob()])
    for shape in ((1, 3, 6, 6), (1, 4, 6), (1, 4, 6, 6, 6)):
        with pytest.raises(ShapeError, match="the weights are for 4 channels on axis 1 and 2 spatial axes"):
            layer.reshape([caffe_lite.Blob(shape)], top)


def test_preloaded_parameters_are_checked():
    case = TestSmall()
    layer, bottom, top = case.build(CPU, [np.zeros((1, 4, 7, 6))], "3x3")
    layer.blobs.clear()
    layer.preloaded = [np.zeros((4, 4, 3, 3))]
    with pytest.raises(NetError, match="carries 1 parameter blob.s.; the layer has 2"):
        layer.setup(bottom, top)
    layer.preloaded = [np.zeros((4, 4, 3, 2)), np.zeros(4)]
    with pytest.raises(ShapeError, match=r"\(4, 4, 3, 2\)"):
        layer.setup(bottom, top)


def test_empty_batch(device):
    layer, bottom, top = layer_of("num_output: 4 kernel_size: 3", 0, 4, 6, 6, device=device)
    layer.forward(bottom, top)
    layer.backward(top, [True], bottom)
    assert top[0].shape == (0, 4, 4, 4)
    assert not device.to_host(layer.blobs[1].diff).any()
