"""LRN against its definition, one element at a time."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


class LRNCase(LayerCase):
    def bottoms(self, rng):
        return {
            "random": [rng.normal(size=(2, 7, 5, 6))],
            "fewer neighbours than local_size": [rng.normal(size=(1, 2, 3, 1))],
            "large beside small": [rng.normal(size=(1, 8, 2, 3)) * np.array([1e3, 1e-2] * 4).reshape(1, 8, 1, 1)],
            "zeros": [np.zeros((1, 3, 4, 4))],
            "no images": [np.zeros((0, 3, 4, 4))],
        }

    no_gradient = ("large beside small",)  # moving x by 1e-5 is not small for the small ones


class TestAcrossChannels(LRNCase):
    layer = {
        "CaffeNet": 'type: "LRN" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }',
        "strong": 'type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.6 k: 1.5 }',
        "one channel": 'type: "LRN" lrn_param { local_size: 1 alpha: 1 beta: 0.75 }',
        "all channels": 'type: "LRN" lrn_param { local_size: 15 alpha: 1 beta: 1 }',
    }
    golden = ["lrn_across"]

    def expected(self, x):
        p = self.param.lrn_param
        y = np.empty_like(x)
        for n, c, h, w in np.ndindex(*x.shape):
            around = x[n, max(c - p.local_size // 2, 0) : c + p.local_size // 2 + 1, h, w]
            y[n, c, h, w] = x[n, c, h, w] * (p.k + p.alpha / p.local_size * (around**2).sum()) ** -p.beta
        return y


class TestWithinChannel(LRNCase):
    layer = {
        "3x3": 'type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.75 norm_region: WITHIN_CHANNEL }',
        "k is ignored": 'type: "LRN" lrn_param { local_size: 5 alpha: 1 beta: 0.5 k: 9 norm_region: WITHIN_CHANNEL }',
    }

    def expected(self, x):
        p = self.param.lrn_param
        half = p.local_size // 2
        y = np.empty_like(x)
        for n, c, h, w in np.ndindex(*x.shape):
            around = x[n, c, max(h - half, 0) : h + half + 1, max(w - half, 0) : w + half + 1]
            mean = (around**2).sum() / p.local_size**2  # the padding counts
            y[n, c, h, w] = x[n, c, h, w] * (1 + p.alpha * mean) ** -p.beta
        return y


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_an_even_size_has_no_middle(device, region):
    case = LayerCase()
    case.layer = f'type: "LRN" lrn_param {{ local_size: 4 norm_region: {region} }}'
    with pytest.raises(NetError, match="local_size must be odd, to have a middle, got 4"):
        case.build(device, [np.zeros((1, 1, 5, 6))])


def test_only_four_axes(device):
    case = LayerCase()
    case.layer = 'type: "LRN"'
    with pytest.raises(ShapeError, match=r"\(N, C, H, W\), got \(2, 3\)"):
        case.build(device, [np.zeros((2, 3))])
