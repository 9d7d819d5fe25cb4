"""EdgeBoxes on the gradient's edges, and what is said about a model that is not there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from caffe_lite.data.boxes import bbox_overlaps
from caffe_lite.data.edge_boxes import edge_boxes, gradient_edges, load_model
from caffe_lite.errors import DataError


def rectangle():
    image = np.full((120, 160, 3), 90, np.uint8)
    image[30:90, 40:120] = (20, 200, 240)
    return image


def test_edges_are_thin_and_point_across():
    strength, direction = gradient_edges(rectangle())
    assert strength.shape == direction.shape == (120, 160) and strength.dtype == direction.dtype == np.float32
    assert strength.max() <= 1 and (0 <= direction).all() and (direction < np.pi + 1e-6).all()
    row = np.flatnonzero(strength[60] > 0.5)
    assert 2 <= len(row) <= 4 and {39, 40} & {*row} and {119, 120} & {*row}, "one or two pixels a side"
    np.testing.assert_allclose(np.sin(direction[60, row]), 0, atol=1e-3)  # left and right sides: along x
    column = np.flatnonzero(strength[:, 80] > 0.5)
    np.testing.assert_allclose(direction[column, 80], np.pi / 2, atol=1e-3)


def test_an_object_is_found_and_boxes_lie_in_the_image():
    boxes = edge_boxes(rectangle())
    assert boxes.dtype == np.uint16 and boxes.shape[1] == 4
    assert (boxes[:, :2] <= boxes[:, 2:]).all() and boxes[:, 2].max() < 160 and boxes[:, 3].max() < 120
    assert bbox_overlaps(boxes[:5], [(40, 30, 119, 89)]).max() > 0.7, "among the best five"
    np.testing.assert_array_equal(edge_boxes(rectangle()), boxes)


@pytest.mark.parametrize("shape", [(1, 1), (3, 90), (40, 40)])
def test_an_image_without_edges_has_no_boxes(shape):
    assert edge_boxes(np.full((*shape, 3), 7, np.uint8)).shape == (0, 4)


def test_a_missing_or_damaged_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.yml\.gz: no such model.*gradient_edge_boxes"):
        load_model(str(tmp_path / "gone.yml.gz"))
    (tmp_path / "bad.yml").write_text("no model")
    with pytest.raises(DataError, match=r"bad\.yml: not a model"):
        edge_boxes(rectangle(), model=str(tmp_path / "bad.yml"))


def test_what_is_no_image_is_refused(monkeypatch):
    with pytest.raises(DataError, match=r"\(120, 160\) uint8"):
        edge_boxes(rectangle()[..., 0])
    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(DataError, match="opencv-contrib-python-headless"):
        edge_boxes(rectangle())
