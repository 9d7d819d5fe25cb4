"""VOC evaluation against a slow, obvious implementation and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite.data.voc_eval import mean_ap, read_voc_results, voc_ap, voc_eval, write_voc_results
from caffe_lite.errors import DataError


def slow_overlap(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0]) + 1
    h = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - w * h)


def slow_eval(detections, gt, use_07_metric):
    listed = [(float(d[4]), image, d[:4]) for image, dets in detections.items() for d in dets]
    listed.sort(key=lambda item: -item[0])  # Python's sort is stable
    positives = sum(not flag for one in gt.values() for flag in one["difficult"])
    taken, right, wrong, rec, prec = set(), 0, 0, [], []
    for _, image, box in listed:
        boxes = gt[image]["boxes"] if image in gt else []
        overlaps = [slow_overlap(box, other) for other in boxes]
        best = max(range(len(overlaps)), key=overlaps.__getitem__) if overlaps else None
        if best is not None and overlaps[best] >= 0.5:
            if not gt[image]["difficult"][best]:
                if (image, best) in taken:
                    wrong += 1
                else:
                    taken.add((image, best))
                    right += 1
        else:
            wrong += 1
        rec.append(right / positives)
        prec.append(right / (right + wrong) if right + wrong else 0.0)
    if use_07_metric:
        ap = sum(max([p for r, p in zip(rec, prec, strict=True) if r >= k / 10], default=0.0) for k in range(11)) / 11
    else:
        ap, before = 0.0, 0.0
        for i, r in enumerate(rec):
            ap += (r - before) * max(prec[i:])
            before = r
    return rec, prec, ap


def random_case(seed):
    """A few images with crowded integer boxes; scores of one decimal, so that many are equal."""
    rng = np.random.default_rng(seed)

    def boxes(count):
        near = rng.integers(0, 12, (count, 2))
        return np.hstack([near, near + rng.integers(3, 15, (count, 2))]).astype(float)

    images = [f"{i:06d}" for i in range(4)]
    detections = {i: np.hstack([boxes(n), rng.integers(0, 10, (n, 1)) / 10]) for i in images for n in [rng.integers(8)]}
    gt = {i: {"boxes": boxes(n), "difficult": rng.random(n) < 0.3} for i in images[1:] for n in [rng.integers(4)]}
    gt["other"] = {"boxes": boxes(2), "difficult": np.array([False, False])}  # an image without detections
    return detections, gt


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_equals_the_slow_evaluation(seed, use_07_metric):
    detections, gt = random_case(seed)
    rec, prec, ap = voc_eval(detections, gt, use_07_metric=use_07_metric)
    slow_rec, slow_prec, slow_ap = slow_eval(detections, gt, use_07_metric)
    np.testing.assert_array_equal(rec, slow_rec)
    np.testing.assert_array_equal(prec, slow_prec)
    assert ap == pytest.approx(slow_ap, abs=1e-12)


def test_ap_by_hand():
    rec, prec = np.array([0.25, 0.25, 0.5, 0.75]), np.array([1.0, 0.5, 2 / 3, 0.75])
    # thresholds 0, .1, .2 see 1.0; .3 to .7 see 0.75; .8 and above nothing
    assert voc_ap(rec, prec, use_07_metric=True) == pytest.approx((3 * 1.0 + 5 * 0.75) / 11)
    assert voc_ap(rec, prec) == pytest.approx(0.25 * 1.0 + 0.5 * 0.75)
    assert voc_ap(np.empty(0), np.empty(0)) == voc_ap(np.empty(0), np.empty(0), True) == 0.0
    assert voc_ap(np.array([1.0]), np.array([1.0])) == voc_ap(np.array([1.0]), np.array([1.0]), True) == 1.0


@pytest.mark.parametrize("tenths", range(1, 11))
def test_a_recall_of_exactly_k_tenths_reaches_threshold_k(tenths):
    rec = np.arange(1, tenths + 1) / 10
    assert voc_ap(rec, np.ones(tenths), use_07_metric=True) == pytest.approx((tenths + 1) / 11)


def gt_of(*boxes, difficult=None):
    return {"a": {"boxes": np.array(boxes, float), "difficult": np.array(difficult or [False] * len(boxes))}}


def test_the_second_hit_of_an_object_is_wrong_even_if_another_object_is_free():
    gt = gt_of([0, 0, 9, 9], [0, 0, 9, 7])  # the second detection overlaps both, the first object most
    dets = {"a": np.array([[0, 0, 9, 9, 0.9], [0, 0, 9, 9, 0.8]])}
    assert voc_eval(dets, gt).prec.tolist() == [1.0, 0.5]


def test_an_overlap_of_exactly_one_half_is_right():
    dets = {"a": np.array([[0, 0, 9, 4, 0.9]])}
    assert voc_eval(dets, gt_of([0, 0, 9, 9])).ap == 1.0
    assert voc_eval(dets, gt_of([0, 0, 9, 10])).ap == 0.0


def test_difficult_objects_count_neither_way():
    gt = gt_of([0, 0, 9, 9], [50, 50, 59, 59], difficult=[True, False])
    dets = {"a": np.array([[0, 0, 9, 9, 0.9], [0, 0, 9, 9, 0.8], [50, 50, 59, 59, 0.7]])}
    rec, prec, ap = voc_eval(dets, gt)
    assert rec.tolist() == [0, 0, 1] and prec.tolist() == [0, 0, 1] and ap == 1.0


def test_of_objects_overlapped_equally_the_first_one_counts():
    dets = {"a": np.array([[0, 0, 9, 9, 0.9]])}
    assert voc_eval(dets, gt_of([0, 0, 9, 8], [0, 1, 9, 9], difficult=[True, False])).ap == 0.0
    assert voc_eval(dets, gt_of([0, 0, 9, 8], [0, 1, 9, 9], difficult=[False, True])).ap == 1.0


def test_equal_scores_count_in_order_of_appearance():
    gt = gt_of([0, 0, 9, 9])
    hit, miss = [0, 0, 9, 9, 0.5], [80, 80, 90, 90, 0.5]
    assert voc_eval({"a": np.array([hit] + [miss] * 30)}, gt).ap == 1.0
    assert voc_eval({"b": np.array([miss]), "a": np.array([hit])}, gt).ap == 0.5
    assert voc_eval({"a": np.array([hit]), "b": np.array([miss])}, gt).ap == 1.0


def test_a_class_without_objects_has_no_ap_and_is_left_out_of_the_mean():
    result = voc_eval({"a": np.array([[0, 0, 9, 9, 0.9]])}, gt_of([0, 0, 9, 9], difficult=[True]))
    assert math.isnan(result.ap)
    assert mean_ap({"cat": 0.5, "dog": 1.0, "absent": result.ap}) == 0.75
    assert voc_eval({}, gt_of([0, 0, 9, 9])).ap == 0.0


def test_bad_arrays_name_the_image():
    with pytest.raises(DataError, match=r"image a: detections must have shape \(N, 5\), got \(1, 4\)"):
        voc_eval({"a": np.zeros((1, 4))}, {})
    with pytest.raises(DataError, match="image a: .* not finite"):
        voc_eval({"a": np.array([[0, 0, 1, 1, np.nan]])}, {})
    with pytest.raises(DataError, match="image a: 1 boxes but 2 difficult"):
        voc_eval({}, gt_of([0, 0, 1, 1], difficult=[True, False]))


def test_results_file(tmp_path):
    path = tmp_path / "det_test_cat.txt"
    detections = {
        "000002": np.array([[0.04, 1, 2, 3.16, 0.12345], [10, 20, 30, 40, 1.0]], np.float32),
        "000001": np.zeros((0, 5)),
        "100%d": np.array([[5, 5, 6, 6, 0.0004]]),
    }
    write_voc_results(path, detections)
    assert path.read_text() == (
        "000002 0.123 1.0 2.0 3.0 4.2\n000002 1.000 11.0 21.0 31.0 41.0\n100%d 0.000 6.0 6.0 7.0 7.0\n"
    )
    back = read_voc_results(path)
    assert list(back) == ["000002", "100%d"]  # an image without detections leaves no trace
    np.testing.assert_allclose(back["000002"], [[0, 1, 2, 3.2, 0.123], [10, 20, 30, 40, 1.0]], atol=1e-12)


def test_a_results_file_may_mix_its_images(tmp_path):
    path = tmp_path / "mixed.txt"
    path.write_text("b 0.9 1 1 2 2\n\na 0.8 1 1 3 3\nb 0.7 1 1 4 4\n")
    back = read_voc_results(path)
    assert list(back) == ["b", "a"]
    assert back["b"].tolist() == [[0, 0, 1, 1, 0.9], [0, 0, 3, 3, 0.7]]
    path.write_text("")
    assert read_voc_results(path) == {}


@pytest.mark.parametrize("line", ["a 0.9 1 1 2", "a 0.9 1 1 2 2 2", "a 0.9 1 1 2 x", "a nan 1 1 2 2"])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "bad.txt"
    path.write_text(f"a 0.5 1 1 2 2\n{line}\nb 0.5 1 1 2 2\n")
    with pytest.raises(DataError, match=r"bad\.txt:2: expected 'id score x1 y1 x2 y2'"):
        read_voc_results(path)


def test_results_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_voc_results(tmp_path / "none.txt")
    with pytest.raises(DataError, match="one word"):
        write_voc_results(tmp_path / "x.txt", {"two words": np.zeros((1, 5))})
    assert list(tmp_path.iterdir()) == []
