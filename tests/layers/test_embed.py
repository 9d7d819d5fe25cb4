import math

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite.errors import DataError, NetError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


class TestEmbed(LayerCase):
    layer = {
        "with bias": 'type: "Embed" embed_param { num_output: 4 input_dim: 7 }',
        "without bias": 'type: "Embed" embed_param { num_output: 3 input_dim: 7 bias_term: false }',
    }
    propagate_down = [False]
    golden = ["embed"]

    def bottoms(self, rng):
        return {
            "repeated": [np.array([[2.0, 3], [3, 3], [0, 6]])],
            "one axis": [np.array([6.0, 0])],
            "fractions": [np.array([-0.9, 0.9, 6.99])],
            "a scalar": [np.array(5.0)],
            "no indices": [np.zeros((0, 2))],
        }

    def expected(self, index):
        bias = self.weights[1] if len(self.weights) == 2 else 0
        vectors = [self.weights[0][math.trunc(i)] + bias for i in index.flat]
        return np.array(vectors).reshape(*index.shape, self.weights[0].shape[1])

    def test_parameters_and_their_gradients(self, device):
        layer, bottoms, tops = self.build(device, [np.array([1.0, 5, 1])], "with bias")
        assert [blob.shape for blob in layer.blobs] == [(7, 4), (4,)]
        layer.forward(bottoms, tops)
        dy = np.arange(12.0).reshape(3, 4)
        tops[0].diff[...] = layer.xp.asarray(dy)
        for _ in range(2):
            layer.backward(tops, [False], bottoms)
        dw = np.zeros((7, 4))
        dw[1], dw[5] = 2 * (dy[0] + dy[2]), 2 * dy[1]
        np.testing.assert_array_equal(device.to_host(layer.blobs[0].diff), dw)
        np.testing.assert_array_equal(device.to_host(layer.blobs[1].diff), 2 * dy.sum(axis=0))

    def test_gradients_that_are_not_wanted(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["repeated"], "with bias")
        layer.forward(bottoms, tops)
        tops[0].diff[...] = 1.0
        for wanted in ([True, False], [False, True]):
            for blob in layer.blobs:
                blob.diff[...] = 0
            layer.param_propagate_down = wanted
            layer.backward(tops, [False], bottoms)
            assert [bool(blob.diff.any()) for blob in layer.blobs] == wanted

    def test_the_order_of_summation_is_the_same_on_every_device(self, device):
        """float32 sums depend on their order: CPU and GPU add in that of the indices."""
        rng = np.random.default_rng(1)
        index = rng.integers(0, 7, 500).astype(float)
        layer, bottoms, tops = self.build(device, [index], "with bias", "float32")
        layer.forward(bottoms, tops)
        dy = rng.normal(size=(500, 4)).astype("float32")
        tops[0].diff[...] = layer.xp.asarray(dy)
        layer.backward(tops, [False], bottoms)
        want = np.zeros((7, 4), "float32")
        for i, number in enumerate(index):
            want[int(number)] += dy[i]
        np.testing.assert_array_equal(device.to_host(layer.blobs[0].diff), want)

    @pytest.mark.parametrize("index", [-1.0, 7.0, np.nan, 3e9, -np.inf])
    def test_index_out_of_range(self, device, index):
        layer, bottoms, tops = self.build(device, [np.array([[0.0, 1.0], [index, 2.0]])])
        if not device.is_gpu:
            with pytest.raises(DataError) as caught:
                layer.forward(bottoms, tops)
            assert str(caught.value) == f"layer 'layer' (Embed): index of row 2 must be in [0, 7), got {index:g}"
            return
        layer.forward(bottoms, tops)
        bad = np.isnan(device.to_host(tops[0].data)).all(axis=2)
        np.testing.assert_array_equal(bad, [[False, False], [True, False]])
        tops[0].diff[...] = 1.0
        layer.backward(tops, [False], bottoms)
        np.testing.assert_array_equal(device.to_host(layer.blobs[0].diff)[:, 0], [1, 1, 1, 0, 0, 0, 0])

    def test_fillers(self, device):
        self.layer = """type: "Embed" embed_param { num_output: 4 input_dim: 7
            weight_filler { type: "uniform" min: 1 max: 2 } bias_filler { value: 5 } }"""
        self.fill_params = lambda blobs, rng: None
        layer, _, _ = self.build(device, [np.zeros(2)])
        w, b = (device.to_host(blob.data) for blob in layer.blobs)
        assert 1 <= w.min() < w.max() <= 2 and (b == 5).all()

    @pytest.mark.parametrize("missing, message", [("num_output: 4", "input_dim"), ("input_dim: 7", "num_output")])
    def test_sizes_are_checked(self, device, missing, message):
        self.layer = f'type: "Embed" embed_param {{ {missing} }}'
        with pytest.raises(NetError, match=rf"layer 'layer' \(Embed\): {message} must be > 0, got 0"):
            self.build(device, [np.zeros(2)])

    def test_indices_have_no_gradient(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["one axis"])
        assert not layer.allow_force_backward(0)
        layer.forward(bottoms, tops)
        with pytest.raises(NetError, match="have no gradient"):
            layer.backward(tops, [True], bottoms)

    @any_shape(shape=st.lists(st.integers(0, 4), max_size=3))
    def test_any_shape(self, rng, shape):
        return [np.asarray(rng.integers(0, 7, shape), float)]
