"""Eltwise against NumPy."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from caffe_lite.layers import eltwise
from tests.layers.layer_case import LayerCase

nan, inf = np.nan, np.inf


class TestThreeBottoms(LayerCase):
    layer = {
        "sum": 'type: "Eltwise"',
        "weighted sum": 'type: "Eltwise" eltwise_param { coeff: 1 coeff: -0.5 coeff: 2 }',
        "product": 'type: "Eltwise" eltwise_param { operation: PROD }',
        "product, by division": 'type: "Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }',
        "maximum": 'type: "Eltwise" eltwise_param { operation: MAX }',
    }
    golden = ["eltwise_sum"]

    def bottoms(self, rng):
        return {
            "random": [rng.normal(size=(2, 3, 4, 5)) for _ in range(3)],
            "scalars": [np.array(1.5), np.array(-2.0), np.array(3.0)],
            "no elements": [np.zeros((0, 3))] * 3,
        }

    def expected(self, *xs):
        p = self.param.eltwise_param
        if p.operation == p.PROD:
            return functools.reduce(np.multiply, xs)
        if p.operation == p.MAX:
            return functools.reduce(np.maximum, xs)
        return sum(c * x for c, x in zip(p.coeff or [1] * len(xs), xs, strict=True))


class TestTwoBottoms(TestThreeBottoms):
    layer = {
        "sum": 'type: "Eltwise"',
        "weighted sum": 'type: "Eltwise" eltwise_param { operation: SUM coeff: -1 coeff: 0.5 }',
        "product": 'type: "Eltwise" eltwise_param { operation: PROD }',
        "maximum": 'type: "Eltwise" eltwise_param { operation: MAX coeff: 3 coeff: 3 }',  # coeff is ignored
    }
    golden = []

    def bottoms(self, rng):
        return {"random": [rng.normal(size=(3, 4)) for _ in range(2)]}


def gradients(device, layer, bottoms):
    """(top, bottom diffs) as lists, for a top diff of 1, 2, 3, ..."""
    case = LayerCase()
    case.layer = layer
    layer, bottoms, tops = case.build(device, [np.array(b) for b in bottoms], dtype="float32")
    layer.forward(bottoms, tops)
    tops[0].diff[...] = device.xp.arange(1, tops[0].count + 1).reshape(tops[0].shape)
    layer.backward(tops, [True] * len(bottoms), bottoms)
    return [device.to_host(a).tolist() for a in (tops[0].data, *(b.diff for b in bottoms))]


def test_who_is_the_maximum(device):
    """Of the first two the second if they tie, then whoever is strictly larger."""
    top, d0, d1, d2 = gradients(
        device,
        'type: "Eltwise" eltwise_param { operation: MAX }',
        [[1, 1, 5, 3, 7], [1, 0, 5, 4, 6], [1, 1, 5, 4, 9]],
    )
    assert top == [1, 1, 5, 4, 9]
    assert d0 == [0, 2, 0, 0, 0]
    assert d1 == [1, 0, 3, 4, 0]
    assert d2 == [0, 0, 0, 0, 5]


def test_maximum_of_what_is_not_a_number(device):
    top, d0, d1, d2 = gradients(
        device,
        'type: "Eltwise" eltwise_param { operation: MAX }',
        [[nan, 1, 1, -inf], [2, nan, 2, -inf], [1, 3, nan, -inf]],
    )
    np.testing.assert_array_equal(top, [2, nan, 2, -inf])
    assert (d0, d1, d2) == ([0, 0, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0])


def test_a_product_with_zeros(device):
    bottoms = [[0, 2], [3, 0], [4, 0]]
    _, *stable = gradients(device, 'type: "Eltwise" eltwise_param { operation: PROD }', bottoms)
    assert stable == [[12, 0], [0, 0], [0, 0]]
    _, *divided = gradients(
        device, 'type: "Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }', bottoms
    )
    np.testing.assert_array_equal(divided, [[nan, 0], [0, nan], [0, nan]])


def test_more_bottoms_than_a_byte_can_number(device):
    bottoms = [[i == 299] for i in range(300)]
    _, *diffs = gradients(device, 'type: "Eltwise" eltwise_param { operation: MAX }', bottoms)
    assert diffs == [[0]] * 299 + [[1]]


@pytest.mark.parametrize("operation", ["SUM", "PROD", "MAX"])
def test_parts_join_without_a_seam(operation, monkeypatch):
    rng = np.random.default_rng(0)
    bottoms = rng.normal(size=(3, 4, 25))
    layer = f'type: "Eltwise" eltwise_param {{ operation: {operation} }}'
    whole = gradients(CPU, layer, bottoms)
    monkeypatch.setattr(eltwise, "PART", 7)
    assert gradients(CPU, layer, bottoms) == whole


@given(st.integers(2, 5), arrays.array_shapes(min_dims=0, max_dims=5, max_side=4), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_maximum_takes_the_whole_gradient(count, shape, seed):
    bottoms = np.random.default_rng(seed).integers(0, 3, (count, *shape))  # many ties
    top, *diffs = gradients(CPU, 'type: "Eltwise" eltwise_param { operation: MAX }', bottoms)
    np.testing.assert_array_equal(top, bottoms.max(axis=0))
    np.testing.assert_array_equal(np.sum(diffs, axis=0).ravel(), np.arange(1, np.size(top) + 1))
    assert (bottoms[np.array(diffs) > 0] == np.broadcast_to(top, bottoms.shape)[np.array(diffs) > 0]).all()


@pytest.mark.parametrize(
    ("param", "shapes", "error", "message"),
    [
        ("coeff: 1", [(2,), (2,)], NetError, r"layer 'layer' \(Eltwise\): needs 2 coeff .or none.*; got 1"),
        ("operation: PROD coeff: 1 coeff: 2", [(2,), (2,)], NetError, "coeff is for operation SUM, not PROD"),
        ("", [(2, 3), (2, 3), (3, 2)], ShapeError, r"one shape: bottom 0 \(2, 3\), bottom 2 \(3, 2\)"),
        ("", [(2, 3)], NetError, "at least 2 bottom"),
    ],
)
def test_wrong_parameters(device, param, shapes, error, message):
    case = LayerCase()
    case.layer = f'type: "Eltwise" eltwise_param {{ {param} }}'
    with pytest.raises(error, match=message):
        case.build(device, [np.zeros(shape) for shape in shapes])


def test_not_in_place(device):
    case = LayerCase()
    case.layer = 'type: "Eltwise"'
    with pytest.raises(NetError, match="cannot run in place"):
        case.build(device, [np.zeros(2), np.zeros(2)], in_place=True)
