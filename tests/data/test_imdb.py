"""Imdb: overlaps of proposals, merging, flipping, recall; against the original's roidb too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe_lite.data.boxes import bbox_overlaps
from caffe_lite.data.imdb import Imdb
from caffe_lite.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "pipeline" / "roidb.npz"


class Given(Imdb):
    """Images of a given size with given ground truth and proposals."""

    def __init__(self, gt, proposals, size=(100, 80), num_classes=4):
        classes = ["__background__", *(f"class{i}" for i in range(1, num_classes))]
        super().__init__("given", classes, [f"im{i}" for i in range(len(gt))])
        self.gt, self.proposals, self.size = gt, proposals, size
        self.roidb_handler = self.with_proposals

    def image_size_at(self, i):
        return self.size[i % len(self.size)] if isinstance(self.size, list) else self.size

    def gt_roidb(self):
        import scipy.sparse

        entries = []
        for boxes, classes in self.gt:
            overlaps = np.zeros((len(boxes), self.num_classes), np.float32)
            overlaps[np.arange(len(boxes)), classes] = 1
            entries.append(
                {
                    "boxes": np.array(boxes, np.uint16).reshape(-1, 4),
                    "gt_classes": np.array(classes, np.int32),
                    "gt_overlaps": scipy.sparse.csr_matrix(overlaps),
                    "flipped": False,
                }
            )
        return entries

    def with_proposals(self):
        gt = self.gt_roidb()
        return self.merge_roidbs(gt, self.create_roidb_from_box_list(self.proposals, gt))


def test_roidb_is_the_originals():
    golden = np.load(GOLDEN)
    imdb = Given(
        [(golden[f"gt_boxes_{i}"], golden[f"gt_classes_{i}"]) for i in range(2)],
        [golden[f"proposals_{i}"] for i in range(2)],
        size=[tuple(golden[f"image_wh_{i}"]) for i in range(2)],
        num_classes=int(golden["num_classes"]),
    )
    imdb.append_flipped_images()
    assert imdb.num_images == len(imdb.roidb) == int(golden["num_entries"])
    for i, entry in enumerate(imdb.roidb):
        for key in ("boxes", "gt_classes"):
            np.testing.assert_array_equal(entry[key], golden[f"e{i}_{key}"])
            assert entry[key].dtype == golden[f"e{i}_{key}"].dtype
        np.testing.assert_array_equal(entry["gt_overlaps"].toarray(), golden[f"e{i}_gt_overlaps"])
        assert entry["gt_overlaps"].dtype == np.float32
        assert entry["flipped"] == golden[f"e{i}_flipped"]


def test_overlap_goes_to_the_first_best_object_only():
    # the proposal overlaps both objects equally: the first wins, and the other's class stays 0
    imdb = Given([([(10, 10, 19, 19), (30, 10, 39, 19)], [3, 1])], [np.array([(10, 10, 39, 19), (60, 60, 70, 70)])])
    overlaps = imdb.roidb[0]["gt_overlaps"].toarray()
    expected = bbox_overlaps(np.array([[10.0, 10, 39, 19]]), np.array([[10.0, 10, 19, 19]]))[0, 0]
    np.testing.assert_array_equal(overlaps[2], np.float32([0, 0, 0, expected]))
    assert not overlaps[3].any() and imdb.roidb[0]["gt_overlaps"].nnz == 3, "no overlap is not stored"


def test_ground_truth_comes_first_and_images_may_have_none_of_either():
    imdb = Given([([(1, 2, 9, 9)], [2]), ([], [])], [np.zeros((0, 4)), np.array([(5, 5, 9, 9)], np.uint16)])
    first, second = imdb.roidb
    assert first["boxes"].tolist() == [[1, 2, 9, 9]] and first["gt_classes"].tolist() == [2]
    assert second["boxes"].tolist() == [[5, 5, 9, 9]] and second["gt_overlaps"].toarray().tolist() == [[0, 0, 0, 0]]


def test_flipping_mirrors_the_columns():
    imdb = Given([([(0, 3, 10, 20)], [1])], [np.array([(89, 0, 99, 79)])], size=(100, 80))
    imdb.append_flipped_images()
    original, mirrored = imdb.roidb
    assert mirrored["boxes"].tolist() == [[89, 3, 99, 20], [0, 0, 10, 79]] and mirrored["flipped"]
    assert original["boxes"].tolist() == [[0, 3, 10, 20], [89, 0, 99, 79]] and not original["flipped"]
    assert mirrored["gt_overlaps"] is original["gt_overlaps"]
    assert imdb.image_index == ["im0", "im0"]
    with pytest.raises(DataError, match="already"):
        imdb.append_flipped_images()


def test_flipping_refuses_a_box_wider_than_the_image():
    imdb = Given([([(0, 0, 100, 9)], [1])], [np.zeros((0, 4))], size=(100, 80))
    imdb.image_path_at = lambda i: "folder/im0.jpg"
    with pytest.raises(DataError, match=r"folder/im0\.jpg.*x = 100.*100 pixels"):
        imdb.append_flipped_images()


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ((5, 5, 4, 9), "row 1.*5, 5, 4"),
        ((-1, 0, 4, 9), "-1, 0"),
        ((0, 0, 65536, 9), "65536"),
        ((0, np.nan, 1, 1), "nan"),
    ],
)
def test_impossible_proposals_are_refused(box, what):
    with pytest.raises(DataError, match=f"given: proposals of image 'im0'.*{what}"):
        Given([([], [])], [np.array([(0, 0, 1, 1), box])]).roidb  # noqa: B018


def test_wrong_number_of_lists_is_refused():
    with pytest.raises(DataError, match="2 lists of proposals for 1 images"):
        Given([([], [])], [np.zeros((0, 4))] * 2).roidb  # noqa: B018


def test_recall_matches_one_to_one():
    # one candidate lies on two objects; it may serve only the one it covers better
    gt = ([(0, 0, 9, 9), (0, 0, 9, 11), (50, 50, 59, 59)], [1, 1, 2])
    candidates = [np.array([(0, 0, 9, 10), (50, 50, 59, 54)])]
    recall = Given([gt], candidates).evaluate_recall()
    # IoU 11/12 with the second object, 10/11 with the first; the first is left with nothing
    np.testing.assert_allclose(recall.gt_overlaps, [0, 0.5, 11 / 12])
    assert recall.at(0.5) == 2 / 3 and recall.at(0.95) == 0
    assert recall.thresholds[0] == 0.5 and recall.thresholds[-1] == 1.0 and len(recall.recalls) == 501
    definition = [np.mean(np.array([0, 0.5, 11 / 12]) >= t) for t in recall.thresholds]
    np.testing.assert_array_equal(recall.recalls, definition)


def test_average_recall_is_the_area_under_recall():
    gt = ([(0, 0, 9, 9)], [1])
    assert Given([gt], [np.array([(0, 0, 9, 9)])]).evaluate_recall().ar == pytest.approx(1.0)
    half = Given([gt], [np.array([(0, 0, 9, 7)])]).evaluate_recall()  # IoU 0.8: recall 1 from 0.5 to 0.8
    assert half.ar == pytest.approx(0.6, abs=0.002)


def test_an_image_without_candidates_is_left_out_or_counts_as_missed():
    imdb = Given([([(0, 0, 9, 9)], [1]), ([(0, 0, 9, 9)], [1])], [np.array([(0, 0, 9, 9)]), np.zeros((0, 4))])
    assert imdb.evaluate_recall().at(0.5) == 1, "as in the original"
    assert imdb.evaluate_recall(count_empty=True).at(0.5) == 0.5
    assert imdb.evaluate_recall([np.zeros((0, 4))] * 2, count_empty=True).at(0.5) == 0
    assert imdb.evaluate_recall([np.array([(60, 60, 69, 69), (0, 0, 9, 9)])] * 2, limit=1).at(0.5) == 0


def test_competition_mode():
    imdb = Given([([], [])], [np.zeros((0, 4))])
    assert imdb.config["use_salt"] and imdb.config["cleanup"]
    imdb.competition_mode(True)
    assert not imdb.config["use_salt"] and not imdb.config["cleanup"]


def test_classes_start_with_the_background():
    with pytest.raises(DataError, match="__background__"):
        Imdb("x", ["cat", "__background__"])
    with pytest.raises(DataError, match="distinct"):
        Imdb("x", ["__background__", "cat", "cat"])
