"""LSTMUnit from its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class TestLSTMUnit(LayerCase):
    layer = 'type: "LSTMUnit"'
    tops = 2
    propagate_down = [True, True, False]
    no_gradient = ("saturated",)
    doubles = False  # the first axis is 1

    def bottoms(self, rng):
        def case(n, d, cont, scale=1.0):
            return [rng.normal(size=(1, n, d)), scale * rng.normal(size=(1, n, 4 * d)), np.reshape(cont, (1, n))]

        return {
            "beginning and going on": case(4, 3, [0.0, 1, 1, 0]),
            "one": case(1, 1, [1.0]),
            "a part goes on": case(2, 5, [0.25, 2]),
            "saturated": case(2, 3, [1.0, 1], 500),
            "no streams": case(0, 3, []),
        }

    def expected(self, c_prev, gates, cont):
        i, f, o, g = np.split(np.clip(gates, -700, 700), 4, axis=2)
        c = sigmoid(f) * cont[:, :, None] * c_prev + sigmoid(i) * np.tanh(g)
        return c, sigmoid(o) * np.tanh(c)

    @any_shape(n=st.integers(0, 4), d=st.integers(1, 5))
    def test_any_shape(self, rng, n, d):
        cont = rng.integers(0, 2, (1, n)).astype(float)
        return [rng.normal(size=(1, n, d)), rng.normal(size=(1, n, 4 * d)), cont]

    def test_cont_has_no_gradient(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["one"])
        assert [layer.allow_force_backward(i) for i in range(3)] == [True, True, False]
        layer.forward(bottoms, tops)
        with pytest.raises(NetError, match=r"layer 'layer' \(LSTMUnit\): cont .*has no gradient"):
            layer.backward(tops, [True, True, True], bottoms)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 4, 3), (1, 4, 12), (1, 4)], r"c_prev \(bottom 0\) must have shape \(1, N, D\), got \(2, 4, 3\)"),
        ([(4, 3), (1, 4, 12), (1, 4)], r"must have shape \(1, N, D\), got \(4, 3\)"),
        ([(1, 4, 3), (1, 4, 9), (1, 4)], r"gates \(bottom 1\) must have shape \(1, 4, 12\) .*got \(1, 4, 9\)"),
        ([(1, 4, 3), (1, 4, 12), (4,)], r"cont \(bottom 2\) must have shape \(1, 4\) .*got \(4,\)"),
    ],
)
def test_bad_shapes(shapes, message):
    with pytest.raises(ShapeError, match=r"layer 'layer' \(LSTMUnit\): .*" + message):
        TestLSTMUnit().build(CPU, [np.zeros(shape) for shape in shapes])


def test_three_bottoms():
    with pytest.raises(NetError, match="needs 3 bottom"):
        TestLSTMUnit().build(CPU, [np.zeros((1, 2, 3)), np.zeros((1, 2, 12))])
