import math

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite.errors import DataError, NetError, ShapeError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


class TestHingeLoss(LayerCase):
    layer = {
        "default": 'type: "HingeLoss"',
        "L1": 'type: "HingeLoss" hinge_loss_param { norm: L1 }',
        "L2": 'type: "HingeLoss" hinge_loss_param { norm: L2 }',
    }
    propagate_down = [True, False]
    golden = ["hinge_l1"]
    no_gradient = ("exactly on the margin",)

    def bottoms(self, rng):
        return {
            "rows": [2 * rng.normal(size=(6, 5)), np.array([0.0, 1, 4, 1, 3, 2])],
            "feature map": [rng.normal(size=(2, 3, 2, 2)), np.array([11.0, 0]).reshape(2, 1, 1, 1)],
            "labels with fractions": [rng.normal(size=(3, 4)), np.array([-0.9, 2.5, 3.99])],
            "one class": [np.array([[0.3], [2.0]]), np.zeros(2)],
            "exactly on the margin": [np.array([[1.0, -1, -1], [1, 1, -1]]), np.array([0.0, 1.0])],
            "no items": [np.zeros((0, 5)), np.zeros(0)],
        }

    def expected(self, x, labels):
        total = 0.0
        x = x.reshape(len(x), math.prod(x.shape[1:]))
        for i, c in np.ndindex(x.shape):
            delta = 1 if c == math.trunc(labels.flat[i]) else -1
            margin = max(0, 1 - delta * x[i, c])
            total += margin**2 if self.param.hinge_loss_param.norm == 2 else margin
        return np.array(total / max(len(x), 1))

    def test_no_gradient_on_the_margin(self, device):
        for variant, want in {"L1": [[0, 0, 0], [1, 0, 0]], "L2": [[0, 0, 0], [4, 0, 0]]}.items():
            layer, bottoms, tops = self.build(device, self._cases()["exactly on the margin"], variant)
            layer.forward(bottoms, tops)
            layer.backward(tops, [True, False], bottoms)
            np.testing.assert_array_equal(2 * device.to_host(bottoms[0].diff), want)

    def test_forward_leaves_the_diff_of_the_scores_alone(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["rows"])
        bottoms[0].diff[...] = 7.0
        layer.forward(bottoms, tops)
        assert (device.to_host(bottoms[0].diff) == 7.0).all()

    @pytest.mark.parametrize("label", [-1.0, 5.0, np.nan, 3e9, np.inf])
    @pytest.mark.parametrize("norm", ["L1", "L2"])
    def test_label_out_of_range(self, device, norm, label):
        layer, bottoms, tops = self.build(device, [np.ones((3, 5)), np.array([0.0, label, 4.0])], norm)
        if not device.is_gpu:
            with pytest.raises(DataError) as caught:
                layer.forward(bottoms, tops)
            assert str(caught.value) == f"layer 'layer' (HingeLoss): label of row 1 must be in [0, 5), got {label:g}"
            return
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, False], bottoms)
        assert np.isnan(device.to_host(tops[0].data))
        np.testing.assert_array_equal(np.isnan(device.to_host(bottoms[0].diff)).any(axis=1), [False, True, False])

    def test_nan_shows(self, device):
        layer, bottoms, tops = self.build(device, [np.array([[0.0, np.nan]]), np.array([0.0])])
        layer.forward(bottoms, tops)
        assert np.isnan(device.to_host(tops[0].data))

    def test_shapes_and_gradients_are_checked(self, device):
        with pytest.raises(ShapeError, match=r"layer 'layer' \(HingeLoss\): scores .* need 2 labels, got shape \(3,\)"):
            self.build(device, [np.zeros((2, 3)), np.zeros(3)])
        for shape in ((), (2, 0)):
            with pytest.raises(ShapeError, match=r"scores must have shape \(N, C\), C > 0, got \("):
                self.build(device, [np.zeros(shape), np.zeros(2)])
        layer, bottoms, tops = self.build(device, self._cases()["rows"])
        assert [layer.allow_force_backward(i) for i in range(2)] == [True, False]
        with pytest.raises(NetError, match="labels .* have no gradient"):
            layer.backward(tops, [True, True], bottoms)

    @any_shape(n=st.integers(0, 5), c=st.integers(1, 5), extra=st.integers(1, 2))
    def test_any_shape(self, rng, n, c, extra):
        return [rng.normal(size=(n, c, extra)), rng.integers(0, c * extra, (n, 1)).astype(float)]
