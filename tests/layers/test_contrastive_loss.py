import math

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite import gradient_check
from caffe_lite.errors import NetError, ShapeError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


class ContrastiveCase(LayerCase):
    propagate_down = [True, True, False]

    def expected(self, a, b, similar):
        p = self.param.contrastive_loss_param
        loss = 0.0
        for i in range(len(a)):
            d2 = ((a[i] - b[i]) ** 2).sum()
            if math.trunc(similar.flat[i]) != 0:
                loss += d2
            elif p.legacy_version:
                loss += max(p.margin - d2, 0)
            else:
                loss += max(p.margin - math.sqrt(d2), 0) ** 2
        return np.array(loss / max(2 * len(a), 1))


class TestContrastiveLoss(ContrastiveCase):
    layer = {
        "margin 1": 'type: "ContrastiveLoss"',
        "margin 1.5": 'type: "ContrastiveLoss" contrastive_loss_param { margin: 1.5 }',
    }
    golden = ["contrastive"]
    # The rule is no derivative within the margin: see the tests below.
    no_gradient = ("within and beyond the margin", "equal but not similar")

    def bottoms(self, rng):
        a, b = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
        similar = np.array([1.0, 0, 1, 1, 0, 0])
        fractions = np.array([0.9, -0.9, 1.5, -1, 2, 7]).reshape(6, 1, 1, 1)
        near_and_far = np.outer([1, 0.4, 2, 0.1, 1.2, 2.5], [0.5, -0.5, 0.1, 0.7])
        return {
            "similar, or beyond the margin": [a, b + 3 * (similar[:, None] == 0), similar],
            "within and beyond the margin": [a, a + near_and_far, similar],
            "4 axes, fractions": [a.reshape(6, 4, 1, 1), b.reshape(6, 4, 1, 1) + 4, fractions],
            "one feature": [a[:, 0], a[:, 0] + 5, similar],
            "equal but not similar": [a, a, np.zeros(6)],
            "no pairs": [np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0)],
        }

    def test_gradient_has_1e_4_in_its_denominator(self, device):
        a, b, similar = self._cases()["within and beyond the margin"]
        layer, bottoms, tops = self.build(device, [a, b, similar], "margin 1.5")
        layer.forward(bottoms, tops)
        tops[0].diff[...] = 3.0
        layer.backward(tops, [True, True, False], bottoms)
        want = 3.0 * (a - b) / 6
        for i in range(6):
            d = math.sqrt(((a[i] - b[i]) ** 2).sum())
            if not similar[i]:
                want[i] *= -(1.5 - d) / (d + 1e-4) if d < 1.5 else 0
        np.testing.assert_allclose(device.to_host(bottoms[0].diff), want, atol=1e-14)
        np.testing.assert_allclose(device.to_host(bottoms[1].diff), -want, atol=1e-14)
        for row in gradient_check.check_layer(layer, bottoms, tops, propagate_down=[True, True, False]):
            assert row.error < 1e-3, str(row)

    def test_gradient_of_equal_features_is_finite(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["equal but not similar"], "margin 1")
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, True, False], bottoms)
        assert not device.to_host(bottoms[0].diff).any()
        assert float(device.to_host(tops[0].data)) == 0.5

    def test_gradient_of_similar_is_zero_where_one_is_asked_for(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["within and beyond the margin"], "margin 1")
        bottoms[2].diff[...] = 7.0
        layer.forward(bottoms, tops)
        layer.backward(tops, [False, False, True], bottoms)
        assert not device.to_host(bottoms[2].diff).any()

    def test_nan_shows(self, device):
        layer, bottoms, tops = self.build(device, [np.array([[np.nan]]), np.zeros((1, 1)), np.zeros(1)], "margin 1")
        layer.forward(bottoms, tops)
        assert np.isnan(device.to_host(tops[0].data))

    def test_shapes_are_checked(self, device):
        for shapes, message in {
            ((2, 3), (2, 4), (2,)): r"must have the same shape, got \(2, 3\) and \(2, 4\)",
            ((2, 3), (3, 3), (2,)): "must have the same shape",
            ((2, 3), (2, 3), (3,)): r"bottom 2 must have one value for each of 2 pairs, got \(3,\)",
            ((2, 3), (2, 3, 2), (2,)): r"bottom 1 must have shape \(N, C\) or \(N, C, 1, 1\), got \(2, 3, 2\)",
            ((), (), (1,)): "bottom 0 must have shape",
        }.items():
            with pytest.raises(ShapeError, match=r"layer 'layer' \(ContrastiveLoss\): .*" + message):
                self.build(device, [np.zeros(shape) for shape in shapes])
        with pytest.raises(NetError, match=r"needs 3 bottom blob\(s\), got 2"):
            self.build(device, [np.zeros((2, 3))] * 2)

    def test_force_backward_leaves_similar_alone(self, device):
        layer, _, tops = self.build(device, self._cases()["no pairs"])
        assert [layer.allow_force_backward(i) for i in range(3)] == [True, True, False]
        assert layer.loss_weights == [1.0] and float(device.to_host(tops[0].diff)) == 1.0

    @any_shape(n=st.integers(0, 5), c=st.integers(0, 4))
    def test_any_shape(self, rng, n, c):
        return [rng.normal(size=(n, c)), rng.normal(size=(n, c)), np.ones(n)]


class TestLegacyVersion(ContrastiveCase):
    layer = {
        f"margin {m}": f'type: "ContrastiveLoss" contrastive_loss_param {{ margin: {m} legacy_version: true }}'
        for m in (0.5, 2)
    }

    def bottoms(self, rng):
        a, b = rng.normal(size=(8, 2)), rng.normal(size=(8, 2))
        return {"within and beyond the margin": [a, b, rng.integers(0, 2, 8).astype(float)]}

    @any_shape(n=st.integers(0, 5), c=st.integers(1, 4))
    def test_any_shape(self, rng, n, c):
        return [rng.normal(size=(n, c)), rng.normal(size=(n, c)), rng.integers(0, 2, n).astype(float)]
