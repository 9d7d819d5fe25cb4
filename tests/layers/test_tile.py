"""Tile against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


def tile(x, p):
    return np.concatenate([x] * p.tiles, axis=p.axis)


class TestTile(LayerCase):
    layer = {
        f"{tiles} along {axis}": f'type: "Tile" tile_param {{ axis: {axis} tiles: {tiles} }}'
        for axis, tiles in ((1, 3), (0, 2), (-1, 4), (2, 1))
    }
    golden = ["tile"]
    exact = True
    doubles = False  # tiles along the batch are its copies, not those of each image

    def bottoms(self, rng):
        return {
            "random": [rng.normal(size=(2, 3, 4))],
            "no elements": [np.zeros((0, 3, 4))],
        }

    def expected(self, x):
        return tile(x, self.param.tile_param)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 5), st.data())
@settings(max_examples=25, deadline=None)
def test_any_shape(shape, tiles, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    case = LayerCase()
    case.layer = f'type: "Tile" tile_param {{ axis: {axis} tiles: {tiles} }}'
    x = np.random.default_rng(0).normal(size=shape)
    layer, bottoms, tops = case.build(CPU, [x])
    layer.forward(bottoms, tops)
    np.testing.assert_array_equal(tops[0].data, tile(x, case.param.tile_param))
    dy = tops[0].diff
    dy[...] = np.random.default_rng(1).normal(size=dy.shape)
    layer.backward(tops, [True], bottoms)
    np.testing.assert_allclose(bottoms[0].diff, sum(np.split(dy, tiles, axis=axis)), atol=1e-12)


@pytest.mark.parametrize(
    ("param", "error", "message"),
    [
        ("", NetError, r"layer 'layer' \(Tile\): tiles must be given and > 0, got none"),
        ("tiles: 0", NetError, "tiles must be given and > 0, got 0"),
        ("tiles: -2", NetError, "tiles must be given and > 0, got -2"),
        ("tiles: 2 axis: 2", ShapeError, r"axis 2 is outside \[-2, 2\) of a bottom of shape \(2, 3\)"),
    ],
)
def test_wrong_parameters(device, param, error, message):
    case = LayerCase()
    case.layer = f'type: "Tile" tile_param {{ {param} }}'
    with pytest.raises(error, match=message):
        case.build(device, [np.zeros((2, 3))])
