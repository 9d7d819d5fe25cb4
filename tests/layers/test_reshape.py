"""Reshape: the same memory in another shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


def layer(dims, more=""):
    return f'type: "Reshape" reshape_param {{ shape {{ {" ".join(f"dim: {d}" for d in dims)} }} {more} }}'


class TestReshape(LayerCase):
    layer = {"copy, infer, give": layer([0, -1, 3])}
    golden = ["reshape"]
    exact = True
    test_propagate_down = None  # the gradients share their memory: there is nothing to leave untouched

    def bottoms(self, rng):
        return {"random": [rng.normal(size=(2, 4, 9))], "no elements": [np.zeros((0, 4, 9))]}

    def expected(self, x):
        return x.reshape(len(x), 12, 3)


@pytest.mark.parametrize(
    ("bottom", "dims", "more", "top"),
    [
        ((2, 8), [0, 2, -1], "", (2, 2, 4)),
        ((2, 8), [2, 2, 4], "", (2, 2, 4)),
        ((2, 8), [2, 4], "axis: 1", (2, 2, 4)),
        ((2, 8), [2, 4], "axis: -1", None),  # appended: 8 times as many values
        ((2, 8), [1], "axis: -1", (2, 8, 1)),
        ((2, 8), [-1], "axis: -1", (2, 8, 1)),
        ((2, 8), [1], "axis: 0 num_axes: 0", (1, 2, 8)),
        ((2, 8), [1], "axis: 1 num_axes: 0", (2, 1, 8)),
        ((2, 3, 4, 5), [-1], "axis: 1 num_axes: 2", (2, 12, 5)),
        ((2, 3, 4, 5), [4, -1], "axis: -4 num_axes: 2", (2, 4, 3, 5)),
        ((2, 3, 4, 5), [0, -1, 0], "axis: -4", (2, 3, 4, 5)),
        ((2, 3, 4, 5), [], "axis: 0 num_axes: 0", (2, 3, 4, 5)),
        ((6, 3, 4), [-1, 0], "num_axes: 1", (2, 3, 3, 4)),
        ((1, 1), [], "", ()),
        ((), [1, -1], "", (1, 1)),
        ((0, 4, 6), [0, -1, 3], "", (0, 8, 3)),
        ((0, 4, 6), [-1, 3], "axis: 1", (0, 8, 3)),
        ((2, 0, 6), [-1, 3], "", (0, 3)),
    ],
)
def test_shapes(device, bottom, dims, more, top):
    case = LayerCase()
    case.layer = layer(dims, more)
    x = np.random.default_rng(0).normal(size=bottom)
    if top is None:
        with pytest.raises(ShapeError, match=r"shape \[2, 4\] makes \(2, 8, 2, 4\) of \(2, 8\): 128 values of 16"):
            case.build(device, [x])
        return
    _, bottoms, tops = case.build(device, [x])
    assert tops[0].shape == top
    np.testing.assert_array_equal(device.to_host(tops[0].data), x.reshape(top))


def test_nothing_is_copied(device):
    case = LayerCase()
    case.layer = layer([0, -1])
    reshape, (bottom,), (top,) = case.build(device, [np.zeros((2, 3, 4))])
    for shape in ((2, 3, 4), (50, 3, 4), (2, 3, 4)):  # the bottom's memory grows
        bottom.reshape(shape)
        reshape.reshape([bottom], [top])
        bottom.data[...] = 1
        bottom.diff[...] = 2
        assert (top.data == 1).all() and (top.diff == 2).all()
        top.data[...] = 3
        top.diff[...] = 4
        assert (bottom.data == 3).all() and (bottom.diff == 4).all()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
@settings(max_examples=30, deadline=None)
def test_a_dim_left_out_is_found_again(new, data):
    """Any shape of 1 to 5 axes from any other one of as many values, one dim inferred, some copied."""
    factors = [p for d in new for p in _primes(d)]
    order = data.draw(st.permutations(factors))
    cut = data.draw(st.integers(0, len(order)))
    old = (math.prod(order[:cut]), math.prod(order[cut:]))
    dims = list(new)
    for i in range(min(2, len(new))):
        if old[i] == new[i]:
            dims[i] = 0
    dims[data.draw(st.integers(0, len(new) - 1))] = -1
    case = LayerCase()
    case.layer = layer(dims)
    _, _, tops = case.build(CPU, [np.zeros(old)])
    assert tops[0].shape == tuple(new)


def _primes(n):
    for p in (2, 3, 5):
        while n % p == 0:
            yield p
            n //= p


@pytest.mark.parametrize(
    ("dims", "more", "error", "message"),
    [
        ([-1, -1], "", NetError, r"layer 'layer' \(Reshape\): only one dim .* \(-1\), got shape \[-1, -1\]"),
        ([-2, 3], "", NetError, r"dims must be >= -1, got shape \[-2, 3\]"),
        ([6], "num_axes: -2", NetError, "num_axes must be >= 0, or -1 for all, got -2"),
        ([6], "axis: 3", ShapeError, r"axis 3 is outside \[-3, 2\] of a bottom of shape \(2, 6\)"),
        ([6], "axis: -4", ShapeError, r"axis -4 is outside \[-3, 2\]"),
        ([6], "axis: 1 num_axes: 2", ShapeError, r"axis 1 and num_axes 2 reach past the 2 axes of shape \(2, 6\)"),
        ([2, 6, 0], "", ShapeError, r"a dim of 0 copies axis 2 of the bottom, which has 2 axes: \(2, 6\)"),
        ([5, -1], "", ShapeError, r"cannot infer -1: 12 values of \(2, 6\) are not a multiple of the 5 .*\[5, -1\]"),
        ([2, 5], "", ShapeError, r"shape \[2, 5\] makes \(2, 5\) of \(2, 6\): 10 values of 12"),
    ],
)
def test_wrong_parameters(device, dims, more, error, message):
    case = LayerCase()
    case.layer = layer(dims, more)
    with pytest.raises(error, match=message):
        case.build(device, [np.zeros((2, 6))])
