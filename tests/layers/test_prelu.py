from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe_lite import gradient_check
from caffe_lite.errors import ShapeError
from tests.layers.layer_case import LayerCase

SHARED = 'type: "PReLU" prelu_param { channel_shared: true }'


class TestPReLU(LayerCase):
    layer = {"a slope for each channel": 'type: "PReLU"', "one slope": SHARED}
    exact = True
    golden = ["prelu"]
    no_gradient = ("zeros, infinities, nan",)

    def bottoms(self, rng):
        return {
            "images": [rng.normal(size=(3, 4, 5, 2))],
            "two axes": [rng.normal(size=(5, 7))],
            "five axes": [rng.normal(size=(2, 3, 2, 1, 2))],
            "one channel": [rng.normal(size=(2, 1, 6))],
            "zeros, infinities, nan": [np.array([[0.0], [-0.0], [np.inf], [-np.inf], [np.nan]])],
            "no images": [np.zeros((0, 3, 2))],
        }

    def expected(self, x):
        slopes = np.broadcast_to(self.weights[0], x.shape[1])
        y = np.empty_like(x)
        for index in np.ndindex(*x.shape):
            y[index] = x[index] if x[index] > 0 else slopes[index[1]] * x[index]
        return y

    def fill_params(self, blobs, rng):
        slopes = rng.choice([-0.5, 0.25, 2.0], size=blobs[0].shape)  # products with them are exact
        blobs[0].data[...] = blobs[0].device.xp.asarray(slopes)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=5), shared=st.booleans(), seed=st.integers(0, 9999))
    def test_any_shape(self, device, shape, shared, seed):
        x = np.random.default_rng(seed).normal(size=shape)
        layer, bottoms, tops = self.build(device, [x], list(self.layer)[shared])
        assert layer.blobs[0].shape == (() if shared else (shape[1],))
        layer.forward(bottoms, tops)
        np.testing.assert_array_equal(device.to_host(tops[0].data), self.expected(x))
        if np.abs(x).min() > 1e-4:
            for row in gradient_check.check_layer(layer, bottoms, tops):
                assert row.error <= gradient_check.TOLERANCE, str(row)

    @pytest.mark.parametrize("in_place", [False, True])
    @pytest.mark.parametrize("shared", [False, True])
    def test_gradients_by_hand(self, device, shared, in_place):
        """At 0 the slope counts; the gradient of the slope is added to what its diff holds."""
        x = np.array([[[-2.0, 0.0, 3.0], [-1.0, -4.0, 5.0]]])
        layer, bottoms, tops = self.build(device, [x], list(self.layer)[shared], in_place=in_place)
        layer.blobs[0].data[...] = device.xp.asarray(0.5 if shared else [0.5, -2.0])
        layer.blobs[0].diff[...] = 100
        layer.forward(bottoms, tops)
        tops[0].diff[...] = device.xp.asarray([[[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]])
        layer.backward(tops, [True], bottoms)
        want = [[[0.5, 1.0, 4.0], [4.0, 8.0, 32.0]]] if shared else [[[0.5, 1.0, 4.0], [-16.0, -32.0, 32.0]]]
        np.testing.assert_array_equal(device.to_host(bottoms[0].diff), want)
        want = 100 - 2 - 8 - 64 if shared else [100 - 2, 100 - 8 - 64]
        np.testing.assert_array_equal(device.to_host(layer.blobs[0].diff), want)

    def test_a_fixed_slope_gets_no_gradient(self, device):
        layer, bottoms, tops = self.build(device, [-np.ones((2, 3))])
        layer.param_propagate_down = [False]  # lr_mult: 0
        layer.blobs[0].diff[...] = 7
        layer.forward(bottoms, tops)
        tops[0].diff[...] = 1
        layer.backward(tops, [True], bottoms)
        np.testing.assert_array_equal(device.to_host(layer.blobs[0].diff), 7)
        np.testing.assert_array_equal(device.to_host(bottoms[0].diff)[0], device.to_host(layer.blobs[0].data))

    def test_long_sums_keep_their_digits(self, device):
        x = -np.random.default_rng(0).uniform(0.1, 1, (4, 1, 1 << 16)).astype("float32")
        layer, bottoms, tops = self.build(device, [x], dtype="float32")
        layer.forward(bottoms, tops)
        tops[0].diff[...] = 0.1
        layer.backward(tops, [True], bottoms)
        want = x.astype("float64").sum() * np.float64(np.float32(0.1))
        np.testing.assert_allclose(device.to_host(layer.blobs[0].diff), want, rtol=1e-6)

    def test_slopes_start_at_a_quarter_or_as_the_filler_says(self, device):
        self.fill_params = lambda blobs, rng: None
        for line, want in (
            ('type: "PReLU"', np.full(3, 0.25)),
            (SHARED, np.array(0.25)),
            ('type: "PReLU" prelu_param { filler { type: "constant" value: 0.75 } }', np.full(3, 0.75)),
        ):
            self.layer = line
            layer, _, _ = self.build(device, [np.zeros((2, 3, 4))])
            np.testing.assert_array_equal(device.to_host(layer.blobs[0].data), want)

    @pytest.mark.parametrize("shape", [(), (5,)])
    def test_fewer_than_two_axes(self, device, shape):
        with pytest.raises(ShapeError, match=r"layer 'layer' \(PReLU\): needs a bottom of two axes or more"):
            self.build(device, [np.zeros(shape)])

    def test_channels_are_as_many_as_slopes(self, device):
        layer, bottoms, tops = self.build(device, [np.zeros((2, 3, 4))])
        bottoms[0].reshape(2, 4, 4)
        with pytest.raises(ShapeError, match=r"has 3 slopes, one a channel, but its bottom is \(2, 4, 4\)"):
            layer.reshape(bottoms, tops)

        layer, bottoms, tops = self.build(device, [np.zeros((2, 3, 4))], "one slope")
        bottoms[0].reshape(2, 4, 4)
        layer.reshape(bottoms, tops)  # one slope serves any number of channels
        layer.forward(bottoms, tops)
        assert tops[0].shape == (2, 4, 4)
