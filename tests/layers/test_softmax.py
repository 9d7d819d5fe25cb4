import numpy as np
import pytest

from caffe_lite.errors import ShapeError
from tests.layers.layer_case import LayerCase


class TestSoftmax(LayerCase):
    layer = {
        "classes along axis 1": 'type: "Softmax"',
        "along the last axis": 'type: "Softmax" softmax_param { axis: -1 }',
        "along the first": 'type: "Softmax" softmax_param { axis: 0 }',
    }
    golden = ["softmax"]

    def bottoms(self, rng):
        return {
            "feature map": [rng.normal(size=(2, 3, 4, 5))],
            "rows": [rng.normal(size=(6, 4))],
            "values that overflow exp": [rng.normal(size=(3, 4)) * 1e4],
            "one class": [rng.normal(size=(1, 1))],
        }

    def expected(self, x):
        axis = self.param.softmax_param.axis
        y = np.exp(x - x.max(axis=axis, keepdims=True))
        return y / y.sum(axis=axis, keepdims=True)

    def test_no_rows(self, device):
        layer, bottoms, tops = self.build(device, [np.zeros((0, 4))], "classes along axis 1")
        layer.forward(bottoms, tops)
        layer.backward(tops, [True], bottoms)
        assert tops[0].shape == (0, 4)

    @pytest.mark.parametrize(("shape", "message"), [((3, 0), "at least one class"), ((3,), "axis 1 is outside")])
    def test_shapes_without_classes_are_refused(self, device, shape, message):
        with pytest.raises(ShapeError, match=message):
            self.build(device, [np.zeros(shape)], "classes along axis 1")
