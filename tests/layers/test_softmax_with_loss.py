import math

import numpy as np
import pytest

from caffe_lite.errors import DataError, NetError, ShapeError
from tests.layers.layer_case import LayerCase

FLT_MIN = 2.0**-126


def softmax(x):
    y = np.exp(x - x.max(axis=1, keepdims=True))
    return y / y.sum(axis=1, keepdims=True)


class TestSoftmaxWithLoss(LayerCase):
    layer = {
        "default": 'type: "SoftmaxWithLoss"',
        "ignore 1": 'type: "SoftmaxWithLoss" loss_param { ignore_label: 1 }',
        "full": 'type: "SoftmaxWithLoss" loss_param { ignore_label: 1 normalization: FULL }',
        "batch size": 'type: "SoftmaxWithLoss" loss_param { ignore_label: 1 normalization: BATCH_SIZE }',
        "none": 'type: "SoftmaxWithLoss" loss_param { normalization: NONE }',
        "legacy true": 'type: "SoftmaxWithLoss" loss_param { ignore_label: 1 normalize: true }',
        "legacy false": 'type: "SoftmaxWithLoss" loss_param { ignore_label: 1 normalize: false }',
        "legacy loses": 'type: "SoftmaxWithLoss" loss_param { normalize: false normalization: FULL }',
    }
    propagate_down = [True, False]
    golden = ["softmax_loss", "softmax_loss_ignore"]
    no_gradient = ("probability 0",)

    def bottoms(self, rng):
        return {
            "rows": [rng.normal(size=(6, 5)), np.array([0.0, 1, 4, 1, 3, 2])],
            "feature map": [rng.normal(size=(2, 3, 2, 4)), rng.integers(0, 3, (2, 1, 2, 4)).astype(float)],
            "labels with fractions": [rng.normal(size=(3, 4)), np.array([0.9, 2.5, 3.99])],
            "only label 1": [rng.normal(size=(2, 4)), np.array([[1.0], [1.0]])],
            "probability 0": [np.array([[0.0, 300, 0], [0, 0, 1]]), np.array([0.0, 2.0])],
            "no rows": [np.zeros((0, 5)), np.zeros((0, 1))],
        }

    def normalizer(self, valid, outer, rows):
        p = self.param.loss_param
        if p.HasField("normalize") and not p.HasField("normalization"):
            value = valid if p.normalize else outer
        else:
            value = {p.VALID: valid, p.FULL: rows, p.BATCH_SIZE: outer, p.NONE: 1}[p.normalization]
        return max(value, 1)

    def expected(self, x, labels):
        p = softmax(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))
        labels = labels.reshape(p.shape[0], p.shape[2])
        loss, valid = 0.0, 0
        for i in range(p.shape[0]):
            for j in range(p.shape[2]):
                label = math.trunc(labels[i, j])
                if self.param.loss_param.HasField("ignore_label") and label == self.param.loss_param.ignore_label:
                    continue
                loss -= math.log(max(p[i, label, j], FLT_MIN))
                valid += 1
        return np.array(loss / self.normalizer(valid, p.shape[0], labels.size))

    def test_gradient_is_not_clamped(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["probability 0"], "default")
        layer.forward(bottoms, tops)
        assert float(device.to_host(tops[0].data)) > 40  # half of -log(FLT_MIN)
        tops[0].diff[...] = 3.0  # as if loss_weight were 3
        layer.backward(tops, [True, False], bottoms)
        want = 3 * (softmax(device.to_host(bottoms[0].data)) - np.array([[1.0, 0, 0], [0, 0, 1]])) / 2
        np.testing.assert_allclose(device.to_host(bottoms[0].diff), want, atol=1e-15)

    def test_ignored_rows_have_no_gradient(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["rows"], "ignore 1")
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, False], bottoms)
        has_gradient = device.to_host(bottoms[0].diff).any(axis=1)
        np.testing.assert_array_equal(has_gradient, [True, False, True, False, True, True])

    @pytest.mark.parametrize("label", [-1.0, 5.0, np.nan, 3e9, -np.inf])
    def test_label_out_of_range(self, device, label):
        labels = np.array([0.0, 1.0, label])
        layer, bottoms, tops = self.build(device, [np.zeros((3, 5)), labels], "ignore 1")
        if not device.is_gpu:
            with pytest.raises(
                DataError, match=r"layer 'layer' \(SoftmaxWithLoss\): label of row 2 must be in \[0, 5\)"
            ):
                layer.forward(bottoms, tops)
            return
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, False], bottoms)
        assert np.isnan(device.to_host(tops[0].data))
        np.testing.assert_array_equal(np.isnan(device.to_host(bottoms[0].diff)).all(axis=1), [False, False, True])

    def test_nan_score_makes_a_nan_loss(self, device):
        layer, bottoms, tops = self.build(device, [np.array([[0.0, np.nan]]), np.array([1.0])], "default")
        layer.forward(bottoms, tops)
        assert np.isnan(device.to_host(tops[0].data))

    def test_labels_have_no_gradient(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["rows"], "default")
        layer.forward(bottoms, tops)
        with pytest.raises(NetError, match="labels .* have no gradient"):
            layer.backward(tops, [True, True], bottoms)

    def test_shapes_are_checked(self, device):
        with pytest.raises(ShapeError, match=r"need 8 labels, got shape \(2,\)"):
            self.build(device, [np.zeros((2, 3, 4)), np.zeros(2)], "default")
        with pytest.raises(ShapeError, match="at least one class"):
            self.build(device, [np.zeros((2, 0)), np.zeros(2)], "default")

    def test_loss_weight_is_one_by_default(self, device):
        layer, _, tops = self.build(device, self._cases()["rows"], "default")
        assert layer.loss_weights == [1.0] and float(device.to_host(tops[0].diff)) == 1.0
        assert [layer.allow_force_backward(i) for i in range(2)] == [True, False]


class TestSoftmaxWithLossAndProbabilities(LayerCase):
    layer = {
        "axis 1": 'type: "SoftmaxWithLoss"',
        "two loss weights": 'type: "SoftmaxWithLoss" loss_weight: 2 loss_weight: 0',
    }
    tops = 2
    differentiable = [True, False]
    propagate_down = [True, False]

    def bottoms(self, rng):
        return {"rows": [rng.normal(size=(4, 3)), np.array([0.0, 2, 1, 1])]}

    def expected(self, x, labels):
        p = softmax(x)
        return -np.mean([math.log(p[i, int(label)]) for i, label in enumerate(labels)]), p


class TestSoftmaxWithLossAlongTheLastAxis(LayerCase):
    layer = 'type: "SoftmaxWithLoss" softmax_param { axis: -1 }'
    propagate_down = [True, False]

    def bottoms(self, rng):
        return {"one sequence": [rng.normal(size=(2, 3, 4)), np.array([[0.0, 3, 1], [2, 2, 0]])]}

    def expected(self, x, labels):
        p = softmax(x.reshape(6, 4))
        return -np.mean([math.log(p[i, int(label)]) for i, label in enumerate(labels.reshape(-1))])
