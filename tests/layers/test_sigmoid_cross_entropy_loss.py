import math

import numpy as np
import pytest
from hypothesis import strategies as st

from caffe_lite.errors import NetError, ShapeError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


def normalizer(p, default, valid, outer, total):
    """The rule of loss_param, in the words of its documentation."""
    if p.HasField("normalization"):
        mode = p.normalization
    elif p.HasField("normalize"):
        mode = p.VALID if p.normalize else p.BATCH_SIZE
    else:
        mode = default
    return max({p.VALID: valid, p.FULL: total, p.BATCH_SIZE: outer, p.NONE: 1}[mode], 1)


class TestSigmoidCrossEntropyLoss(LayerCase):
    layer = {
        name: f'type: "SigmoidCrossEntropyLoss" {p}'
        for name, p in {
            "default": "",
            "ignore": "loss_param { ignore_label: -1 }",
            "ignore 0": "loss_param { ignore_label: 0 normalization: VALID }",
            "valid": "loss_param { ignore_label: -1 normalization: VALID }",
            "full": "loss_param { ignore_label: -1 normalization: FULL }",
            "batch size": "loss_param { ignore_label: -1 normalization: BATCH_SIZE }",
            "none": "loss_param { ignore_label: -1 normalization: NONE }",
            "legacy true": "loss_param { ignore_label: -1 normalize: true }",
            "legacy false": "loss_param { ignore_label: -1 normalize: false }",
            "legacy loses": "loss_param { normalize: false normalization: FULL }",
            "all count": "loss_param { normalization: VALID }",
        }.items()
    }
    propagate_down = [True, False]
    golden = ["sigmoid_ce"]

    def bottoms(self, rng):
        targets = rng.random((4, 3, 2))
        targets.flat[[0, 5, 8]] = -1.0, -1.9, -0.9  # the integer part is compared: -0.9 is no -1
        targets.flat[[1, 2, 3]] = 0.0, 1.0, 1.5
        return {
            "rows": [rng.normal(size=(4, 3, 2)), targets],
            "axes cut differently": [rng.normal(size=(2, 6)), rng.random((2, 3, 2, 1))],
            "large scores": [np.array([[800.0, -800, 800, -800, 30]]), np.array([[1.0, 0, 0, 1, 0.5]])],
            "nothing counts": [rng.normal(size=(2, 3)), np.full((2, 3), -1.0)],
            "one axis": [rng.normal(size=3), rng.random(3)],
            "no items": [np.zeros((0, 5)), np.zeros((0, 5))],
        }

    def expected(self, x, targets):
        p = self.param.loss_param
        total, valid = 0.0, 0
        for score, t in zip(x.flat, targets.flat, strict=True):
            if p.HasField("ignore_label") and math.trunc(t) == p.ignore_label:
                continue
            # -log(s) = log(1 + exp(-score)), -log(1 - s) = score + log(1 + exp(-score))
            log1 = math.log1p(math.exp(-abs(score))) + max(-score, 0)
            total += t * log1 + (1 - t) * (score + log1)
            valid += 1
        return np.array(total / normalizer(p, p.BATCH_SIZE, valid, len(x), x.size))

    def test_ignored_targets_have_no_gradient(self, device):
        for case in ("rows", "nothing counts"):
            x, targets = self._cases()[case]
            layer, bottoms, tops = self.build(device, [x, targets], "ignore")
            bottoms[0].data[...] = layer.xp.where(bottoms[1].data <= -1, np.nan, bottoms[0].data)  # nor do they count
            layer.forward(bottoms, tops)
            layer.backward(tops, [True, False], bottoms)
            np.testing.assert_array_equal(device.to_host(bottoms[0].diff) == 0, np.trunc(targets) == -1)
            assert np.isfinite(device.to_host(tops[0].data))

    def test_gradient_of_large_scores(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["large scores"], "default", "float32")
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, False], bottoms)
        np.testing.assert_allclose(device.to_host(bottoms[0].diff), [[0, 0, 1, -1, 0.5]], atol=1e-7)

    def test_a_right_answer_costs_nothing_in_float32_too(self, device):
        """x t and max(x, 0), subtracted, would leave rounding errors of 1e-5."""
        close = np.float32(1) - np.float32(2) ** -24
        layer, bottoms, tops = self.build(device, [np.array([[100.0]]), np.array([[close]])], "default", "float32")
        layer.forward(bottoms, tops)
        assert float(device.to_host(tops[0].data)) == pytest.approx(100 * 2.0**-24, rel=1e-6)

    def test_nan_shows(self, device):
        layer, bottoms, tops = self.build(device, [np.array([[np.nan, 1.0]]), np.zeros((1, 2))])
        layer.forward(bottoms, tops)
        layer.backward(tops, [True, False], bottoms)
        assert np.isnan(device.to_host(tops[0].data))
        np.testing.assert_array_equal(np.isnan(device.to_host(bottoms[0].diff)), [[True, False]])

    def test_shapes_and_gradients_are_checked(self, device):
        for shapes in [((2, 3), (3, 2)), ((2, 3), (2,)), ((), ())]:
            with pytest.raises(
                ShapeError, match=r"layer 'layer' \(SigmoidCrossEntropyLoss\): scores and targets must have .* got \("
            ):
                self.build(device, [np.zeros(shape) for shape in shapes])
        layer, bottoms, tops = self.build(device, self._cases()["rows"])
        assert [layer.allow_force_backward(i) for i in range(2)] == [True, False]
        with pytest.raises(NetError, match="targets .* have no gradient"):
            layer.backward(tops, [True, True], bottoms)

    @any_shape(shape=st.lists(st.integers(0, 4), min_size=1, max_size=4))
    def test_any_shape(self, rng, shape):
        return [rng.normal(size=shape), rng.uniform(-1.5, 1, shape)]
