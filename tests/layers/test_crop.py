"""Crop against NumPy's slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.blob import Blob
from caffe_lite.device import CPU
from caffe_lite.errors import ShapeError
from tests.layers.layer_case import LayerCase


class TestCrop(LayerCase):
    layer = {
        "pixels": 'type: "Crop"',
        "one offset": 'type: "Crop" crop_param { offset: 2 }',
        "offsets": 'type: "Crop" crop_param { axis: 2 offset: 1 offset: 3 }',
        "channels too": 'type: "Crop" crop_param { axis: 1 offset: 1 offset: 2 offset: 0 }',
        "everything": 'type: "Crop" crop_param { axis: 0 }',
        "last axis": 'type: "Crop" crop_param { axis: -1 offset: 3 }',
    }
    golden = ["crop"]
    exact = True
    propagate_down = [True, False]
    doubles = False  # bottom 1 may have another batch

    def bottoms(self, rng):
        return {
            "random": [rng.normal(size=(3, 4, 6, 8)), np.zeros((2, 3, 4, 5))],
            "nothing left": [rng.normal(size=(3, 4, 6, 8)), np.zeros((2, 3, 0, 5))],
        }

    def expected(self, x, size):
        p = self.param.crop_param
        axis = p.axis % 4
        offsets = list(p.offset) or [0]
        offsets = offsets * (4 - axis) if len(offsets) == 1 else offsets
        for i, offset in enumerate(offsets, axis):
            x = x.take(range(offset, offset + size.shape[i]), axis=i)
        return x


def test_the_size_has_no_gradient(device):
    case = LayerCase()
    case.layer = 'type: "Crop" crop_param { axis: 0 }'
    layer, bottoms, tops = case.build(device, [np.ones(3), np.ones(2)])
    bottoms[1] = Blob((2,), "float64", device)  # whose diff nobody has asked for
    layer.forward(bottoms, tops)
    tops[0].diff[...] = 1
    layer.backward(tops, [True, True], bottoms)
    assert device.to_host(bottoms[0].diff).tolist() == [1, 1, 0]
    assert not bottoms[1].diff_in_use
    bottoms[1].diff[...] = 7
    layer.backward(tops, [True, True], bottoms)
    assert device.to_host(bottoms[1].diff).tolist() == [0, 0]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=5), st.data())
@settings(max_examples=25, deadline=None)
def test_any_axes(axes, data):
    """Each axis: what comes before, what is kept, what comes after."""
    axis = data.draw(st.integers(0, len(axes) - 1))
    x = np.random.default_rng(0).normal(size=[sum(a) for a in axes])
    size = np.zeros([a[1] for a in axes])
    case = LayerCase()
    case.layer = f'type: "Crop" crop_param {{ axis: {axis} {" ".join(f"offset: {a[0]}" for a in axes[axis:])} }}'
    layer, bottoms, tops = case.build(CPU, [x, size])
    layer.forward(bottoms, tops)
    part = (slice(None),) * axis + tuple(slice(a[0], a[0] + a[1]) for a in axes[axis:])
    np.testing.assert_array_equal(tops[0].data, x[part])
    dx = np.zeros(x.shape)
    dx[part] = tops[0].diff[...] = np.random.default_rng(1).normal(size=tops[0].shape)
    layer.backward(tops, [True, False], bottoms)
    np.testing.assert_array_equal(bottoms[0].diff, dx)


@pytest.mark.parametrize(
    ("param", "size", "message"),
    [
        ("axis: 3", (2, 3, 4), r"layer 'layer' \(Crop\): axis 3 is outside \[-3, 3\) of a bottom of shape \(2, 3, 5\)"),
        ("axis: 0 offset: 0 offset: 1", (2, 3, 4), r"one for each of the 3 axes from axis 0 on, got \[0, 1\]"),
        ("axis: 2 offset: 2", (2, 3, 4), r"axis 2 of bottom 0, of size 5, has no elements 2 to 5 \(offset 2, size 4"),
        ("axis: 1", (2, 4, 4), "axis 1 of bottom 0, of size 3, has no elements 0 to 3"),
        ("axis: 1", (3, 4), r"bottom 1, of shape \(3, 4\), must have the 3 axes of bottom 0, \(2, 3, 5\)"),
    ],
)
def test_wrong_parameters(device, param, size, message):
    case = LayerCase()
    case.layer = f'type: "Crop" crop_param {{ {param} }}'
    with pytest.raises(ShapeError, match=message):
        case.build(device, [np.zeros((2, 3, 5)), np.zeros(size)])
