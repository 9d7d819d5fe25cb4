"""Scale against NumPy's broadcasting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite import gradient_check
from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase
from tests.layers.test_bias import spread


class TestLearned(LayerCase):
    layer = {
        "channels": 'type: "Scale"',
        "bias": 'type: "Scale" scale_param { bias_term: true }',
        "two axes": 'type: "Scale" scale_param { axis: 1 num_axes: 2 bias_term: true }',
        "to the end": 'type: "Scale" scale_param { axis: -2 num_axes: -1 bias_term: true }',
        "a number": 'type: "Scale" scale_param { num_axes: 0 bias_term: true }',
        "from axis 0": 'type: "Scale" scale_param { axis: 0 num_axes: -1 }',
    }
    golden = ["scale_bias", "inplace_chain"]
    doubles = False  # where s covers axis 0, the batch is fixed

    def bottoms(self, rng):
        return {"random": [rng.normal(size=(2, 3, 4, 5))]}

    def expected(self, x):
        y = x * spread(self.weights[0], x, self.param.scale_param.axis)
        return y + spread(self.weights[1], x, self.param.scale_param.axis) if len(self.weights) == 2 else y


class TestTwoBottoms(LayerCase):
    layer = {
        "channels": 'type: "Scale"',
        "bias": 'type: "Scale" scale_param { axis: -1 bias_term: true }',
    }
    doubles = False

    def bottoms(self, rng):
        return {
            "random": [rng.normal(size=(4, 3, 3)), rng.normal(size=3)],
            "a number": [rng.normal(size=(2, 3)), np.array(rng.normal())],
            "no images": [np.zeros((0, 3, 3)), rng.normal(size=3)],
        }

    def expected(self, x, s):
        p = self.param.scale_param
        return x * spread(s, x, p.axis) + (spread(self.weights[0], x, p.axis) if p.bias_term else 0)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.booleans(), st.data())
@settings(max_examples=25, deadline=None)
def test_gradient_over_any_axes(shape, bias, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    count = data.draw(st.integers(0, len(shape) - axis))
    case = LayerCase()
    case.layer = f'type: "Scale" scale_param {{ axis: {axis} bias_term: {str(bias).lower()} }}'
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape), rng.normal(size=shape[axis : axis + count])]
    layer, bottoms, tops = case.build(CPU, arrays)
    for row in gradient_check.check_layer(layer, bottoms, tops):
        assert row.error <= gradient_check.TOLERANCE, str(row)


def test_fillers(device):
    case = LayerCase()
    case.fill_params = lambda blobs, rng: None
    for param, want in {
        "bias_term: true": [[1, 1, 1], [0, 0, 0]],
        "bias_term: true filler { value: 3 } bias_filler { value: 4 }": [[3, 3, 3], [4, 4, 4]],
        "filler {}": [[0, 0, 0]],  # a filler that says nothing is the constant 0
    }.items():
        case.layer = f'type: "Scale" scale_param {{ {param} }}'
        layer, _, _ = case.build(device, [np.ones((2, 3))])
        assert [device.to_host(b.data).tolist() for b in layer.blobs] == want


def test_in_place_with_a_scale_that_is_not_learned(device):
    case = LayerCase()
    case.layer = 'type: "Scale" scale_param { bias_term: true }'
    layer, bottoms, tops = case.build(device, [np.ones((2, 3))], in_place=True)
    for blob in layer.blobs:
        blob.diff[...] = 0
    layer.param_propagate_down = [False, True]
    layer.forward(bottoms, tops)
    tops[0].diff[...] = 1
    layer.backward(tops, [True], bottoms)
    np.testing.assert_array_equal(device.to_host(bottoms[0].diff), [case.weights[0]] * 2)
    assert not device.to_host(layer.blobs[0].diff).any()
    assert device.to_host(layer.blobs[1].diff).tolist() == [2, 2, 2]


def test_in_place_with_two_bottoms(device):
    case = LayerCase()
    case.layer = 'type: "Scale"'
    layer, bottoms, tops = case.build(device, [np.array([[2.0, 3.0]]), np.array([5.0, 7.0])], in_place=True)
    layer.forward(bottoms, tops)
    tops[0].diff[...] = 10
    layer.backward(tops, [True, True], bottoms)
    assert device.to_host(bottoms[0].diff).tolist() == [[50, 70]]
    assert device.to_host(bottoms[1].diff).tolist() == [20, 30]


@pytest.mark.parametrize(
    ("param", "bottoms", "error", "message"),
    [
        ("axis: -3", [(2, 3)], ShapeError, r"layer 'layer' \(Scale\): axis -3 is outside \[-2, 2\).*\(2, 3\)"),
        ("num_axes: -2", [(2, 3)], NetError, "num_axes must be >= 0, or -1 .* got -2"),
        ("num_axes: 3", [(2, 3, 4)], ShapeError, r"axis 1 and num_axes 3 reach past the 3 axes"),
        ("", [(2, 3), (2,)], ShapeError, r"scale must have the shape \(3,\) of axes \[1, 2\) .*got \(2,\)"),
    ],
)
def test_wrong_parameters(device, param, bottoms, error, message):
    case = LayerCase()
    case.layer = f'type: "Scale" scale_param {{ {param} }}'
    with pytest.raises(error, match=message):
        case.build(device, [np.zeros(shape) for shape in bottoms])


def test_the_bias_keeps_the_shape_that_it_was_made_with(device):
    case = LayerCase()
    case.layer = 'type: "Scale" scale_param { axis: 0 bias_term: true }'
    layer, bottoms, tops = case.build(device, [np.ones((2, 3)), np.ones(2)])
    bottoms[0].reshape(4, 3)
    bottoms[1].reshape(4)
    with pytest.raises(ShapeError, match=r"scale has shape \(4,\), the bias \(2,\)"):
        layer.reshape(bottoms, tops)
