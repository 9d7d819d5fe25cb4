import math

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite.errors import DataError, NetError, ShapeError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


class TestMultinomialLogisticLoss(LayerCase):
    layer = {
        "plain": 'type: "MultinomialLogisticLoss"',
        "loss_param is not consulted": """
            type: "MultinomialLogisticLoss" loss_param { ignore_label: 1 normalization: NONE }""",
    }
    propagate_down = [True, False]
    golden = ["multinomial_logistic"]
    no_gradient = ("probability 0",)

    def bottoms(self, rng):
        return {
            "rows": [rng.random((6, 5)) + 0.1, np.array([0.0, 1, 4, 1, 3, 2])],
            "4 axes": [rng.random((2, 3, 1, 2)) + 0.1, np.array([5.0, 0]).reshape(2, 1, 1, 1)],
            "labels with fractions": [rng.random((3, 4)) + 0.1, np.array([-0.9, 2.5, 3.99])],
            "probability 0": [np.array([[0.0, 1], [1, 0]]), np.array([0.0, 0.0])],
            "no items": [np.zeros((0, 5)), np.zeros(0)],
        }

    def expected(self, p, labels):
        p = p.reshape(len(p), math.prod(p.shape[1:]))
        total = 0.0
        for i in range(len(p)):
            total -= math.log(max(p[i, math.trunc(labels.flat[i])], 1e-20))
        return np.array(total / max(len(p), 1))

    def test_gradient_of_probability_0(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["probability 0"])
        layer.forward(bottoms, tops)
        tops[0].diff[...] = 3.0
        layer.backward(tops, [True, False], bottoms)
        np.testing.assert_allclose(device.to_host(bottoms[0].diff), [[-1.5e20, 0], [-1.5, 0]])

    @pytest.mark.parametrize("label", [-1.0, 5.0, np.nan, 3e9, -np.inf])
    def test_label_out_of_range(self, device, label):
        layer, bottoms, tops = self.build(device, [np.ones((3, 5)), np.array([0.0, 4.0, label])])
        if not device.is_gpu:
            with pytest.raises(
                DataError, match=r"layer 'layer' \(MultinomialLogisticLoss\): label of row 2 must be in \[0, 5\), got "
            ):
                layer.forward(bottoms, tops)
            return
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, False], bottoms)
        assert np.isnan(device.to_host(tops[0].data))
        np.testing.assert_array_equal(np.isnan(device.to_host(bottoms[0].diff)).any(axis=1), [False, False, True])

    def test_nan_shows(self, device):
        layer, bottoms, tops = self.build(device, [np.array([[0.5, np.nan]]), np.array([1.0])])
        layer.forward(bottoms, tops)
        assert np.isnan(device.to_host(tops[0].data))

    def test_shapes_and_gradients_are_checked(self, device):
        with pytest.raises(
            ShapeError, match=r"'layer' \(MultinomialLogisticLoss\): .*\(2, 3\) need 2 labels, got shape \(2, 3\)"
        ):
            self.build(device, [np.zeros((2, 3)), np.zeros((2, 3))])
        for shape in ((), (2, 0)):
            with pytest.raises(ShapeError, match=r"probabilities must have shape \(N, C\), C > 0, got \("):
                self.build(device, [np.zeros(shape), np.zeros(2)])
        layer, bottoms, tops = self.build(device, self._cases()["rows"])
        assert [layer.allow_force_backward(i) for i in range(2)] == [True, False]
        with pytest.raises(NetError, match="labels .* have no gradient"):
            layer.backward(tops, [True, True], bottoms)

    @any_shape(n=st.integers(0, 5), c=st.integers(1, 5), extra=st.integers(1, 2))
    def test_any_shape(self, rng, n, c, extra):
        return [rng.random((n, c, extra)) + 0.1, rng.integers(0, c * extra, n).astype(float)]
