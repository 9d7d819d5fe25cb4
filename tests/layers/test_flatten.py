"""Flatten: the same memory in another shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


class TestFlatten(LayerCase):
    layer = {
        f"{axis} to {end}": f'type: "Flatten" flatten_param {{ axis: {axis} end_axis: {end} }}'
        for axis, end in ((1, -1), (0, 1), (-2, -1), (2, 2), (0, -1))
    }
    golden = ["flatten"]
    exact = True
    test_propagate_down = None  # the gradients share their memory: there is nothing to leave untouched

    def bottoms(self, rng):
        return {"random": [rng.normal(size=(2, 3, 4, 5))], "no elements": [np.zeros((0, 3, 4))]}

    def expected(self, x):
        p = self.param.flatten_param
        first, last = p.axis % x.ndim, p.end_axis % x.ndim
        flat = int(np.prod(x.shape[first : last + 1]))
        return x.reshape(*x.shape[:first], flat, *x.shape[last + 1 :])


def test_nothing_is_copied(device):
    case = LayerCase()
    case.layer = 'type: "Flatten"'
    layer, (bottom,), (top,) = case.build(device, [np.zeros((2, 3, 4))])
    for shape in ((2, 3, 4), (50, 3, 4), (2, 3, 4)):  # the bottom's memory grows
        bottom.reshape(shape)
        layer.reshape([bottom], [top])
        bottom.data[...] = 1
        bottom.diff[...] = 2
        assert top.shape == (shape[0], 12)
        assert (top.data == 1).all() and (top.diff == 2).all()
        top.data[...] = 3
        top.diff[...] = 4
        assert (bottom.data == 3).all() and (bottom.diff == 4).all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.data())
@settings(max_examples=25, deadline=None)
def test_any_axes(shape, data):
    first = data.draw(st.integers(0, len(shape) - 1))
    last = data.draw(st.integers(first, len(shape) - 1))
    case = LayerCase()
    case.layer = f'type: "Flatten" flatten_param {{ axis: {first - len(shape)} end_axis: {last} }}'
    _, (bottom,), (top,) = case.build(CPU, [np.zeros(shape)])
    assert top.shape[:first] == tuple(shape[:first]) and top.shape[first + 1 :] == tuple(shape[last + 1 :])
    assert top.count == bottom.count


@pytest.mark.parametrize(
    ("param", "error", "message"),
    [
        ("axis: 3", ShapeError, r"layer 'layer' \(Flatten\): axis 3 is outside \[-3, 3\).*\(2, 3, 4\)"),
        ("end_axis: -4", ShapeError, r"axis -4 is outside \[-3, 3\)"),
        ("axis: 2 end_axis: 1", ShapeError, r"axis 2 must not come after end_axis 1: 2 > 1 for shape \(2, 3, 4\)"),
        ("axis: -1 end_axis: 0", ShapeError, "axis -1 must not come after end_axis 0: 2 > 0"),
    ],
)
def test_wrong_parameters(device, param, error, message):
    case = LayerCase()
    case.layer = f'type: "Flatten" flatten_param {{ {param} }}'
    with pytest.raises(error, match=message):
        case.build(device, [np.zeros((2, 3, 4))])


@pytest.mark.parametrize("layer", ["Flatten", "Reshape"])
def test_not_in_place(device, layer):
    case = LayerCase()
    case.layer = f'type: "{layer}"'
    with pytest.raises(NetError, match=rf"\({layer}\): cannot run in place: give the top a name of its own"):
        case.build(device, [np.zeros((2, 3))], in_place=True)
