"""Bias against NumPy's broadcasting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


def spread(b, x, axis):
    """``b`` with axes of size 1 added so that NumPy broadcasts it over x from ``axis`` on."""
    axis = axis % x.ndim if b.ndim else 0
    return b.reshape(b.shape + (1,) * (x.ndim - axis - b.ndim))


class TestLearned(LayerCase):
    layer = {
        "channels": 'type: "Bias"',
        "two axes": 'type: "Bias" bias_param { axis: 1 num_axes: 2 }',
        "to the end": 'type: "Bias" bias_param { axis: -2 num_axes: -1 }',
        "a number": 'type: "Bias" bias_param { num_axes: 0 }',
        "from axis 0": 'type: "Bias" bias_param { axis: 0 num_axes: 2 }',
    }
    exact = True
    doubles = False  # where b covers axis 0, the batch is fixed

    def bottoms(self, rng):
        return {"random": [rng.normal(size=(2, 3, 4, 5))], "no columns": [np.zeros((2, 3, 4, 0))]}

    def expected(self, x):
        dtype = "float64" if (x != x.astype("float32")).any() else "float32"  # one rounded sum, as in the net
        return x.astype(dtype) + spread(self.weights[0], x, self.param.bias_param.axis).astype(dtype)


class TestTwoBottoms(LayerCase):
    layer = {
        "channels": 'type: "Bias"',
        "last axis": 'type: "Bias" bias_param { axis: -1 }',
    }
    doubles = False

    def bottoms(self, rng):
        return {"random": [rng.normal(size=(4, 3, 3)), rng.normal(size=3)]}

    def expected(self, x, b):
        return x + spread(b, x, self.param.bias_param.axis)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
@settings(max_examples=25, deadline=None)
def test_any_axes(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    count = data.draw(st.integers(0, len(shape) - axis))
    case = LayerCase()
    case.layer = f'type: "Bias" bias_param {{ axis: {axis - len(shape)} }}'
    rng = np.random.default_rng(0)
    x, b, dy = rng.normal(size=shape), rng.normal(size=shape[axis : axis + count]), rng.normal(size=shape)
    layer, bottoms, tops = case.build(CPU, [x, b])
    layer.forward(bottoms, tops)
    np.testing.assert_array_equal(tops[0].data, x + spread(b, x, axis))
    tops[0].diff[...] = dy
    layer.backward(tops, [True, True], bottoms)
    np.testing.assert_array_equal(bottoms[0].diff, dy)
    others = tuple(i for i in range(len(shape)) if not axis <= i < axis + count)
    np.testing.assert_allclose(bottoms[1].diff, dy.sum(axis=others), atol=1e-12)


@pytest.mark.parametrize(("layer", "want"), [("Bias", [4, 5]), ("Scale", [3, 6])])
def test_a_number_fits_whatever_the_axis(device, layer, want):
    case = LayerCase()
    case.layer = f'type: "{layer}" {layer.lower()}_param {{ axis: 7 }}'
    layer, bottoms, tops = case.build(device, [np.array([1.0, 2.0]), np.array(3.0)])
    layer.forward(bottoms, tops)
    assert device.to_host(tops[0].data).tolist() == want


def test_filler(device):
    case = LayerCase()
    case.layer = 'type: "Bias" bias_param { filler { value: 3 } }'
    case.fill_params = lambda blobs, rng: None
    layer, bottoms, tops = case.build(device, [np.ones((2, 3))])
    assert device.to_host(layer.blobs[0].data).tolist() == [3, 3, 3]
    case.layer = 'type: "Bias"'
    layer, bottoms, tops = case.build(device, [np.ones((2, 3))])
    assert device.to_host(layer.blobs[0].data).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("param", "bottoms", "error", "message"),
    [
        ("axis: 4", [(2, 3)], ShapeError, r"layer 'layer' \(Bias\): axis 4 is outside \[-2, 2\).*\(2, 3\)"),
        ("num_axes: -2", [(2, 3)], NetError, "num_axes must be >= 0, or -1 .* got -2"),
        ("num_axes: 2", [(2, 3)], ShapeError, r"axis 1 and num_axes 2 reach past the 2 axes of bottom 0.*\(2, 3\)"),
        ("", [(2, 3), (4,)], ShapeError, r"bias must have the shape \(3,\) of axes \[1, 2\) .*got \(4,\)"),
        ("", [(2, 3), (3, 1)], ShapeError, r"bias must have the shape \(3,\) of axes \[1, 3\) .*got \(3, 1\)"),
    ],
)
def test_wrong_parameters(device, param, bottoms, error, message):
    case = LayerCase()
    case.layer = f'type: "Bias" bias_param {{ {param} }}'
    with pytest.raises(error, match=message):
        case.build(device, [np.zeros(shape) for shape in bottoms])
