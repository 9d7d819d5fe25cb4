"""Reduction against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite import gradient_check
from caffe_lite.device import CPU
from caffe_lite.errors import ShapeError
from tests.layers.layer_case import LayerCase


def reduce(x, p):
    axes = tuple(range(p.axis % x.ndim, x.ndim))
    if p.operation == p.SUM:
        return p.coeff * x.sum(axis=axes)
    if p.operation == p.ASUM:
        return p.coeff * np.abs(x).sum(axis=axes)
    if p.operation == p.SUMSQ:
        return p.coeff * (x**2).sum(axis=axes)
    return p.coeff * x.mean(axis=axes)


class TestReduction(LayerCase):
    layer = {
        f"{operation}, axis {axis}, coeff {coeff}": 'type: "Reduction" '
        f"reduction_param {{ operation: {operation} axis: {axis} coeff: {coeff} }}"
        for operation in ("SUM", "ASUM", "SUMSQ", "MEAN")
        for axis, coeff in ((0, 1), (1, -1.5), (-1, 2.5))
    }
    golden = ["reduction_mean"]
    doubles = False  # axis 0 adds up the batch

    def bottoms(self, rng):
        return {"random": [rng.normal(size=(2, 3, 4, 5))], "one axis": [rng.normal(size=(7, 1))]}

    def expected(self, x):
        return reduce(x, self.param.reduction_param)


def test_default(device):
    case = LayerCase()
    case.layer = 'type: "Reduction"'
    layer, bottoms, tops = case.build(device, [np.arange(6.0).reshape(2, 3)])
    layer.forward(bottoms, tops)
    assert tops[0].shape == () and float(tops[0].data) == 15


def test_the_gradient_of_asum_is_0_at_0(device):
    case = LayerCase()
    case.layer = 'type: "Reduction" reduction_param { operation: ASUM coeff: 3 }'
    layer, bottoms, tops = case.build(device, [np.array([-2.0, 0.0, 5.0])])
    layer.forward(bottoms, tops)
    tops[0].diff[...] = 2
    layer.backward(tops, [True], bottoms)
    assert device.to_host(bottoms[0].diff).tolist() == [-6, 0, 6]


@pytest.mark.parametrize(("operation", "want"), [("SUM", 0), ("ASUM", 0), ("SUMSQ", 0), ("MEAN", np.nan)])
def test_of_nothing(device, operation, want):
    case = LayerCase()
    case.layer = f'type: "Reduction" reduction_param {{ operation: {operation} axis: 1 }}'
    layer, bottoms, tops = case.build(device, [np.zeros((2, 0))])
    layer.forward(bottoms, tops)
    np.testing.assert_array_equal(device.to_host(tops[0].data), [want, want])
    layer, bottoms, tops = case.build(device, [np.zeros((0, 2))])
    layer.forward(bottoms, tops)
    assert tops[0].shape == (0,)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.sampled_from(["SUM", "ASUM", "SUMSQ", "MEAN"]),
    st.data(),
)
@settings(max_examples=25, deadline=None)
def test_any_shape(shape, operation, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    case = LayerCase()
    case.layer = f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} }}'
    x = np.random.default_rng(0).normal(size=shape)
    layer, bottoms, tops = case.build(CPU, [x])
    layer.forward(bottoms, tops)
    np.testing.assert_allclose(tops[0].data, reduce(x, case.param.reduction_param), atol=1e-12)
    for row in gradient_check.check_layer(layer, bottoms, tops):
        assert row.error <= gradient_check.TOLERANCE, str(row)


@pytest.mark.parametrize(("axis", "shape"), [(2, (2, 3)), (-3, (2, 3)), (0, ())])
def test_wrong_axis(device, axis, shape):
    case = LayerCase()
    case.layer = f'type: "Reduction" reduction_param {{ axis: {axis} }}'
    with pytest.raises(ShapeError, match=rf"layer 'layer' \(Reduction\): axis {axis} is outside \[{-len(shape)}, "):
        case.build(device, [np.zeros(shape)])
