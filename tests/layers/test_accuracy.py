import math

import numpy as np
import pytest

from caffe_lite.errors import DataError, NetError, ShapeError
from tests.layers.layer_case import LayerCase


class TestAccuracy(LayerCase):
    layer = {
        "top 1": 'type: "Accuracy"',
        "top 2": 'type: "Accuracy" accuracy_param { top_k: 2 }',
        "ignore 1": 'type: "Accuracy" accuracy_param { ignore_label: 1 }',
    }
    propagate_down = False
    exact = True
    golden = ["accuracy_top1"]

    def bottoms(self, rng):
        return {
            "rows": [rng.normal(size=(9, 4)), rng.integers(0, 4, 9).astype(float)],
            "feature map": [rng.normal(size=(2, 3, 2, 4)), rng.integers(0, 3, (2, 1, 2, 4)).astype(float)],
            "all scores tied": [np.ones((3, 4)), np.array([0.0, 2, 3])],
            "tied with one other": [np.array([[1.0, 1, 0], [0, 1, 1]]), np.array([0.0, 2])],
            "nan": [np.array([[np.nan, 1, 0], [0, np.nan, 1]]), np.array([0.0, 2])],
            "labels with fractions": [rng.normal(size=(3, 4)), np.array([0.9, 2.5, 3.99])],
            "only label 1": [rng.normal(size=(2, 4)), np.array([1.0, 1.0])],
            "no rows": [np.zeros((0, 5)), np.zeros((0,))],
        }

    def rows(self, x, labels):
        """(label, right?) of each row that counts."""
        p = self.param.accuracy_param
        scores = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
        for row, value in zip(scores, labels.reshape(-1), strict=True):
            label = math.trunc(value)
            if not (p.HasField("ignore_label") and label == p.ignore_label):
                others = np.delete(row, label)
                yield label, bool(np.sum(others >= row[label]) < p.top_k and not np.isnan(row[label]))

    def expected(self, x, labels):
        verdicts = [right for _, right in self.rows(x, labels)]
        return np.array(np.mean(verdicts) if verdicts else 0.0)

    @pytest.mark.parametrize("label", [-1.0, 4.0, np.nan, 3e9])
    def test_label_out_of_range(self, device, label):
        layer, bottoms, tops = self.build(device, [np.zeros((2, 4)), np.array([1.0, label])], "ignore 1")
        if not device.is_gpu:
            with pytest.raises(DataError, match=r"layer 'layer' \(Accuracy\): label of row 1 must be in \[0, 4\)"):
                layer.forward(bottoms, tops)
            return
        layer.forward(bottoms, tops)
        assert np.isnan(device.to_host(tops[0].data))

    def test_has_no_gradient(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["rows"], "top 1")
        layer.backward(tops, [False, False], bottoms)
        with pytest.raises(NetError, match=r"\(Accuracy\): has no gradient"):
            layer.backward(tops, [True, False], bottoms)
        assert not layer.allow_force_backward(0)

    def test_parameters_and_shapes_are_checked(self, device):
        with pytest.raises(ShapeError, match="top_k 2 is more than the 1 classes"):
            self.build(device, [np.zeros((2, 1)), np.zeros(2)], "top 2")
        with pytest.raises(ShapeError, match=r"need 2 labels, got shape \(3,\)"):
            self.build(device, [np.zeros((2, 4)), np.zeros(3)], "top 1")


class TestAccuracyOfEachClass(TestAccuracy):
    tops = 2
    golden = []

    def expected(self, x, labels):
        verdicts = list(self.rows(x, labels))
        classes = [[right for label, right in verdicts if label == c] for c in range(x.shape[1])]
        return super().expected(x, labels), np.array([np.mean(c) if c else 0.0 for c in classes])


class TestAccuracyAlongTheFirstAxis(LayerCase):
    layer = 'type: "Accuracy" accuracy_param { axis: -2 }'
    propagate_down = False
    exact = True
    doubles = False  # the batch is the axis of the classes

    def bottoms(self, rng):
        return {"columns": [rng.normal(size=(4, 5)), np.array([0.0, 3, 2, 2, 1])]}

    def expected(self, x, labels):
        return np.array(np.mean(x.argmax(axis=0) == labels))
