import numpy as np
import pytest

from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


def f(d, s):
    return np.where(np.abs(d) < 1 / s, 0.5 * s * d**2, np.abs(d) - 0.5 / s)


def slope(d, s):
    return np.where(np.abs(d) < 1 / s, s * d, np.sign(d))


class TestSmoothL1Loss(LayerCase):
    layer = {
        "plain": 'type: "SmoothL1Loss" loss_weight: 1',
        "sigma 3": 'type: "SmoothL1Loss" loss_weight: 1 smooth_l1_loss_param { sigma: 3 }',
    }
    propagate_down = [True, True]
    golden = ["smooth_l1"]

    def bottoms(self, rng):
        return {
            "on both sides of 1 and 1/9": [rng.normal(size=(6, 8)), rng.normal(size=(6, 8))],
            "equal": [np.ones((2, 3)), np.ones((2, 3))],
            "feature map": [rng.normal(size=(2, 4, 3, 2)), rng.normal(size=(2, 4, 3, 2))],
            "exactly at 1 and -1": [np.array([[1.0, -1.0]]), np.zeros((1, 2))],
            "no regions": [np.zeros((0, 8)), np.zeros((0, 8))],
        }

    def expected(self, prediction, target, inside=1.0, outside=1.0):
        s = self.param.smooth_l1_loss_param.sigma**2
        return (outside * f(inside * (prediction - target), s)).sum() / max(len(prediction), 1)

    def test_nan_shows(self, device):
        layer, bottoms, tops = self.build(device, [np.array([[np.nan, 1.0]]), np.zeros((1, 2))], "plain")
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, False], bottoms)
        assert np.isnan(device.to_host(tops[0].data))
        np.testing.assert_array_equal(device.to_host(bottoms[0].diff), [[np.nan, 1.0]])

    def test_loss_weight_is_zero_by_default(self, device):
        self.layer = 'type: "SmoothL1Loss"'
        layer, _, _ = self.build(device, self._cases()["equal"])
        assert layer.loss_weights == [0.0]

    def test_force_backward_reaches_predictions_and_targets(self, device):
        layer, _, _ = self.build(device, self._cases()["equal"], "plain")
        assert [layer.allow_force_backward(i) for i in range(4)] == [True, True, False, False]

    def test_shapes_and_sigma_are_checked(self, device):
        with pytest.raises(ShapeError, match=r"targets must have shape \(2, 8\), as the predictions, got \(2, 4\)"):
            self.build(device, [np.zeros((2, 8)), np.zeros((2, 4))], "plain")
        with pytest.raises(ShapeError, match="outside weights must have shape"):
            self.build(device, [np.zeros((2, 8))] * 3 + [np.zeros((2, 1))], "plain")
        self.layer = 'type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 0 }'
        with pytest.raises(NetError, match="sigma must be > 0"):
            self.build(device, [np.zeros((2, 8))] * 2)


class TestThreeBottoms(TestSmoothL1Loss):
    """Fast R-CNN's own: one array of weights, which the gradient leaves out."""

    propagate_down = [True, True, False]
    golden = []
    no_gradient = ("weights between 0 and 1",)

    def bottoms(self, rng):
        a, b = rng.normal(size=(6, 8)), rng.normal(size=(6, 8))
        return {
            "weights 0 and 1": [a, b, rng.integers(0, 2, (6, 8)).astype(float)],
            "weights between 0 and 1": [a, b, rng.random((6, 8))],
            "equal": [a, a, np.ones((6, 8))],
            "no regions": [np.zeros((0, 8))] * 3,
        }

    def test_gradient_leaves_the_weights_out(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["weights between 0 and 1"], "plain")
        layer.forward(bottoms, tops)
        tops[0].diff[...] = 2.0
        a, b, w = (device.to_host(blob.data) for blob in bottoms)
        for _ in range(2):  # Caffe's second backward gives other numbers
            layer.backward(tops, [True, True, False], bottoms)
            want = 2.0 / 6 * slope(w * (a - b), 1)
            np.testing.assert_allclose(device.to_host(bottoms[0].diff), want, atol=1e-15)
            np.testing.assert_allclose(device.to_host(bottoms[1].diff), -want, atol=1e-15)

    def test_gradient_of_weights_is_zero_where_one_is_asked_for(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["weights 0 and 1"], "plain")
        bottoms[2].diff[...] = 7.0
        layer.forward(bottoms, tops)
        layer.backward(tops, [False, False, True], bottoms)
        assert not device.to_host(bottoms[2].diff).any()


class TestFourBottoms(TestSmoothL1Loss):
    """py-faster-rcnn's: inside and outside weights, both of them in the gradient."""

    propagate_down = [True, True, False, False]
    golden = []

    def bottoms(self, rng):
        a, b = rng.normal(size=(6, 8)), rng.normal(size=(6, 8))
        return {
            "any weights": [a, b, rng.random((6, 8)), rng.random((6, 8))],
            "equal": [a, a, np.ones((6, 8)), np.ones((6, 8))],
            "no regions": [np.zeros((0, 8))] * 4,
        }
