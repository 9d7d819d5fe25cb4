"""Detection on one image and on a whole imdb, against slow versions written from the definition.

The net is a stand-in: a function of the regions it is given, so that every number can be foreseen.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from caffe_lite.blob import Blob
from caffe_lite.data.config import cfg
from caffe_lite.data.nms import nms
from caffe_lite.errors import DataError, NetError
from caffe_lite.fast_rcnn import test as detection
from caffe_lite.fast_rcnn.test import ScoreCap, apply_nms, detect_all, im_detect, project_rois

K = 3


class FakeNet:
    """Scores and deltas by ``rule(rois)``; ``seen`` holds the rois of every forward."""

    name = "fake"

    def __init__(self, rule: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
        self.rule = rule
        self.blobs = {name: Blob((1, K)) for name in ("cls_score", "cls_prob", "bbox_pred")}
        self.blobs.update(data=Blob((1, 3, 8, 8)), rois=Blob((1, 5)))
        self.seen: list[np.ndarray] = []

    def forward(self, data: np.ndarray, rois: np.ndarray) -> dict[str, np.ndarray]:
        assert self.blobs["data"].shape == data.shape and self.blobs["rois"].shape == rois.shape
        assert data.dtype == rois.dtype == np.float32
        self.seen.append(rois.copy())
        scores, deltas = self.rule(rois)
        for name, values in (("cls_score", scores * 10), ("cls_prob", scores), ("bbox_pred", deltas)):
            self.blobs[name].reshape(values.shape)
            self.blobs[name].data[...] = values
        return {name: self.blobs[name].data for name in ("cls_prob", "bbox_pred")}


def by_coordinates(rois: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different for every region, and nothing but a function of it."""
    grid = np.sin(rois[:, 1:] @ np.arange(1, 5)[:, np.newaxis] * np.arange(1, K + 1))
    deltas = 0.1 * np.cos(rois[:, 1:2] + rois[:, 2:3] * np.arange(1, 4 * K + 1))
    return grid.astype(np.float32), deltas.astype(np.float32)


def constant(scores: list[float], deltas: list[float]) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    def rule(rois: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = np.ones((len(rois), 1), np.float32)
        return shape * np.float32(scores), shape * np.float32(deltas)

    return rule


@pytest.fixture(autouse=True)
def settings() -> None:
    cfg.TEST.SCALES = (60,)


IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_decoding_by_hand() -> None:
    """Width 20 - 10 (no + 1), centre 15; dx 0.5 -> centre 20; dw log 2 -> width 20 -> 10..30."""
    deltas = [0.0] * 4 + [0.5, 0.0, np.log(2), 0.0] + [-0.25, 0.5, 0.0, np.log(3)]
    net = FakeNet(constant([0.1, 0.2, 0.7], deltas))
    scores, boxes = im_detect(net, IMAGE, np.array([[10, 10, 20, 30]], np.uint16))
    assert scores[0] == pytest.approx([0.1, 0.2, 0.7])
    assert boxes[0, :4] == pytest.approx([10, 10, 20, 30])
    assert boxes[0, 4:8] == pytest.approx([10, 10, 30, 30])
    # x: centre 15 - 2.5; y: centre 20 + 10, height 60 -> 0..60, cut to the last row, 59
    assert boxes[0, 8:] == pytest.approx([7.5, 0, 17.5, 59])


def test_boxes_are_clipped_to_the_image() -> None:
    net = FakeNet(constant([0, 0, 1], [0, 0, 3, 3] * K))
    _, boxes = im_detect(net, IMAGE, np.array([[30, 20, 60, 40]]))
    assert boxes[0].tolist() == [0, 0, 89, 59] * K


def test_without_box_regression_the_regions_are_returned() -> None:
    cfg.TEST.BBOX_REG = False
    regions = np.array([[1, 2, 30, 40], [5, 6, 70, 50]], np.uint16)
    _, boxes = im_detect(FakeNet(by_coordinates), IMAGE, regions)
    assert boxes.tolist() == np.tile(regions, (1, K)).tolist()


def test_svm_mode_takes_the_scores_before_the_softmax() -> None:
    cfg.TEST.SVM = True
    scores, _ = im_detect(FakeNet(constant([0.1, 0.2, 0.7], [0] * 12)), IMAGE, np.array([[1, 2, 30, 40]]))
    assert scores[0] == pytest.approx([1, 2, 7])


def test_deduplication_changes_no_number() -> None:
    """Repeated regions, otherwise more than 16 pixels apart: computed once, returned for each, in order."""
    rng = np.random.default_rng(1)
    base = np.array([[x, y, x + 20, y + 17] for x in (1, 19, 37, 55) for y in (2, 20, 38)])
    regions = base[rng.integers(0, len(base), 40)].astype(np.uint16)
    net = FakeNet(by_coordinates)
    once = im_detect(net, IMAGE, regions)
    cfg.DEDUP_BOXES = 0.0
    each = im_detect(net, IMAGE, regions)
    assert len(net.seen[0]) == len(np.unique(regions, axis=0)) < len(net.seen[1]) == 40
    for a, b in zip(once, each, strict=True):
        np.testing.assert_array_equal(a, b)


def test_near_regions_share_their_representative() -> None:
    """At 1/16, x = 17 and x = 20 both round to 1: one forward, and the first region's box for both."""
    net = FakeNet(constant([0, 0, 1], [0] * 12))
    _, boxes = im_detect(net, IMAGE, np.array([[17, 4, 50, 50], [20, 4, 50, 50], [25, 4, 50, 50]]))
    assert len(net.seen[0]) == 2
    assert boxes[:, 0] == pytest.approx([17, 17, 25])


def test_regions_go_to_the_level_of_nearest_area() -> None:
    boxes = np.array(
        [[0, 0, 223, 223], [0, 0, 111, 111], [0, 0, 55, 55], [0, 0, 447, 447], [10, 20, 178, 187]], np.uint16
    )
    scales = np.array([0.5, 1.0, 2.0, 3.0])
    rois = project_rois(boxes, scales)
    area = [(b[2] - b[0] + 1.0) * (b[3] - b[1] + 1.0) for b in boxes.astype(float)]
    levels = [min(range(4), key=lambda s, a=a: abs(a * scales[s] ** 2 - 224**2)) for a in area]
    assert rois[:, 0].tolist() == levels == [1, 2, 3, 0, 1]
    np.testing.assert_array_equal(rois[:, 1:], (boxes * scales[levels][:, np.newaxis]).astype(np.float32))


def test_pyramid_is_one_batch_padded_with_zeros() -> None:
    cfg.TEST.SCALES = (60, 120)
    data, scales = detection.image_pyramid(IMAGE)
    assert data.shape == (2, 3, 120, 180) and scales.tolist() == [1, 2]
    assert not data[0, :, 60:].any() and not data[0, :, :, 90:].any()
    shifted = (IMAGE - cfg.PIXEL_MEANS).astype(np.float32)
    np.testing.assert_array_equal(data[0, :, :60, :90], shifted.transpose(2, 0, 1))
    cfg.TEST.MAX_SIZE = 135
    assert detection.image_pyramid(IMAGE)[1].tolist() == [1, 1.5]


def test_no_regions_no_forward() -> None:
    net = FakeNet(by_coordinates)
    scores, boxes = im_detect(net, IMAGE, np.zeros((0, 4), np.uint16))
    assert scores.shape == (0, K) and boxes.shape == (0, 4 * K) and not net.seen


def test_missing_output_is_named() -> None:
    net = FakeNet(by_coordinates)
    del net.blobs["bbox_pred"]
    with pytest.raises(NetError, match=r"'bbox_pred'.*TEST.BBOX_REG False"):
        im_detect(net, IMAGE, np.array([[1, 2, 30, 40]]))


class FakeImdb:
    name = "fake_test"
    classes = ("__background__", "a", "b")
    num_classes = K

    def __init__(self, folder: Path, regions: list[np.ndarray], gt: list[np.ndarray]) -> None:
        self.image_index = [f"{i:03d}" for i in range(len(regions))]
        self.roidb = [{"boxes": r, "gt_classes": g} for r, g in zip(regions, gt, strict=True)]
        self.folder = folder
        for name in self.image_index:
            cv2.imwrite(str(folder / f"{name}.png"), IMAGE)

    def image_path_at(self, i: int) -> str:
        return str(self.folder / f"{self.image_index[i]}.png")

    def evaluate_detections(self, all_boxes: Any, output_dir: str) -> Any:
        return all_boxes


@pytest.fixture
def imdb(tmp_path: Path) -> FakeImdb:
    rng = np.random.default_rng(2)
    regions, gt = [], []
    for i in range(6):
        corners = rng.integers(0, (80, 50), (50 + 5 * i, 2))
        regions.append(np.hstack((corners, corners + rng.integers(2, 10, corners.shape))).astype(np.uint16))
        gt.append((rng.random(len(corners)) < 0.1).astype(np.int32))
    return FakeImdb(tmp_path, regions, gt)


def slow_detect_all(net: Any, imdb: Any, per_image: int, per_set: int) -> list[list[np.ndarray]]:
    """A heap of the best scores of each class, pushed one by one: the definition."""
    limit = per_set * len(imdb.image_index)
    all_boxes: list[list[Any]] = [[np.zeros((0, 5), np.float32) for _ in imdb.image_index] for _ in range(K)]
    heaps: list[list[float]] = [[] for _ in range(K)]
    thresh = [-np.inf] * K
    for i in range(len(imdb.image_index)):
        entry = imdb.roidb[i]
        scores, boxes = im_detect(net, IMAGE, entry["boxes"])
        for k in range(1, K):
            rows = [r for r in range(len(scores)) if scores[r, k] > thresh[k] and entry["gt_classes"][r] == 0]
            rows = sorted(rows, key=lambda r, k=k, s=scores: -s[r, k])[:per_image]
            for r in rows:
                heapq.heappush(heaps[k], float(scores[r, k]))
                if len(heaps[k]) > limit:
                    heapq.heappop(heaps[k])
                    thresh[k] = heaps[k][0]
            dets = [[*boxes[r, 4 * k : 4 * k + 4], scores[r, k]] for r in rows]
            all_boxes[k][i] = np.array(dets, np.float32).reshape(-1, 5)
    return [[d[d[:, 4] > thresh[k]] for d in all_boxes[k]] for k in range(K)]


@pytest.mark.parametrize(("per_image", "per_set"), [(100, 40), (20, 100), (7, 3), (100, 1)])
def test_caps_keep_what_a_heap_keeps(
    imdb: FakeImdb, monkeypatch: pytest.MonkeyPatch, per_image: int, per_set: int
) -> None:
    monkeypatch.setattr(detection, "PER_IMAGE", per_image)
    monkeypatch.setattr(detection, "PER_SET", per_set)
    net = FakeNet(by_coordinates)
    found, expected = detect_all(net, imdb, progress=False), slow_detect_all(net, imdb, per_image, per_set)
    assert all(len(d) == 0 for d in found[0])
    for k in range(1, K):
        assert sum(map(len, found[k])) > 0
        for a, b in zip(found[k], expected[k], strict=True):
            np.testing.assert_array_equal(a, b)


def test_score_cap_is_the_heaps_minimum() -> None:
    rng = np.random.default_rng(3)
    cap, seen = ScoreCap(10), []
    assert cap.settle() == -np.inf
    for size in (4, 6, 1, 0, 30, 3):
        scores = rng.random(size).astype(np.float32)
        cap.push(scores)
        seen = sorted([*seen, *scores.tolist()])
        assert cap.settle() == (seen[-10] if len(seen) > 10 else -np.inf)


def test_nms_is_for_each_class_and_image() -> None:
    one = np.float32([[0, 0, 10, 10, 0.9], [0, 0, 10, 10, 0.8], [20, 20, 30, 30, 0.7]])
    empty = np.zeros((0, 5), np.float32)
    kept = apply_nms([[empty, empty], [one, empty], [one[:2], one]], 0.3)
    assert [[len(d) for d in images] for images in kept] == [[0, 0], [2, 0], [1, 2]]
    np.testing.assert_array_equal(kept[1][0], one[nms(one, 0.3)])


def test_saved_detections_come_back(imdb: FakeImdb, tmp_path: Path) -> None:
    net = FakeNet(by_coordinates)
    after_nms = detection.test_net(net, imdb, tmp_path / "new" / "folder", progress=False)
    file = tmp_path / "new" / "folder" / "detections.npz"
    all_boxes, classes, images = detection.load_detections(file)
    assert (tuple(classes), images) == (imdb.classes, imdb.image_index)
    for a, b in zip(apply_nms(all_boxes, cfg.TEST.NMS), after_nms, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match="detections.npz: not a file of detections"):
        detection.load_detections(file)


def test_an_image_without_regions_has_no_detections(imdb: FakeImdb) -> None:
    imdb.roidb[2] = {"boxes": np.zeros((0, 4), np.uint16), "gt_classes": np.zeros(0, np.int32)}
    net = FakeNet(by_coordinates)
    found = detect_all(net, imdb, progress=False)
    assert len(net.seen) == 5
    for k in range(1, K):
        assert [len(dets) > 0 for dets in found[k]] == [True, True, False, True, True, True]
        assert found[k][2].shape == (0, 5)


def test_a_net_with_other_classes_is_refused(imdb: FakeImdb) -> None:
    net = FakeNet(lambda rois: (np.zeros((len(rois), 5), np.float32), np.zeros((len(rois), 20), np.float32)))
    with pytest.raises(NetError, match=r"scores 5 classes.*fake_test has 3"):
        detect_all(net, imdb, progress=False)


def test_a_damaged_image_is_named(imdb: FakeImdb) -> None:
    Path(imdb.image_path_at(2)).write_bytes(b"no image")
    with pytest.raises(DataError, match="002.png"):
        detect_all(FakeNet(by_coordinates), imdb, progress=False)


def test_an_unwritable_output_folder_is_refused_before_any_forward(imdb: FakeImdb, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    net = FakeNet(by_coordinates)
    with pytest.raises(DataError, match=r"file.out: cannot write to the output folder"):
        detection.test_net(net, imdb, blocked / "out", progress=False)
    assert not net.seen
