"""Detector: what it returns for images of every kind, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import caffe_lite
from caffe_lite import models
from caffe_lite.data.config import cfg
from caffe_lite.data.nms import nms
from caffe_lite.data.pascal_voc import VOC_CLASSES
from caffe_lite.errors import DataError, NetError, WeightsError
from caffe_lite.fast_rcnn import Detector
from caffe_lite.fast_rcnn.detector import class_names
from caffe_lite.fast_rcnn.test import im_detect

NAMES = ("__background__", "disc", "ring", "square", "triangle", "star", "cross")
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def random_file(folder: Path, name: str) -> Path:
    """Weights of models/mini/NAME whose scores differ between regions."""
    net = caffe_lite.Net(str(models.path(f"mini/{name}")), caffe_lite.TEST)
    rng = np.random.default_rng(1)
    for layer, blobs in net.params.items():
        spread = 0.003 if layer == "conv1" else 0.06
        blobs[0].data[...] = spread * rng.standard_normal(blobs[0].shape)
    net.save(str(folder / "random.caffemodel"))
    return folder / "random.caffemodel"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_file(tmp_path_factory.mktemp("weights"), "test.prototxt")


@pytest.fixture(autouse=True)
def settings() -> None:
    cfg.TEST.SCALES = (60,)


def regions(count: int = 40) -> np.ndarray:
    corners = np.random.default_rng(2).integers(0, (60, 35), (count, 2))
    return np.hstack((corners, corners + np.random.default_rng(3).integers(6, 24, (count, 2)))).astype(np.uint16)


def detector(weights: Path, **options: Any) -> Detector:
    return Detector("models/mini/test.prototxt", weights, NAMES, **options)


def test_detections_are_those_of_im_detect_after_the_score_and_nms(weights: Path) -> None:
    detect = detector(weights, conf=0.15, nms=0.4)
    boxes, scores, classes = detect(IMAGE, regions())
    every, moved = im_detect(detect.net, IMAGE, regions())
    expected = []
    for k in range(1, 7):
        dets = np.hstack((moved[:, 4 * k : 4 * k + 4], every[:, k : k + 1])).astype(np.float32)
        expected += [(k, *dets[row]) for row in nms(dets, 0.4) if dets[row, 4] >= 0.15]
    assert len(scores) == len(expected) > 5 and len(set(classes)) > 1
    assert boxes.shape == (len(scores), 4) and classes.shape == scores.shape
    assert (boxes.dtype, scores.dtype, classes.dtype) == (np.float32, np.float32, np.int64)
    assert (np.diff(scores) <= 0).all()
    found = [(k, *box, score) for k, box, score in zip(classes, boxes, scores, strict=True)]
    assert sorted(found) == sorted(expected)
    assert {detect.classes[k] for k in classes} <= set(NAMES[1:])


def test_a_file_and_its_pixels_give_the_same(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), IMAGE)
    detect = detector(weights, conf=0.0)
    for image in (path, str(path)):
        for a, b in zip(detect(image, regions()), detect(IMAGE, regions().tolist()), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bits"])
def test_images_of_other_kinds(weights: Path, kind: str) -> None:
    given, meant = {
        "grey": (IMAGE[:, :, 0], np.repeat(IMAGE[:, :, :1], 3, axis=2)),
        "alpha": (np.dstack((IMAGE, IMAGE[:, :, 0])), IMAGE),
        "16 bits": (IMAGE.astype(np.uint16) << 8, IMAGE),
    }[kind]
    detect = detector(weights, conf=0.0)
    for a, b in zip(detect(given, regions()), detect(meant, regions()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_regions_are_searched_where_none_are_given(weights: Path) -> None:
    image = np.full((90, 120, 3), 60, np.uint8)
    image[20:70, 30:90] = (20, 200, 220)
    boxes, scores, classes = detector(weights, conf=0.0)(image)
    assert len(boxes) == len(scores) == len(classes) > 0


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4))])
def test_no_regions_give_no_detections(weights: Path, boxes: Any) -> None:
    boxes, scores, classes = detector(weights, conf=0.0)(IMAGE, boxes)
    assert boxes.shape == (0, 4) and scores.shape == classes.shape == (0,)


def test_nothing_over_the_score_gives_no_detections(weights: Path) -> None:
    assert len(detector(weights, conf=1.1)(IMAGE, regions()).scores) == 0


def test_a_net_without_box_regression_returns_regions(tmp_path: Path) -> None:
    path = random_file(tmp_path, "no_bbox_reg/test.prototxt")
    boxes, _, _ = Detector("models/mini/no_bbox_reg/test.prototxt", path, conf=0.0)(IMAGE, regions())
    assert {tuple(box) for box in boxes.tolist()} <= {tuple(map(float, box)) for box in regions().tolist()}
    assert cfg.TEST.BBOX_REG is True


@pytest.mark.parametrize(
    ("image", "boxes", "said"),
    [
        ("absent.jpg", [[0, 0, 5, 5]], "absent.jpg: cannot read the image"),
        (IMAGE, [[0, 0, 5, 5], [0, 0, 90, 5]], "row 1, (0, 0, 90, 5) (x1, y1, x2, y2), is reversed or outside"),
        (IMAGE, [[10, 0, 5, 5]], "row 0"),
        (IMAGE, [[0, 0, float("nan"), 5]], "row 0"),
        (IMAGE, [0, 0, 5, 5], "boxes must be numbers of shape (R, 4), got int64 (4,)"),
        (IMAGE.astype(np.float32), [[0, 0, 5, 5]], "must be uint8"),
    ],
)
def test_what_cannot_be_detected_on_is_refused(weights: Path, image: Any, boxes: Any, said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        detector(weights)(image, boxes)


def test_names_are_vocs_or_numbers_unless_given() -> None:
    assert class_names(None, 21) == ("__background__", *VOC_CLASSES)
    assert class_names(None, 3) == ("class 0", "class 1", "class 2")
    with pytest.raises(DataError, match="7 class names, background included, for a net with 21 classes"):
        class_names(NAMES, 21)


def test_weights_and_nets_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no weights for fc6_L, fc6_U"):
        Detector("models/mini/compressed/test.prototxt", weights)
    other = tmp_path / "other.prototxt"
    other.write_text('name: "other" layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 } } }')
    with pytest.raises(NetError, match="has no blob 'cls_prob'"):
        Detector(other, weights)
