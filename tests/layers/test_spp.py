"""SPP against bins taken one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

import caffe_lite
from caffe_lite.blob import Blob
from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.any_shape import any_shape
from tests.layers.layer_case import LayerCase


def bins(size, level):
    """(rows in the image, length with the padding) of each of the 2^level bins."""
    count = 2**level
    kernel = -(-size // count)
    pad = (kernel * count - size + 1) // 2
    for i in range(count):
        start = i * kernel - pad
        yield range(max(start, 0), min(start + kernel, size)), min(start + kernel, size + pad) - start


class TestSPP(LayerCase):
    layer = {
        "max": 'type: "SPP" spp_param { pyramid_height: 3 }',
        "average": 'type: "SPP" spp_param { pyramid_height: 3 pool: AVE }',
        "two levels": 'type: "SPP" spp_param { pyramid_height: 2 pool: AVE engine: CUDNN }',
        "one level": 'type: "SPP" spp_param { pyramid_height: 1 }',
    }

    def bottoms(self, rng):
        return {
            "no remainder": [rng.normal(size=(2, 3, 8, 12))],
            "padded": [rng.normal(size=(2, 3, 9, 7))],
            "one pixel a bin": [rng.normal(size=(1, 2, 4, 4))],
            "no images": [np.zeros((0, 2, 8, 8))],
        }

    def expected(self, x):
        p = self.param.spp_param
        levels = []
        for level in range(p.pyramid_height):
            y = np.zeros((*x.shape[:2], 2**level, 2**level))
            for i, (rows, height) in enumerate(bins(x.shape[2], level)):
                for j, (columns, width) in enumerate(bins(x.shape[3], level)):
                    values = x[:, :, rows.start : rows.stop, columns.start : columns.stop]
                    averages = values.sum(axis=(2, 3)) / (height * width)
                    y[:, :, i, j] = averages if p.pool == p.AVE else values.max(axis=(2, 3))
            levels.append(y)
        if p.pyramid_height == 1:
            return levels[0]
        return np.concatenate([y.reshape(x.shape[0], x.shape[1] * 4**n) for n, y in enumerate(levels)], axis=1)

    @any_shape(n=st.integers(0, 2), c=st.integers(1, 2), h=st.sampled_from([4, 7, 11]), w=st.sampled_from([8, 9]))
    def test_any_shape(self, rng, n, c, h, w):
        return [rng.normal(size=(n, c, h, w))]

    def test_the_size_of_the_map_may_change(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["padded"], "average")
        length = tops[0].shape[1]
        for x in self._cases()["no remainder"], self._cases()["padded"]:
            bottoms[0].reshape(x[0].shape)
            bottoms[0].data[...] = device.xp.asarray(x[0])
            got = self._run(layer, bottoms, tops)[0]
            np.testing.assert_allclose(got, self.expected(x[0]), atol=1e-12)
            assert got.shape[1] == length == 3 * (1 + 4 + 16)


class TestStochastic(LayerCase):
    """The mean that TEST takes; TRAIN's draws are Pooling's."""

    layer = 'type: "SPP" spp_param { pyramid_height: 2 pool: STOCHASTIC }'
    phase = caffe_lite.TEST

    def bottoms(self, rng):
        return {"no remainder": [rng.uniform(0.1, 2, (2, 2, 6, 4))]}

    def expected(self, x):
        whole = (x**2).sum(axis=(2, 3)) / x.sum(axis=(2, 3))
        quarters = x.reshape(2, 2, 2, 3, 2, 2)
        parts = (quarters**2).sum(axis=(3, 5)) / quarters.sum(axis=(3, 5))
        return np.concatenate([whole, parts.reshape(2, 8)], axis=1)

    def test_training_draws_values_of_the_map(self, device):
        self.phase = caffe_lite.TRAIN
        x = np.arange(1.0, 49).reshape(1, 2, 6, 4)
        layer, bottoms, tops = self.build(device, [x])
        assert set(self._run(layer, bottoms, tops)[0].ravel()) <= set(x.ravel())


@pytest.mark.parametrize(
    ("prototxt", "shape", "error", "message"),
    [
        ("", (1, 2, 8, 8), NetError, "pyramid_height must be > 0, got 0"),
        ("pyramid_height: 2", (1, 2, 8), ShapeError, r"bottom must have shape \(N, C, H, W\), got \(1, 2, 8\)"),
        ("pyramid_height: 2", (1, 2, 0, 8), ShapeError, r"bottom must not be empty, got \(1, 2, 0, 8\)"),
        (
            "pyramid_height: 3",
            (1, 2, 8, 5),
            ShapeError,
            "level 2 of the pyramid cuts 5 pixels into 4 bins of 2, with a pad of 2, which reaches the kernel",
        ),
        ("pyramid_height: 2 pool: STOCHASTIC", (1, 2, 8, 7), NetError, "STOCHASTIC takes no padding, got pad .0, 1."),
    ],
)
def test_bad_input(prototxt, shape, error, message):
    case = LayerCase()
    case.layer = f'type: "SPP" spp_param {{ {prototxt} }}'
    with pytest.raises(error, match=r"layer 'layer' \(SPP\): .*" + message):
        case.build(CPU, [np.zeros(shape)])


def test_a_map_that_became_too_small():
    layer, _, tops = TestSPP().build(CPU, [np.zeros((1, 2, 8, 8))], "max")
    with pytest.raises(ShapeError, match="use a smaller pyramid_height, or larger maps"):
        layer.reshape([Blob((1, 2, 8, 2))], tops)
