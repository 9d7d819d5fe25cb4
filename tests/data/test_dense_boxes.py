"""Dense boxes: as many as asked for, inside the image, over scales, ratios and positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.data.boxes import bbox_overlaps
from caffe_lite.data.dense_boxes import COUNT, dense_boxes, nearest_dense, sample_boxes
from caffe_lite.errors import DataError


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 3000))
def test_boxes_lie_in_the_image_and_none_is_there_twice(width, height, count):
    boxes = dense_boxes(width, height, count)
    assert boxes.dtype == np.uint16 and 1 <= len(boxes) <= count
    assert (boxes[:, :2] <= boxes[:, 2:]).all() and (boxes[:, 2] < width).all() and (boxes[:, 3] < height).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (640, 480), (200, 150)])
def test_about_45000_an_image(size):
    assert 0.98 * COUNT < len(dense_boxes(*size)) <= COUNT


def test_scales_ratios_and_positions_are_covered():
    boxes = dense_boxes(500, 375).astype(float)
    assert [0, 0, 499, 374] in boxes.tolist(), "the whole image"
    w, h = (boxes[:, 2:] - boxes[:, :2] + 1).T
    assert (w * h).min() < 2 * 500 * 375 / 256 and (w / h).min() < 0.4 and (w / h).max() > 2.5
    # any box of a usual shape and place has a dense one that overlaps it well
    rng = np.random.default_rng(0)
    side = rng.uniform(40, 250, (300, 2))
    corner = rng.uniform(0, 1, (300, 2)) * (np.array([500, 375]) - side)
    wanted = np.hstack((corner, corner + side - 1))[(np.abs(np.log(side[:, 0] / side[:, 1])) < np.log(3))]
    assert bbox_overlaps(wanted, boxes).max(axis=1).mean() > 0.7


def test_a_sample_depends_on_the_seed_alone():
    boxes = dense_boxes(200, 150)
    chosen = sample_boxes(boxes, 100, 3)
    assert np.array_equal(chosen, sample_boxes(boxes, 100, 3)) and not np.array_equal(
        chosen, sample_boxes(boxes, 100, 4)
    )
    assert len(np.unique(chosen, axis=0)) == 100 and {*map(tuple, chosen)} < {*map(tuple, boxes)}
    assert sample_boxes(boxes, None, 3) is boxes and sample_boxes(boxes, len(boxes), 3) is boxes


def test_nearest_is_the_dense_box_of_largest_overlap():
    rng = np.random.default_rng(1)
    corner = rng.integers(0, 100, (20, 2))
    boxes = np.hstack((corner, corner + rng.integers(10, 49, (20, 2)))).astype(np.uint16)
    grid = dense_boxes(150, 150, 2000)
    expected = list(dict.fromkeys(bbox_overlaps(boxes, grid).argmax(axis=1).tolist()))
    np.testing.assert_array_equal(nearest_dense(boxes, 150, 150, 2000), grid[expected])
    assert nearest_dense(boxes[:0], 150, 150).shape == (0, 4)


@pytest.mark.parametrize("given", [(0, 5, 9), (5, 70000, 9), (5, 5, 0)])
def test_impossible_sizes(given):
    with pytest.raises(DataError, match="dense boxes"):
        dense_boxes(*given)
