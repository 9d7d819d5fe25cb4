import numpy as np
import pytest

from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


class TestConcat(LayerCase):
    layer = {
        "axis 1": 'type: "Concat"',
        "axis -1": 'type: "Concat" concat_param { axis: -1 }',
        "concat_dim 1": 'type: "Concat" concat_param { concat_dim: 1 }',
    }
    exact = True
    golden = ["concat"]

    def bottoms(self, rng):
        return {
            "two": [rng.normal(size=(2, 3)), rng.normal(size=(2, 4))],
            "three, one of them empty": [rng.normal(size=(2, n)) for n in (1, 0, 3)],
            "no rows": [np.zeros((0, 3)), np.zeros((0, 4))],
        }

    def expected(self, *bottoms):
        return np.concatenate(bottoms, axis=1)

    def test_shapes_and_parameters_are_checked(self, device):
        with pytest.raises(ShapeError, match=r"along axis 1 only: bottom 0 \(2, 3\), bottom 1 \(4, 3\)"):
            self.build(device, [np.zeros((2, 3)), np.zeros((4, 3))], "axis 1")
        with pytest.raises(ShapeError, match="bottom 1"):
            self.build(device, [np.zeros((2, 3)), np.zeros((2, 3, 1))], "axis 1")
        with pytest.raises(ShapeError, match="axis 1 is outside"):
            self.build(device, [np.zeros(3)] * 2, "concat_dim 1")
        self.layer = 'type: "Concat" concat_param { axis: 1 concat_dim: 1 }'
        with pytest.raises(NetError, match="axis or concat_dim, not both"):
            self.build(device, [np.zeros((2, 3))] * 2)

    def test_one_bottom_shares_its_memory(self, device):
        layer, bottoms, tops = self.build(device, [np.arange(6.0).reshape(2, 3)], "axis 1")
        layer.forward(bottoms, tops)
        tops[0].data[0, 1] = 7
        tops[0].diff[1, 2] = 8
        layer.backward(tops, [True], bottoms)
        assert float(bottoms[0].data[0, 1]) == 7 and float(bottoms[0].diff[1, 2]) == 8
        layer.reshape([bottoms[0]], tops)  # a later forward reshapes again
        assert float(tops[0].data[0, 1]) == 7


class TestConcatAlongTheBatch(LayerCase):
    layer = 'type: "Concat" concat_param { axis: 0 }'
    exact = True
    doubles = False  # the batch is the axis that grows

    def bottoms(self, rng):
        return {"three": [rng.normal(size=(n, 2, 3)) for n in (1, 2, 3)]}

    def expected(self, *bottoms):
        return np.concatenate(bottoms, axis=0)
