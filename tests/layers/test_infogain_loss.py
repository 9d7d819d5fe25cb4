import math

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite import weights
from caffe_lite.errors import DataError, NetError, ShapeError, WeightsError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


def softmax(x):
    y = np.exp(x - x.max(axis=1, keepdims=True))
    return y / y.sum(axis=1, keepdims=True)


class TestInfogainLoss(LayerCase):
    """H is the third bottom."""

    layer = {
        name: f'type: "InfogainLoss" {p}'
        for name, p in {
            "default": "",
            "ignore 1": "loss_param { ignore_label: 1 }",
            "full": "loss_param { ignore_label: 1 normalization: FULL }",
            "batch size": "loss_param { ignore_label: 1 normalization: BATCH_SIZE }",
            "none": "loss_param { normalization: NONE }",
        }.items()
    }
    propagate_down = [True, False, False]
    no_gradient = ("probability 0",)
    doubles = False  # H does not grow with the batch

    def bottoms(self, rng):
        def h(c):
            return rng.random((c, c)) - 0.2

        return {
            "rows": [rng.normal(size=(6, 5)), np.array([0.0, 1, 4, 1, 3, 2]), h(5)],
            "feature map": [rng.normal(size=(2, 3, 2, 4)), rng.integers(0, 3, (2, 1, 2, 4)).astype(float), h(3)],
            "labels with fractions, H of 4 axes": [
                rng.normal(size=(3, 4)), np.array([-0.9, 1.5, 3.99]), h(4).reshape(1, 1, 4, 4)
            ],
            "only label 1": [rng.normal(size=(2, 4)), np.array([[1.0], [1.0]]), h(4)],
            "probability 0": [np.array([[0.0, 300, 0], [0, 0, 1]]), np.array([0.0, 2.0]), np.eye(3)],
            "no rows": [np.zeros((0, 5)), np.zeros((0, 1)), h(5)],
        }  # fmt: skip

    def expected(self, x, labels, h):
        p = self.param.loss_param
        prob = softmax(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))
        labels = labels.reshape(prob.shape[0], prob.shape[2])
        h = h.reshape(x.shape[1], x.shape[1])
        loss, valid = 0.0, 0
        for i, j in np.ndindex(labels.shape):
            label = math.trunc(labels[i, j])
            if p.HasField("ignore_label") and label == p.ignore_label:
                continue
            for c in range(x.shape[1]):
                loss -= h[label, c] * math.log(max(prob[i, c, j], 1e-20))
            valid += 1
        divisor = {p.VALID: valid, p.FULL: labels.size, p.BATCH_SIZE: len(x), p.NONE: 1}[p.normalization]
        return np.array(loss / max(divisor, 1))

    def test_gradient_is_not_clamped(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["probability 0"])
        layer.forward(bottoms, tops)
        assert 20 < float(device.to_host(tops[0].data)) < 24  # half of -log(1e-20)
        tops[0].diff[...] = 3.0
        layer.backward(tops, [True, False, False], bottoms)
        want = 3 * (softmax(device.to_host(bottoms[0].data)) - np.array([[1.0, 0, 0], [0, 0, 1]])) / 2
        np.testing.assert_allclose(device.to_host(bottoms[0].diff), want, atol=1e-15)

    def test_ignored_rows_count_for_nothing(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["rows"], "ignore 1")
        bottoms[0].data[1] = np.nan
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, False, False], bottoms)
        has_gradient = device.to_host(bottoms[0].diff).any(axis=1)
        np.testing.assert_array_equal(has_gradient, [True, False, True, False, True, True])
        assert np.isfinite(device.to_host(tops[0].data))

    @pytest.mark.parametrize("label", [-1.0, 5.0, np.nan, 3e9, -np.inf])
    def test_label_out_of_range(self, device, label):
        bottoms = [np.zeros((3, 5)), np.array([0.0, 1.0, label]), np.eye(5)]
        layer, bottoms, tops = self.build(device, bottoms, "ignore 1")
        if not device.is_gpu:
            with pytest.raises(DataError) as caught:
                layer.forward(bottoms, tops)
            wanted = "label of row 2 must be in [0, 5) or ignore_label 1"
            assert str(caught.value) == f"layer 'layer' (InfogainLoss): {wanted}, got {label:g}"
            return
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, False, False], bottoms)
        assert np.isnan(device.to_host(tops[0].data))
        np.testing.assert_array_equal(np.isnan(device.to_host(bottoms[0].diff)).all(axis=1), [False, False, True])

    def test_shapes_and_gradients_are_checked(self, device):
        for shapes, message in {
            ((2, 3, 4), (2,), (3, 3)): r"need 8 labels, got shape \(2,\)",
            ((2, 0), (2,), (0, 0)): "at least one class",
            ((2, 3), (2,), (3, 4)): r"3 classes need an H of 3 x 3 values, got shape \(3, 4\)",
            ((3,), (3,), (3, 3)): r"axis 1 is outside \[-1, 1\)",
        }.items():
            with pytest.raises(ShapeError, match=r"layer 'layer' \(InfogainLoss\): .*" + message):
                self.build(device, [np.zeros(shape) for shape in shapes])
        layer, bottoms, tops = self.build(device, self._cases()["rows"])
        assert [layer.allow_force_backward(i) for i in range(3)] == [True, False, False]
        for wanted, name in ([True, True, False], "labels"), ([True, False, True], "H"):
            with pytest.raises(NetError, match=rf"{name} \(bottom .\) has no gradient"):
                layer.backward(tops, wanted, bottoms)

    def test_normalize_is_refused(self, device):
        self.layer = 'type: "InfogainLoss" loss_param { normalize: true }'
        with pytest.raises(NetError, match="write normalization"):
            self.build(device, self._cases()["rows"])

    @any_shape(n=st.integers(0, 4), c=st.integers(1, 4), inner=st.integers(0, 3))
    def test_any_shape(self, rng, n, c, inner):
        return [rng.normal(size=(n, c, inner)), rng.integers(0, c, (n, inner)).astype(float), rng.normal(size=(c, c))]


class TestInfogainLossAndProbabilities(LayerCase):
    layer = 'type: "InfogainLoss" infogain_loss_param { axis: -1 }'
    tops = 2
    differentiable = [True, False]
    propagate_down = [True, False, False]
    doubles = False

    def bottoms(self, rng):
        labels = np.array([[0.0, 3, 1], [2, 2, 0]])
        return {"one sequence": [rng.normal(size=(2, 3, 4)), labels, rng.random((4, 4))]}

    def expected(self, x, labels, h):
        p = softmax(x.reshape(6, 4))
        losses = [-(h[int(label)] * np.log(p[i])).sum() for i, label in enumerate(labels.reshape(-1))]
        return np.mean(losses), p.reshape(x.shape)


class TestSource:
    """H comes from a file."""

    @pytest.fixture
    def case(self, tmp_path):
        case = LayerCase()
        case.layer = f'type: "InfogainLoss" infogain_loss_param {{ source: "{tmp_path}/h.binaryproto" }}'
        return case

    def test_as_the_third_bottom(self, device, case, tmp_path):
        rng = np.random.default_rng(0)
        h = rng.random((4, 4)).astype("float32")
        bottoms = [rng.normal(size=(3, 4)), np.array([1.0, 3, 0])]
        weights.write_mean(tmp_path / "h.binaryproto", h)
        results = []
        for arrays in (bottoms, [*bottoms, h]):
            layer, blobs, tops = case.build(device, arrays)
            layer.forward(blobs, tops)
            layer.backward(tops, [True] + [False] * (len(blobs) - 1), blobs)
            results.append((device.to_host(tops[0].data), device.to_host(blobs[0].diff)))
        for got, want in zip(*results, strict=True):
            np.testing.assert_array_equal(got, want)

    def test_absent_corrupt_or_of_another_size(self, device, case, tmp_path):
        bottoms = [np.zeros((3, 4)), np.zeros(3)]
        with pytest.raises(WeightsError, match=r"layer 'layer' \(InfogainLoss\): .*h.binaryproto: cannot be read"):
            case.build(device, bottoms)
        (tmp_path / "h.binaryproto").write_bytes(b"no protobuf at all")
        with pytest.raises(WeightsError, match=r"layer 'layer' \(InfogainLoss\): .*h.binaryproto"):
            case.build(device, bottoms)
        weights.write_mean(tmp_path / "h.binaryproto", np.eye(5))
        with pytest.raises(ShapeError, match=r"4 classes need an H of 4 x 4 values, got shape \(5, 5\)"):
            case.build(device, bottoms)
        case.layer = 'type: "InfogainLoss"'
        with pytest.raises(NetError, match="needs the matrix H: a third bottom, or infogain_loss_param.source"):
            case.build(device, bottoms)
