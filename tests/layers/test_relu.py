import numpy as np
import pytest

from caffe_lite.errors import NetError
from tests.layers.layer_case import LayerCase


class TestReLU(LayerCase):
    layer = {
        "plain": 'type: "ReLU"',
        "leaky": 'type: "ReLU" relu_param { negative_slope: 0.1 }',
    }
    exact = True
    golden = ["relu", "relu_leaky"]
    no_gradient = ("signed zeros, infinities, nan",)

    def bottoms(self, rng):
        return {
            "random": [rng.normal(size=(2, 3, 4, 5))],
            "signed zeros, infinities, nan": [np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0])],
            "no elements": [np.zeros((0, 3))],
            "one axis": [rng.normal(size=7)],
        }

    def expected(self, x):
        slope = self.param.relu_param.negative_slope
        rest = slope * x if slope else np.where(np.isnan(x), np.nan, 0)  # not 0 * -inf
        return np.where(x > 0, x, rest)

    @pytest.mark.parametrize("slope", [0.0, 0.25])
    def test_gradient_is_the_slope_at_zero_and_below(self, device, slope):
        self.layer = f'type: "ReLU" relu_param {{ negative_slope: {slope} }}'
        layer, bottoms, tops = self.build(device, [np.array([-2.0, -0.0, 0.0, 3.0, 4.0])])
        layer.forward(bottoms, tops)
        tops[0].diff[...] = device.xp.asarray([1.0, 2.0, 4.0, 8.0, np.nan])
        layer.backward(tops, [True], bottoms)
        want = [slope, 2 * slope, 4 * slope, 8.0, np.nan]
        np.testing.assert_array_equal(device.to_host(bottoms[0].diff), want)

    def test_negative_slope_below_zero_works_apart_and_is_refused_in_place(self, device):
        self.layer = 'type: "ReLU" relu_param { negative_slope: -0.5 }'
        layer, bottoms, tops = self.build(device, [np.array([-2.0, 3.0])])
        layer.forward(bottoms, tops)
        tops[0].diff[...] = 1
        layer.backward(tops, [True], bottoms)
        np.testing.assert_array_equal(device.to_host(tops[0].data), [1.0, 3.0])
        np.testing.assert_array_equal(device.to_host(bottoms[0].diff), [-0.5, 1.0])

        layer, bottoms, tops = self.build(device, [np.array([-2.0, 3.0])], in_place=True)
        layer.forward(bottoms, tops)
        with pytest.raises(NetError, match=r"layer 'layer' \(ReLU\): negative_slope -0.5 in place"):
            layer.backward(tops, [True], bottoms)

    def test_only_the_plain_one_may_be_fused_into_the_layer_before(self, device):
        fusable = {variant: self.build(device, [np.zeros(2)], variant)[0].is_relu for variant in self.layer}
        assert fusable == {"plain": True, "leaky": False}
