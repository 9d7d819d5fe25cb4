import math

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite.errors import DataError, NetError, ShapeError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


class TestBatchReindex(LayerCase):
    layer = 'type: "BatchReindex"'
    propagate_down = [True, False]
    exact = True

    def bottoms(self, rng):
        return {
            "some twice, some never": [rng.normal(size=(5, 2, 3)), np.array([4.0, 0, 4, 4, 2, 0])],
            "fractions": [rng.normal(size=(3, 2)), np.array([-0.9, 2.99])],
            "one axis": [rng.normal(size=4), np.array([3.0, 2, 1, 0])],
            "empty index": [rng.normal(size=(4, 2)), np.zeros(0)],
            "empty items": [np.zeros((4, 0)), np.array([1.0, 1])],
            "nothing of nothing": [np.zeros((0, 3)), np.zeros(0)],
        }

    def expected(self, data, index):
        items = [data[math.trunc(i)] for i in index]
        return np.array(items).reshape(len(index), *data.shape[1:])

    def test_gradient_of_items_that_went_nowhere_is_zero(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["some twice, some never"])
        layer.forward(bottoms, tops)
        bottoms[0].diff[...] = 7.0
        tops[0].diff[...] = 1.0
        layer.backward(tops, [True, False], bottoms)
        np.testing.assert_array_equal(device.to_host(bottoms[0].diff)[:, 0, 0], [2, 0, 1, 0, 3])

    @pytest.mark.parametrize("index", [-1.0, 3.0, np.nan, 3e9, -np.inf])
    def test_index_out_of_range(self, device, index):
        layer, bottoms, tops = self.build(device, [np.ones((3, 2)), np.array([0.0, index, 2.0])])
        if not device.is_gpu:
            with pytest.raises(DataError) as caught:
                layer.forward(bottoms, tops)
            assert str(caught.value) == f"layer 'layer' (BatchReindex): index of row 1 must be in [0, 3), got {index:g}"
            return
        layer.forward(bottoms, tops)
        np.testing.assert_array_equal(np.isnan(device.to_host(tops[0].data)).all(axis=1), [False, True, False])
        tops[0].diff[...] = 1.0
        layer.backward(tops, [True, False], bottoms)
        np.testing.assert_array_equal(device.to_host(bottoms[0].diff)[:, 0], [1, 0, 1])

    def test_an_index_into_nothing(self, device):
        layer, bottoms, tops = self.build(device, [np.zeros((0, 2)), np.zeros(1)])
        if device.is_gpu:
            layer.forward(bottoms, tops)
            assert np.isnan(device.to_host(tops[0].data)).all()
        else:
            with pytest.raises(DataError, match=r"index of row 0 must be in \[0, 0\), got 0"):
                layer.forward(bottoms, tops)

    def test_shapes_and_gradients_are_checked(self, device):
        with pytest.raises(ShapeError, match=r"layer 'layer' \(BatchReindex\): index .* shape \(M,\), got \(2, 1\)"):
            self.build(device, [np.zeros((3, 2)), np.zeros((2, 1))])
        with pytest.raises(ShapeError, match=r"data \(bottom 0\) must have at least one axis"):
            self.build(device, [np.zeros(()), np.zeros(2)])
        layer, bottoms, tops = self.build(device, self._cases()["one axis"])
        assert [layer.allow_force_backward(i) for i in range(2)] == [True, False]
        with pytest.raises(NetError, match="the index .* has no gradient"):
            layer.backward(tops, [True, True], bottoms)

    @any_shape(n=st.integers(1, 5), m=st.integers(0, 6), rest=st.lists(st.integers(0, 3), max_size=2))
    def test_any_shape(self, rng, n, m, rest):
        return [rng.normal(size=(n, *rest)), rng.integers(0, n, m).astype(float)]
