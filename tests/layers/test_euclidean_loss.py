import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite.errors import NetError, ShapeError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


class TestEuclideanLoss(LayerCase):
    layer = {"plain": 'type: "EuclideanLoss"', "loss_weight 0.5": 'type: "EuclideanLoss" loss_weight: 0.5'}
    golden = ["euclidean"]

    def bottoms(self, rng):
        return {
            "rows": [rng.normal(size=(6, 8)), rng.normal(size=(6, 8))],
            "axes cut differently": [rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 8, 1, 1))],
            "one axis": [rng.normal(size=5), rng.normal(size=5)],
            "five axes": [rng.normal(size=(2, 1, 3, 2, 2)), rng.normal(size=(2, 1, 3, 2, 2))],
            "equal": [np.ones((2, 3)), np.ones((2, 3))],
            "no items": [np.zeros((0, 3)), np.zeros((0, 3))],
        }

    def expected(self, a, b):
        total = 0.0
        for x, y in zip(a.flat, b.flat, strict=True):
            total += (x - y) ** 2
        return np.array(total / 2 / max(len(a), 1))

    def test_gradient_is_the_difference_over_the_items(self, device):
        a, b = self._cases()["axes cut differently"]
        layer, bottoms, tops = self.build(device, [a, b], "loss_weight 0.5")
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, True], bottoms)
        want = 0.5 * (a - b.reshape(a.shape)) / 3
        np.testing.assert_allclose(device.to_host(bottoms[0].diff), want, atol=1e-15)
        np.testing.assert_allclose(device.to_host(bottoms[1].diff), -want.reshape(b.shape), atol=1e-15)

    def test_many_values_are_summed_without_loss(self, device):
        a = np.random.default_rng(0).normal(size=(1, 3_000_000)).astype("float32")
        layer, bottoms, tops = self.build(device, [a, np.zeros_like(a)], dtype="float32")
        layer.forward(bottoms, tops)
        want = (a.astype("float64") ** 2).sum() / 2
        assert float(device.to_host(tops[0].data)) == pytest.approx(want, rel=1e-6)

    def test_shapes_are_checked(self, device):
        for shapes in [((2, 3), (3, 2)), ((2, 3), (2, 4)), ((), ()), ((6,), (2, 3))]:
            with pytest.raises(ShapeError, match=r"layer 'layer' \(EuclideanLoss\): predictions and targets .* got \("):
                self.build(device, [np.zeros(shape) for shape in shapes])
        with pytest.raises(NetError, match=r"needs 2 bottom blob\(s\), got 3"):
            self.build(device, [np.zeros((2, 3))] * 3)

    def test_force_backward_reaches_the_targets_too(self, device):
        layer, _, _ = self.build(device, self._cases()["equal"])
        assert [layer.allow_force_backward(i) for i in range(2)] == [True, True]

    @any_shape(shape=st.lists(st.integers(0, 4), min_size=1, max_size=4))
    def test_any_shape(self, rng, shape):
        return [rng.normal(size=shape), rng.normal(size=shape)]
