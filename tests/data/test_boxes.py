"""Box arithmetic: each formula against its definition, and the properties it must have."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.data.boxes import bbox_overlaps, bbox_transform, bbox_transform_inv, best_overlaps, clip_boxes

corners = st.integers(0, 500)


@st.composite
def box_lists(draw, min_size=0, least=0):
    """(N, 4) boxes with integer corners and x2 - x1, y2 - y1 >= least."""
    rows = []
    for _ in range(draw(st.integers(min_size, 6))):
        x, y = draw(corners), draw(corners)
        rows.append((x, y, x + draw(st.integers(least, 300)), y + draw(st.integers(least, 300))))
    return np.array(rows, dtype=np.uint16).reshape(-1, 4)


def pixels(box):
    x1, y1, x2, y2 = (int(v) for v in box)
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


@settings(max_examples=100, deadline=None)
@given(box_lists(), box_lists())
def test_best_overlap_is_the_first_maximum_of_the_row(boxes, query):
    best, which = best_overlaps(boxes, query)
    iou = bbox_overlaps(boxes, query) if len(query) else np.zeros((len(boxes), 1))
    np.testing.assert_array_equal(best, iou.max(axis=1))
    np.testing.assert_array_equal(which, iou.argmax(axis=1))
    np.testing.assert_array_equal(best_overlaps(boxes, np.concatenate((query, query)))[1], which)  # of equals the first


def test_overlap_counts_pixels():
    boxes = np.array([[0, 0, 9, 9], [5, 5, 5, 5], [9, 9, 12, 10], [10, 0, 12, 3], [2, 3, 7, 11]], dtype=np.uint16)
    expected = [[len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)) for b in boxes] for a in boxes]
    overlaps = bbox_overlaps(boxes, boxes)
    assert overlaps.dtype == np.float64
    np.testing.assert_array_equal(overlaps, expected)
    assert overlaps[0, 2] > 0 and overlaps[0, 3] == 0  # one shared pixel, and neighbours that share none


def test_overlap_of_nothing():
    some = np.array([[0, 0, 1, 1]])
    assert bbox_overlaps(np.zeros((0, 4)), some).shape == (0, 1)
    assert bbox_overlaps(some, np.zeros((0, 4))).shape == (1, 0)


@settings(max_examples=60, deadline=None)
@given(box_lists(), box_lists())
def test_overlap_is_symmetric_in_0_to_1_and_1_only_for_equal_boxes(first, second):
    overlaps = bbox_overlaps(first, second)
    np.testing.assert_array_equal(overlaps, bbox_overlaps(second, first).T)
    assert ((overlaps >= 0) & (overlaps <= 1)).all()
    equal = (first[:, None] == second[None]).all(axis=2)
    np.testing.assert_array_equal(overlaps == 1, equal)


def test_targets_by_hand():
    # widths 10 and 20, heights 20 and 10 (no + 1); centres (5, 10) and (20, 5)
    boxes, gt = np.array([[0, 0, 10, 20]]), np.array([[10, 0, 30, 10]])
    np.testing.assert_allclose(bbox_transform(boxes, gt), [[1.5, -0.25, np.log(2), -np.log(2)]], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(box_lists(min_size=1, least=1), st.integers(0, 2**32 - 1))
def test_decoding_undoes_encoding(boxes, seed):
    rng = np.random.default_rng(seed)
    gt = boxes + np.array([0, 0, 1, 1]) * rng.integers(1, 50, boxes.shape)
    deltas = bbox_transform(boxes, gt)
    np.testing.assert_allclose(bbox_transform_inv(boxes, deltas), gt, rtol=1e-9, atol=1e-7)
    assert np.all(bbox_transform(boxes, boxes) == 0)


def test_decoding_is_class_major_and_takes_no_boxes():
    boxes = np.array([[0, 0, 10, 20], [4, 4, 8, 8]])
    deltas = np.zeros((2, 12), dtype=np.float32)
    deltas[:, 4] = 1.0  # class 1 moves right by one width
    decoded = bbox_transform_inv(boxes, deltas)
    assert decoded.dtype == np.float64
    np.testing.assert_allclose(decoded[:, 0:4], boxes, atol=1e-12)
    np.testing.assert_allclose(decoded[:, 4:8], boxes + [[10, 0, 10, 0], [4, 0, 4, 0]], atol=1e-12)
    assert bbox_transform_inv(np.zeros((0, 4)), np.zeros((0, 12), np.float32)).shape == (0, 12)


def test_an_overflowing_size_is_clipped_to_the_image():
    deltas = np.array([[0, 0, 1000, 1000]], dtype=np.float32)
    with np.errstate(all="raise"):
        boxes = clip_boxes(bbox_transform_inv(np.array([[3, 3, 9, 9]]), deltas), (40, 50))
    np.testing.assert_array_equal(boxes, [[0, 0, 49, 39]])


def test_clipping_moves_only_the_near_corner_up_and_the_far_corner_down():
    boxes = np.array([[-3.0, -4.0, 60.0, 70.0, 55.0, 45.0, -5.0, -6.0]])
    assert clip_boxes(boxes, (40, 50, 3)) is boxes
    np.testing.assert_array_equal(boxes, [[0, 0, 49, 39, 55, 45, -5, -6]])
