import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite.errors import NetError, ShapeError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


class TestFilter(LayerCase):
    layer = 'type: "Filter"'
    tops = 2
    propagate_down = [True, True, False]
    exact = True

    def bottoms(self, rng):
        selector = np.array([0.0, 1, -2, 0, 0.5])
        return {
            "some pass": [rng.normal(size=(5, 2, 3)), rng.normal(size=5), selector],
            "a nan is not 0": [rng.normal(size=(2, 1)), rng.normal(size=(2, 2)), np.array([np.nan, -0.0])],
            "selector of 4 axes": [rng.normal(size=(5, 2)), rng.normal(size=(5, 1)), selector.reshape(5, 1, 1, 1)],
            "all pass": [rng.normal(size=(3, 2)), rng.normal(size=(3, 1)), np.ones(3)],
            "none passes": [rng.normal(size=(3, 2)), rng.normal(size=(3, 1)), np.zeros(3)],
            "no items": [np.zeros((0, 2)), np.zeros((0, 1)), np.zeros(0)],
        }

    def expected(self, *bottoms):
        *data, selector = bottoms
        passing = [i for i, s in enumerate(selector.flat) if s != 0]
        return tuple(np.array([x[i] for i in passing]).reshape(len(passing), *x.shape[1:]) for x in data)

    def test_the_tops_are_whole_until_the_first_forward(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["some pass"])
        assert [top.shape for top in tops] == [(5, 2, 3), (5,)]
        layer.reshape(bottoms, tops)
        assert [top.shape for top in tops] == [(3, 2, 3), (3,)]

    def test_gradient_of_items_that_did_not_pass_is_zero(self, device):
        for case, want in {"some pass": [0, 1, 1, 0, 1], "none passes": [0, 0, 0], "all pass": [1, 1, 1]}.items():
            layer, bottoms, tops = self.build(device, self._cases()[case])
            layer.reshape(bottoms, tops)
            layer.forward(bottoms, tops)
            for blob in bottoms:
                blob.diff[...] = 7.0
            for top in tops:
                top.diff[...] = 1.0
            layer.backward(tops, [True, False, False], bottoms)
            np.testing.assert_array_equal(device.to_host(bottoms[0].diff).reshape(len(want), -1)[:, 0], want)
            assert (device.to_host(bottoms[1].diff) == 7.0).all()

    def test_the_selector_may_change(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["some pass"])
        for selector in ([1.0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0], [1.0, 1, 1, 1, 1]):
            bottoms[2].data[...] = layer.xp.asarray(selector)
            layer.reshape(bottoms, tops)
            layer.forward(bottoms, tops)
            want = device.to_host(bottoms[0].data)[np.array(selector) == 1]
            np.testing.assert_array_equal(device.to_host(tops[0].data), want)

    def test_shapes_counts_and_gradients_are_checked(self, device):
        for shapes, message in {
            ((4, 2), (4,), (4, 2)): r"the selector \(bottom 2\) must have shape \(N,\) or .*, got \(4, 2\)",
            ((4, 2), (4,), ()): "the selector",
            ((4, 2), (3,), (4,)): r"bottom 1 must have 4 items, as the selector, got \(3,\)",
            ((), (4,), (4,)): r"bottom 0 must have 4 items, as the selector, got \(\)",
        }.items():
            with pytest.raises(ShapeError, match=r"layer 'layer' \(Filter\): " + message):
                self.build(device, [np.zeros(shape) for shape in shapes])
        with pytest.raises(NetError, match="needs a top for each bottom but the last, which selects: 1, got 2"):
            self.build(device, [np.zeros(2), np.zeros(2)])
        layer, bottoms, tops = self.build(device, self._cases()["some pass"])
        assert [layer.allow_force_backward(i) for i in range(3)] == [True, True, False]
        with pytest.raises(NetError, match=r"the selector \(bottom 2\) has no gradient"):
            layer.backward(tops, [True, True, True], bottoms)

    @any_shape(n=st.integers(0, 5), rest=st.lists(st.integers(0, 3), max_size=2))
    def test_any_shape(self, rng, n, rest):
        return [rng.normal(size=(n, *rest)), rng.normal(size=n), rng.integers(0, 2, n).astype(float)]


class TestFilterOfOneBottom(LayerCase):
    layer = 'type: "Filter"'
    propagate_down = [True, False]
    exact = True

    def bottoms(self, rng):
        return {"some pass": [rng.normal(size=(4, 2)), np.array([1.0, 0, 1, 0])]}

    def expected(self, x, selector):
        return x[[0, 2]]
