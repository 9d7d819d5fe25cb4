"""ArgMax against a sort of (value, index) pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


def largest(x, k):
    """(indices, values) of the k largest of a vector, largest first, the larger index first among equals."""
    order = sorted(range(len(x)), key=lambda i: (np.isnan(x[i]), np.nan_to_num(x[i]), i), reverse=True)
    return order[:k], [x[i] for i in order[:k]]


def arg_max(x, p):
    if p.HasField("axis"):
        return np.apply_along_axis(lambda row: largest(row, p.top_k)[p.out_max_val], p.axis, x).astype(float)
    both = [largest(item, p.top_k) for item in x.reshape(len(x), -1)]
    y = np.array(both if p.out_max_val else [pair[:1] for pair in both], float)
    return y.reshape(len(x), 2 if p.out_max_val else 1, p.top_k, *[1] * (x.ndim - 3))


class TestArgMax(LayerCase):
    layer = {
        f"top {k}{', values' if values else ''}{'' if axis is None else f', axis {axis}'}": 'type: "ArgMax" '
        f"argmax_param {{ top_k: {k} out_max_val: {str(values).lower()} {'' if axis is None else f'axis: {axis}'} }}"
        for k, values, axis in itertools.product((1, 3), (False, True), (None, 1, -1))
    }
    propagate_down = False
    exact = True

    def bottoms(self, rng):
        return {
            "random": [rng.normal(size=(2, 4, 5, 3))],
            "ties": [rng.integers(0, 2, (3, 4, 3)).astype(float)],
            "vectors": [rng.normal(size=(4, 5))],
            "five axes": [rng.normal(size=(2, 3, 1, 2, 3))],
            "infinities and nan": [np.array([[np.nan, np.inf, 1, np.nan], [-np.inf, -np.inf, np.nan, -np.inf]])],
        }

    def expected(self, x):
        return arg_max(x, self.param.argmax_param)


def test_no_items(device):
    case = LayerCase()
    case.layer = 'type: "ArgMax" argmax_param { out_max_val: true }'
    layer, bottoms, tops = case.build(device, [np.zeros((0, 5))])
    layer.forward(bottoms, tops)
    assert tops[0].shape == (0, 2, 1)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.booleans(), st.booleans(), st.data())
@settings(max_examples=30, deadline=None)
def test_any_shape(shape, values, along, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    top_k = data.draw(st.integers(1, shape[axis] if along else int(np.prod(shape[1:]))))
    case = LayerCase()
    case.layer = (
        f'type: "ArgMax" argmax_param {{ top_k: {top_k} out_max_val: {str(values).lower()} '
        f"{f'axis: {axis}' if along else ''} }}"
    )
    x = np.random.default_rng(0).integers(0, 4, shape).astype(float)
    layer, bottoms, tops = case.build(CPU, [x])
    layer.forward(bottoms, tops)
    want = arg_max(x, case.param.argmax_param)
    assert tops[0].shape == want.shape
    np.testing.assert_array_equal(tops[0].data, want)


@pytest.mark.parametrize(
    ("param", "shape", "error", "message"),
    [
        ("top_k: 0", (2, 3), NetError, r"layer 'layer' \(ArgMax\): top_k must be > 0, got 0"),
        ("top_k: 7", (2, 3, 2), ShapeError, r"top_k 7 is more than the 6 values of each item of shape \(2, 3, 2\)"),
        ("top_k: 4 axis: -2", (2, 3, 4), ShapeError, r"top_k 4 is more than the 3 values along axis 1 of shape"),
        ("axis: 2", (2, 3), ShapeError, r"axis 2 is outside \[-2, 2\) of a bottom of shape \(2, 3\)"),
        ("", (), ShapeError, r"at least one axis, got shape \(\)"),
        ("", (2, 0), ShapeError, "top_k 1 is more than the 0 values of each item"),
    ],
)
def test_wrong_parameters(device, param, shape, error, message):
    case = LayerCase()
    case.layer = f'type: "ArgMax" argmax_param {{ {param} }}'
    with pytest.raises(error, match=message):
        case.build(device, [np.zeros(shape)])


def test_there_is_no_gradient(device):
    case = LayerCase()
    case.layer = 'type: "ArgMax"'
    layer, bottoms, tops = case.build(device, [np.zeros((2, 3))])
    layer.forward(bottoms, tops)
    layer.backward(tops, [False], bottoms)
    with pytest.raises(NetError, match="has no gradient: write propagate_down: false"):
        layer.backward(tops, [True], bottoms)
