"""ROIPooling against its definition, one bin at a time."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
def test_a_bin_that_reads_a_cell_but_does_not_reach_it(device, dtype):
    """28 bins over 4 cells: 21 f32(1 / 7) is above 3, so bin 20 reads cell 3; 3 / f32(1 / 7) is 21: its first bin."""
    case = LayerCase()
    case.layer = 'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 28 spatial_scale: 1 }'
    layer, bottoms, tops = case.build(
        device, [np.arange(9.0).reshape(1, 1, 1, 9), np.array([[0, 2, 0, 5, 0]])], dtype=dtype
    )
    layer.forward(bottoms, tops)
    assert float(tops[0].data[0, 0, 0, 20]) == 5
    tops[0].diff[...] = 1
    layer.backward(tops, [True, False], bottoms)
    np.testing.assert_array_equal(device.to_host(bottoms[0].diff).ravel(), [0, 0, 7, 7, 6, 7, 0, 0, 0])


def test_a_bin_that_does_not_reach_its_first_cell(device):
    """22 bins over 126 cells: 11 f32(63 / 11) is below 63, so bin 11 reads cell 62; 63 / f32(63 / 11) is 11: its end."""
    case = LayerCase()
    case.layer = 'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 22 spatial_scale: 1 }'
    data = -np.arange(126.0).reshape(1, 1, 1, 126)
    layer, bottoms, tops = case.build(device, [data, np.array([[0, 0, 0, 125, 0]])])
    layer.forward(bottoms, tops)
    assert float(tops[0].data[0, 0, 0, 11]) == -62
    tops[0].diff[...] = 1
    layer.backward(tops, [True, False], bottoms)
    others = [p * 126 // 22 for p in range(22) if p != 11]
    np.testing.assert_array_equal(np.flatnonzero(device.to_host(bottoms[0].diff)), others)


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
    "row",
    [
        [2, 0, 0, 9, 9],
        [-1, 0, 0, 9, 9],
        [np.nan, 0, 0, 9, 9],
        [0, np.nan, 0, 9, 9],
        [0, 0, np.nan, 9, 9],
        [1, 0, 0, np.inf, 9],
        [1, 0, 0, 9, -np.inf],
    ],
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


def whole_numbers(rng, shape):
    """Small ones: their sums are exact in any order, in float32 too."""
    return rng.integers(-9, 10, shape).astype(float)


def backward(device, pooled, data, rois, top_diff=None, dtype="float32"):
    """(top_diff, gradient to data) at scale 1."""
    case = LayerCase()
    case.layer = f'type: "ROIPooling" roi_pooling_param {{ pooled_h: {pooled[0]} pooled_w: {pooled[1]} }}'
    layer, bottoms, tops = case.build(device, [data, rois], dtype=dtype)
    if top_diff is None:
        top_diff = whole_numbers(np.random.default_rng(7), tops[0].shape)
    layer.forward(bottoms, tops)
    tops[0].diff[...] = device.xp.asarray(top_diff, dtype=dtype)
    bottoms[0].diff[...] = 3
    layer.backward(tops, [True, False], bottoms)
    return top_diff, device.to_host(bottoms[0].diff).copy()


def boxes(rng, count, images, height, width, largest):
    """(count, 5) regions of up to ``largest`` cells a side that begin in the map; their images come in no order."""
    x, y = rng.integers(0, width, count), rng.integers(0, height, count)
    w, h = rng.integers(0, largest, (2, count))
    return np.stack([rng.integers(0, images, count), x, y, x + w, y + h], axis=1).astype(float)


def crowded(rng):
    """Hundreds of regions, which one cell wins in as many bins as it lies in; one-cell regions among them."""
    data = rng.normal(size=(1, 1, 12, 12))
    data[0, 0, 6, 5] = 100
    rois = boxes(rng, 150, 1, 7, 6, 3) + [0, 0, 0, 6, 6]
    rois[::5, 1:] = [5, 6, 5, 6]
    return (3, 7), data, rois


GRADIENTS = {
    "many bins on one cell": crowded,
    "images in no order": lambda rng: ((7, 7), rng.normal(size=(3, 5, 9, 11)), boxes(rng, 70, 3, 9, 11, 9)),
    "more RoIs than a warp lists": lambda rng: ((2, 1), rng.normal(size=(2, 1, 8, 9)), boxes(rng, 1200, 2, 8, 9, 5)),
    "a plane of several tiles": lambda rng: ((5, 3), rng.normal(size=(2, 2, 59, 61)), boxes(rng, 60, 2, 59, 61, 50)),
    "more bins than forward holds": lambda rng: (
        (9, 11),
        rng.normal(size=(1, 3, 20, 20)),
        boxes(rng, 9, 1, 20, 20, 20),
    ),
    "one bin": lambda rng: ((1, 1), rng.normal(size=(2, 40, 6, 6)), boxes(rng, 50, 2, 6, 6, 6)),
    "a warp of bins": lambda rng: ((4, 8), rng.normal(size=(2, 33, 6, 6)), boxes(rng, 11, 2, 6, 6, 6)),
    "an image without RoIs": lambda rng: ((2, 2), rng.normal(size=(3, 2, 5, 5)), boxes(rng, 9, 2, 5, 5, 4)),
    "no RoIs": lambda rng: ((7, 7), rng.normal(size=(2, 3, 5, 5)), np.zeros((0, 5))),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_sums_of_whole_numbers_are_exact(device, name, dtype):
    pooled, data, rois = GRADIENTS[name](np.random.default_rng(5))
    data = data.astype("float32").astype(float)  # the same maxima in both
    top_diff, got = backward(device, pooled, data, rois, dtype=dtype)
    np.testing.assert_array_equal(got, gradient(data, rois, *pooled, 1, top_diff))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_of_a_gradient(device, dtype):
    """The same in two runs; and an image's do not depend on the other ones in its batch, nor on their RoIs."""
    rng = np.random.default_rng(8)
    data, rois = rng.integers(0, 4, (2, 3, 9, 11)).astype(float), boxes(rng, 90, 2, 9, 11, 9)
    top_diff = rng.normal(size=(90, 3, 7, 7))
    first, again = (backward(device, (7, 7), data, rois, top_diff, dtype)[1] for _ in range(2))
    assert first.tobytes() == again.tobytes()
    mine = rois[:, 0] == 1
    alone = backward(device, (7, 7), data[1:], rois[mine] * [0, 1, 1, 1, 1], top_diff[mine], dtype)[1]
    assert alone.tobytes() == first[1:].tobytes()


def test_the_bins_of_a_region_are_added_in_order(device):
    top_diff = np.random.default_rng(9).normal(size=(1, 2, 7, 7)).astype("float32")
    got = backward(device, (7, 7), np.ones((1, 2, 3, 3)), np.array([[0.0, 1, 1, 1, 1]]), top_diff)[1]
    for c in range(2):
        assert got[0, c, 1, 1] == functools.reduce(np.add, top_diff[0, c].ravel(), np.float32(0))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (3, 4, 8, 8)]),
    pooled=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    corners=st.lists(st.tuples(*[st.integers(-4, 24)] * 4), max_size=40),
    seed=st.integers(0, 99),
)
def test_any_regions(device, shape, pooled, corners, seed):
    """Ties, reversed and empty regions and such outside the map, corners at halves of cells."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 3, shape).astype(float)
    rois = np.column_stack([rng.integers(0, shape[0], len(corners)), np.array(corners).reshape(-1, 4) / 2])
    top_diff, got = backward(device, pooled, data, rois)
    np.testing.assert_array_equal(got, gradient(data, rois, *pooled, 1, top_diff))
