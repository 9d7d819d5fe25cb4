"""Non-maximum suppression: what the original kept, and the definition on random boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.data.boxes import bbox_overlaps
from caffe_lite.data.nms import nms

GOLDEN = Path(__file__).parents[1] / "golden" / "pipeline" / "nms_plain.npz"


@pytest.mark.parametrize("case", range(5))
def test_keeps_what_the_original_kept(case):
    golden = np.load(GOLDEN)
    keep = nms(golden[f"dets{case}"], float(golden[f"thresh{case}"]))
    np.testing.assert_array_equal(keep, golden[f"keep{case}"])


def test_nothing_in_nothing_out():
    assert nms(np.zeros((0, 5), np.float32), 0.3).tolist() == []


def test_an_overlap_equal_to_the_threshold_is_dropped():
    dets = np.array([[0, 0, 9, 9, 0.9], [0, 0, 9, 4, 0.8]], np.float32)  # overlap 50 / 100
    assert nms(dets, 0.5).tolist() == [0]
    assert nms(dets, 0.5000001).tolist() == [0, 1]


def test_the_threshold_is_not_rounded_to_float32():
    dets = np.array([[0, 0, 9, 9, 0.9], [0, 0, 2, 9, 0.8]], np.float32)  # 3/10: float32 is above, float64 below
    assert nms(dets, 0.3).tolist() == [0]
    assert nms(dets, float(np.nextafter(np.float64(np.float32(0.3)), 1))).tolist() == [0, 1]


def test_overlaps_are_float32():
    dets = np.array([[0, 0, 9, 9, 0.9], [0, 0, 2, 9, 0.8]], np.float32)
    assert 0.3 < 0.300000005 < float(np.float32(0.3))
    assert nms(dets, 0.300000005).tolist() == [0]


def test_equal_scores_have_a_fixed_order():
    apart = 10 * np.arange(120.0)
    scores = np.tile([0.5, 0.7, 0.6], 40)
    dets = np.stack([apart, apart * 0, apart + 1, apart * 0 + 1, scores], axis=1)
    assert nms(dets, 0.5).tolist() == sorted(range(120), key=lambda row: (-scores[row], -row))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.05, 0.95))
def test_kept_boxes_are_apart_and_dropped_ones_overlap_a_better_one(seed, count, thresh):
    rng = np.random.default_rng(seed)
    near = rng.uniform(0, 60, (count, 2))
    dets = np.hstack([near, near + rng.uniform(1, 60, (count, 2)), rng.permutation(count)[:, None]]).astype(np.float32)
    keep = nms(dets, thresh)
    overlaps = bbox_overlaps(dets[:, :4], dets[:, :4])
    slack = 1e-5  # nms works in float32
    assert (np.diff(dets[keep, 4]) < 0).all()
    among = overlaps[np.ix_(keep, keep)] - np.eye(len(keep))
    assert (among < thresh + slack).all()
    for row in set(range(count)) - set(keep.tolist()):
        better = keep[dets[keep, 4] > dets[row, 4]]
        assert (overlaps[row, better] >= thresh - slack).any()
