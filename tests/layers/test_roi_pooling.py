"""ROIPooling against its definition, one bin at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from caffe_lite.errors import DataError, NetError, ShapeError
from tests.layers.layer_case import LayerCase


def to_cell(coordinate, scale):
    """C's round, half away from zero, of a float32 product."""
    x = float(np.float32(coordinate) * np.float32(scale))
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def bins(start, end, pooled, limit):
    """The cells of each bin along an axis, as ranges."""
    size = np.float32(max(end - start + 1, 1)) / np.float32(pooled)
    for p in range(pooled):
        first, last = math.floor(np.float32(p) * size) + start, math.ceil(np.float32(p + 1) * size) + start
        yield range(min(max(first, 0), limit), min(max(last, 0), limit))


def roi_pool(data, rois, pooled_h, pooled_w, scale):
    """(top, argmax): each bin's maximum, and where in its plane; 0 and -1 of an empty bin."""
    height, width = data.shape[2:]
    top = np.zeros((len(rois), data.shape[1], pooled_h, pooled_w))
    argmax = np.full(top.shape, -1)
    for r, (image, *box) in enumerate(rois.reshape(len(rois), 5)):
        x1, y1, x2, y2 = (to_cell(v, scale) for v in box)
        for ph, rows in enumerate(bins(y1, y2, pooled_h, height)):
            for pw, columns in enumerate(bins(x1, x2, pooled_w, width)):
                cells = [h * width + w for h in rows for w in columns]
                for c in range(data.shape[1] if cells else 0):
                    values = data[int(image), c].ravel()[cells]
                    argmax[r, c, ph, pw] = cells[int(values.argmax())]  # the first of equal ones
                    top[r, c, ph, pw] = values.max()
    return top, argmax


def gradient(data, rois, pooled_h, pooled_w, scale, top_diff):
    """What reaches data: from each bin to its maximum, if that lies inside the rounded region."""
    argmax = roi_pool(data, rois, pooled_h, pooled_w, scale)[1]
    diff = np.zeros(data.shape)
    for r, c, ph, pw in np.argwhere(argmax >= 0):
        x1, y1, x2, y2 = (to_cell(v, scale) for v in rois[r, 1:])
        h, w = divmod(int(argmax[r, c, ph, pw]), data.shape[3])
        if y1 <= h <= y2 and x1 <= w <= x2:
            diff[int(rois[r, 0]), c, h, w] += top_diff[r, c, ph, pw]
    return diff


class TestROIPooling(LayerCase):
    layer = {
        "7x7": 'type: "ROIPooling" roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 }',
        "oblong": 'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 5 spatial_scale: 0.3 }',
    }
    propagate_down = [True, False]
    exact = True
    golden = ["roi_pooling_7x7"]

    def bottoms(self, rng):
        x1, y1 = rng.uniform(0, 250, (2, 40))
        w, h = rng.uniform(0, 200, (2, 40))
        boxes = np.stack([rng.integers(0, 2, 40), x1, y1, x1 + w, y1 + h], axis=1)
        awkward = np.array(
            [
                [1, 0, 0, 0, 0],  # one cell
                [0, 8, 24, 39, 55.9],  # corners at half a cell: round half away from zero
                [0, 400, 300, 900, 800],  # outside: empty bins
                [1, -300, -8, 40, 40],  # starts before the map
                [1, 40, 40, 30, 10],  # reversed
                [0.9, 16, 16, 160, 160],  # the batch index is truncated
                [0, 1e20, 16, 3e38, 160],  # far outside
            ]
        )
        return {
            "boxes": [rng.normal(size=(2, 3, 20, 25)), boxes],
            "awkward": [rng.normal(size=(2, 3, 20, 25)), awkward],
            "4-D rois, odd channels": [rng.normal(size=(2, 67, 5, 6)), boxes.reshape(40, 5, 1, 1)],
            "ties": [rng.integers(0, 3, (2, 2, 20, 25)).astype(float), boxes],
            "no rois": [rng.normal(size=(1, 2, 5, 5)), np.zeros((0, 5))],
        }

    no_gradient = ("awkward", "ties")  # a reversed region pools, but passes no gradient: see below

    def expected(self, data, rois):
        p = self.param.roi_pooling_param
        return roi_pool(data, rois, p.pooled_h, p.pooled_w, p.spatial_scale)[0]

    @pytest.mark.parametrize("phase", [0, 1])
    @pytest.mark.parametrize("which", ["boxes", "awkward", "ties"])
    def test_where_the_gradient_goes(self, device, variant, which, phase):
        arrays = self._cases()[which]
        layer, bottoms, tops = self.build(device, arrays, variant)
        layer.phase = phase  # a TEST net saves no argmax on the CPU
        top_diff = np.random.default_rng(1).normal(size=tops[0].shape)
        layer.forward(bottoms, tops)
        tops[0].diff[...] = device.xp.asarray(top_diff)
        bottoms[1].diff[...] = 5
        layer.backward(tops, [True, True], bottoms)
        p = self.param.roi_pooling_param
        want = gradient(*arrays, p.pooled_h, p.pooled_w, p.spatial_scale, top_diff)
        np.testing.assert_allclose(device.to_host(bottoms[0].diff), want, rtol=1e-12, atol=1e-12)
        assert not device.to_host(bottoms[1].diff).any(), "rois are constants"


BINS = 'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 7 spatial_scale: 1 }'


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [57, 114, 121, 228, 235])
def test_bins_are_float32(device, width, dtype):
    """ceil(7 * f32(width / 7)) is width + 1: the last bin reads one cell past the region, which gets no gradient."""
    case = LayerCase()
    case.layer = BINS
    data = np.arange(300.0).reshape(1, 1, 1, 300)
    layer, bottoms, tops = case.build(device, [data, np.array([[0, 10, 0, 10 + width - 1, 0]])], dtype=dtype)
    layer.forward(bottoms, tops)
    assert float(tops[0].data[0, 0, 0, 6]) == 10 + width
    tops[0].diff[...] = 1
    layer.backward(tops, [True, False], bottoms)
    assert float(bottoms[0].diff.sum()) == 6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_corners_are_float32(device, dtype):
    """5 * f32(0.7) is 3.5 in float32, which rounds to 4, and 3.49999994 in float64."""
    case = LayerCase()
    case.layer = 'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 spatial_scale: 0.7 }'
    data = np.arange(10.0).reshape(1, 1, 1, 10)
    layer, bottoms, tops = case.build(device, [data, np.array([[0, 5, 0, 5, 0]])], dtype=dtype)
    layer.forward(bottoms, tops)
    assert float(tops[0].data.sum()) == 4
    tops[0].diff[...] = 1
    layer.backward(tops, [True, False], bottoms)
    np.testing.assert_array_equal(device.to_host(bottoms[0].diff).ravel(), data.ravel() == 4)


def test_nan_is_never_a_maximum(device):
    case = LayerCase()
    case.layer = 'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 2 spatial_scale: 1 }'
    data = np.array([np.nan, 2.0, np.nan, np.nan]).reshape(1, 1, 1, 4)
    layer, bottoms, tops = case.build(device, [data, np.array([[0, 0, 0, 3, 0]])])
    layer.forward(bottoms, tops)
    np.testing.assert_array_equal(device.to_host(tops[0].data).ravel(), [2, -np.finfo(np.float32).max])
    tops[0].diff[...] = 1
    layer.backward(tops, [True, False], bottoms)
    np.testing.assert_array_equal(device.to_host(bottoms[0].diff).ravel(), [0, 1, 0, 0])


@pytest.mark.parametrize(
    "row", [[2, 0, 0, 9, 9], [-1, 0, 0, 9, 9], [np.nan, 0, 0, 9, 9], [0, 0, np.nan, 9, 9], [1, 0, 0, np.inf, 9]]
)
def test_a_region_that_makes_no_sense(device, row):
    """An error that names it; on a GPU, where the layer cannot look, NaN: the loss will tell."""
    case = LayerCase()
    case.layer = 'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 }'
    rois = np.array([[0, 0, 0, 9, 9], row, [1, 0, 0, 9, 9]])
    layer, bottoms, tops = case.build(device, [np.ones((2, 3, 5, 5)), rois])
    if not device.is_gpu:
        with pytest.raises(DataError, match=r"layer 'layer' \(ROIPooling\): row 1 of rois"):
            layer.forward(bottoms, tops)
        return
    layer.forward(bottoms, tops)
    top = device.to_host(tops[0].data)
    assert np.isnan(top[1]).all() and (top[[0, 2]] == 1).all()
    tops[0].diff[...] = 1
    layer.backward(tops, [True, False], bottoms)
    assert float(bottoms[0].diff.sum()) == 2 * 3 * 4


def test_sizes_that_make_no_sense_are_refused(device):
    case = LayerCase()
    case.layer = 'type: "ROIPooling" roi_pooling_param { pooled_h: 0 pooled_w: 7 }'
    with pytest.raises(NetError, match="pooled_h and pooled_w must be > 0, got 0 and 7"):
        case.build(device, [np.zeros((1, 1, 5, 5)), np.zeros((2, 5))])
    case.layer = BINS
    with pytest.raises(ShapeError, match=r"rois must have shape \(R, 5\), got \(2, 4\)"):
        case.build(device, [np.zeros((1, 1, 5, 5)), np.zeros((2, 4))])
    with pytest.raises(ShapeError, match=r"data must have shape \(N, C, H, W\), got \(5, 5\)"):
        case.build(device, [np.zeros((5, 5)), np.zeros((2, 5))])
