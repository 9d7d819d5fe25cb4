import numpy as np
import pytest

from caffe_lite.blob import Blob
from caffe_lite.errors import NetError
from tests.layers.layer_case import LayerCase


class TestSplit(LayerCase):
    layer = 'type: "Split"'
    tops = 3
    exact = True

    def bottoms(self, rng):
        return {
            "map": [rng.normal(size=(2, 3, 4))],
            "scalar": [np.array(2.5)],
            "no elements": [np.zeros((0, 3))],
        }

    def expected(self, x):
        return x, x, x

    def test_tops_share_the_memory_of_the_bottom(self, device):
        layer, bottoms, tops = self.build(device, [np.zeros(3)])
        bottoms[0].reshape(5)  # grows: the memory moves
        layer.reshape(bottoms, tops)
        bottoms[0].data[...] = 4
        for top in tops:
            np.testing.assert_array_equal(device.to_host(top.data), np.full(5, 4.0))

    def test_gradients_are_added_from_the_first_to_the_last(self, device):
        layer, bottoms, tops = self.build(device, [np.zeros(1)], dtype="float32")
        for top, diff in zip(tops, (1e8, -1e8, 1.0), strict=True):
            top.diff[...] = diff
        layer.backward(tops, [True], bottoms)
        assert float(bottoms[0].diff[0]) == 1.0  # 1e8 + (-1e8 + 1) would be 0
        tops[2].diff[...], tops[0].diff[...] = 1e8, 1.0
        layer.backward(tops, [True], bottoms)
        assert float(bottoms[0].diff[0]) == 0.0

    @pytest.mark.parametrize("written", [0, 1, 2])
    def test_a_gradient_that_nobody_wrote_is_zero_and_takes_no_memory(self, device, written):
        layer, bottoms, tops = self.build(device, [np.zeros(2)])
        bottoms[0].diff[...] = 9
        for top in tops[:written]:
            top.diff[...] = 1.5
        layer.backward(tops, [True], bottoms)
        np.testing.assert_array_equal(device.to_host(bottoms[0].diff), np.full(2, 1.5 * written))
        assert [top.diff_in_use for top in tops] == [i < written for i in range(3)]

    def test_any_top_in_place_is_refused(self, device):
        layer, bottoms, _ = self.build(device, [np.zeros(2)])
        with pytest.raises(NetError, match="in place"):
            layer.set_up(bottoms, [Blob((), "float64", device), bottoms[0]])
