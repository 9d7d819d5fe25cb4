"""Slice against NumPy's split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.blob import Blob
from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


class SliceCase(LayerCase):
    exact = True

    def bottoms(self, rng):
        return {"random": [rng.normal(size=(2, 6, 4, 6))], "no elements": [np.zeros((0, 6, 6, 6))]}

    def expected(self, x):
        p = self.param.slice_param
        axis = p.slice_dim if p.HasField("slice_dim") else p.axis
        return np.split(x, list(p.slice_point) or self.tops, axis=axis)


class TestThreeTops(SliceCase):
    tops = 3
    layer = {
        "equal parts": 'type: "Slice"',
        "points": 'type: "Slice" slice_param { slice_point: 1 slice_point: 4 }',
        "last axis": 'type: "Slice" slice_param { axis: -1 slice_point: 2 slice_point: 5 }',
        "slice_dim": 'type: "Slice" slice_param { slice_dim: 3 }',
        "nothing is left": 'type: "Slice" slice_param { slice_point: 2 slice_point: 6 }',
    }


class TestOfTheBatch(SliceCase):
    tops = 2
    layer = 'type: "Slice" slice_param { axis: 0 }'
    golden = ["slice_points"]


class TestOneTop(SliceCase):
    layer = 'type: "Slice"'
    test_propagate_down = None  # the gradients share their memory: there is nothing to leave untouched


def test_one_top_is_not_a_copy(device):
    case = LayerCase()
    case.layer = 'type: "Slice"'
    layer, (bottom,), (top,) = case.build(device, [np.zeros((2, 3))])
    top.data[...] = 3
    top.diff[...] = 4
    assert (bottom.data == 3).all() and (bottom.diff == 4).all()


def test_a_top_that_nobody_uses_has_no_gradient(device):
    case = LayerCase()
    case.layer, case.tops = 'type: "Slice"', 2
    layer, bottoms, _ = case.build(device, [np.zeros((1, 4))])
    tops = [Blob((), "float64", device) for _ in range(2)]  # whose diffs nobody has asked for
    layer.reshape(bottoms, tops)
    layer.forward(bottoms, tops)
    bottoms[0].diff[...] = 7
    tops[1].diff[...] = 1
    layer.backward(tops, [True], bottoms)
    assert device.to_host(bottoms[0].diff).tolist() == [[0, 0, 1, 1]]
    assert not tops[0].diff_in_use


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@given(sizes, sizes, st.data())
@settings(max_examples=25, deadline=None)
def test_any_points(shape, sizes, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    shape[axis] = sum(sizes)
    points = np.cumsum(sizes)[:-1]
    case = LayerCase()
    case.tops = len(sizes)
    case.layer = f'type: "Slice" slice_param {{ axis: {axis} {" ".join(f"slice_point: {p}" for p in points)} }}'
    x = np.random.default_rng(0).normal(size=shape)
    layer, bottoms, tops = case.build(CPU, [x])
    layer.forward(bottoms, tops)
    for top, want in zip(tops, np.split(x, points, axis=axis), strict=True):
        np.testing.assert_array_equal(top.data, want)
        top.diff[...] = want
    layer.backward(tops, [True], bottoms)
    np.testing.assert_array_equal(bottoms[0].diff, x)


@pytest.mark.parametrize(
    ("param", "tops", "error", "message"),
    [
        ("axis: 2", 2, ShapeError, r"layer 'layer' \(Slice\): axis 2 is outside \[-2, 2\).*\(2, 6\)"),
        ("slice_dim: 2", 2, ShapeError, r"axis 2 is outside \[-2, 2\)"),
        ("axis: 1 slice_dim: 1", 2, NetError, "give axis or slice_dim, not both"),
        ("", 4, ShapeError, r"axis 1 of shape \(2, 6\) does not divide into 4 equal parts"),
        ("slice_point: 2", 3, NetError, r"3 tops need 2 slice_points or none, got \[2\]"),
        ("slice_point: 4 slice_point: 4", 3, NetError, r"slice_points must be > 0 and increase, got \[4, 4\]"),
        ("slice_point: 0", 2, NetError, r"slice_points must be > 0 and increase, got \[0\]"),
        ("slice_point: 7", 2, ShapeError, r"slice_points \[7\] do not fit axis 1 of size 6, bottom of shape \(2, 6\)"),
        ("axis: 0 slice_point: 1 slice_point: 2", 3, ShapeError, "do not fit axis 0 of size 2"),
    ],
)
def test_wrong_parameters(device, param, tops, error, message):
    case = LayerCase()
    case.layer, case.tops = f'type: "Slice" slice_param {{ {param} }}', tops
    with pytest.raises(error, match=message):
        case.build(device, [np.zeros((2, 6))])


def test_not_in_place(device):
    case = LayerCase()
    case.layer = 'type: "Slice"'
    with pytest.raises(NetError, match="cannot run in place"):
        case.build(device, [np.zeros((2, 6))], in_place=True)
