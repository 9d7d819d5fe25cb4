"""Minibatches: how images stand in the blob, which RoIs are drawn, their targets and weights, and bad input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from caffe_lite.data.config import ConfigError, cfg
from caffe_lite.data.roi_data_layer.minibatch import get_minibatch
from caffe_lite.data.roi_data_layer.roidb import (
    add_bbox_regression_targets,
    check_roidb,
)
from caffe_lite.errors import DataError
from tests.data.roidb_maker import plain_image, small_entry

pytestmark = pytest.mark.usefixtures("original_settings")

TOPS = ("data", "rois", "labels", "bbox_targets", "bbox_loss_weights")


def test_images_stand_left_and_top_and_flipped_ones_are_mirrored(tmp_path):
    cfg.TRAIN.SCALES, cfg.TRAIN.BATCH_SIZE, cfg.PIXEL_MEANS = (20,), 4, np.array([[[1.0, 2.0, 3.0]]])
    ramp = np.repeat(np.arange(30, dtype=np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    plain = plain_image(tmp_path / "plain.png", (10, 20, 30), height=25, width=20)
    roidb = [small_entry(tmp_path / "ramp.png", flipped=True), small_entry(plain)]
    add_bbox_regression_targets(roidb)
    blobs = get_minibatch(roidb, 3)
    assert blobs["data"].shape == (2, 3, 25, 30) and blobs["data"].flags.c_contiguous
    np.testing.assert_array_equal(blobs["data"][0, 2, :20], np.tile(np.arange(29, -1, -1) - 3.0, (20, 1)))
    np.testing.assert_array_equal(
        blobs["data"][1, :, :, :20], np.full((3, 25, 20), np.array([9, 18, 27])[:, None, None])
    )
    assert not blobs["data"][0, :, 20:].any() and not blobs["data"][1, :, :, 20:].any()


def test_rois_are_scaled_labelled_and_never_padded(tmp_path):
    cfg.TRAIN.SCALES, cfg.TRAIN.BATCH_SIZE = (40,), 16
    image = plain_image(tmp_path / "a.png", (1, 2, 3))
    roidb = [small_entry(image), small_entry(image)]
    add_bbox_regression_targets(roidb)
    blobs = get_minibatch(roidb, 3)
    assert {name: blob.dtype for name, blob in blobs.items()} == dict.fromkeys(TOPS, np.float32)
    assert blobs["labels"].tolist() == [2, 2, 0, 2, 2, 0]  # 3 RoIs of each image, where 8 would be taken
    assert blobs["rois"][:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert sorted(map(tuple, blobs["rois"][:2, 1:])) == [(0, 0, 18, 16), (0, 0, 18, 18)]
    assert blobs["rois"][2].tolist() == [0, 0, 0, 18, 6]
    weights = np.zeros((6, 12))
    weights[[0, 1, 3, 4], 8:] = 1
    np.testing.assert_array_equal(blobs["bbox_loss_weights"], weights)
    assert not blobs["bbox_targets"][weights == 0].any() and blobs["bbox_targets"][weights == 1].any()


def test_thresholds_share_and_reuse_of_rois(tmp_path):
    cfg.TRAIN.SCALES, cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.IMS_PER_BATCH = (20,), 8, 1
    image = plain_image(tmp_path / "a.png", (1, 2, 3))
    overlaps = [1.0, 0.5, 0.5, 0.5, 0.49, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0999]
    boxes = [(0, 0, 9, y) for y in range(11)]
    cfg.TRAIN.BBOX_REG = False
    seen = set()
    for _ in range(60):
        blobs = get_minibatch([small_entry(image, boxes, overlaps)], 3)
        assert set(blobs) == {"data", "rois", "labels"}
        assert blobs["labels"].tolist() == [2, 2, 0, 0, 0, 0, 0, 0]  # round(8 / 4) foreground, the rest background
        drawn = blobs["rois"][:, 4].astype(int).tolist()
        assert len(set(drawn)) == 8 and max(drawn[:2]) <= 3 and min(drawn[2:]) >= 4
        seen |= set(drawn)
    assert seen == set(range(10))  # row 10 is neither


def test_an_entry_that_was_not_prepared_says_what_to_call(tmp_path):
    entry = small_entry(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: has no 'bbox_targets': call add_bbox_regression_targets"):
        get_minibatch([entry], 3)
    del entry["max_overlaps"], entry["max_classes"]
    with pytest.raises(DataError, match="'max_classes': call prepare_roidb"):
        get_minibatch([entry], 3)
    with pytest.raises(DataError, match="call prepare_roidb"):
        add_bbox_regression_targets([entry])


def test_a_batch_that_cannot_be_shared_out(tmp_path):
    with pytest.raises(ConfigError, match=r"BATCH_SIZE 128 cannot be shared out among the 3 image\(s\)"):
        get_minibatch([small_entry(tmp_path / "a.png")] * 3, 3)


def test_a_minibatch_without_rois_names_its_images_and_one_without_in_one_image_is_fine(tmp_path):
    cfg.TRAIN.SCALES = (20,)
    image = plain_image(tmp_path / "some.png", (1, 2, 3))
    empty = small_entry(plain_image(tmp_path / "none.png", (1, 2, 3)), overlaps=[0.05, 0, 0])
    roidb = [empty, small_entry(image)]
    add_bbox_regression_targets(roidb)
    blobs = get_minibatch(roidb, 3)
    assert blobs["rois"][:, 0].tolist() == [1, 1, 1] and blobs["data"].shape[0] == 2
    with pytest.raises(DataError, match=r"none\.png: no RoI to train on.*BG_THRESH_LO.*filter_roidb"):
        get_minibatch([empty], 3)


def test_a_sampled_box_outside_the_image_that_was_read(tmp_path):
    path = tmp_path / "a.bmp"  # its size is known only once it is read
    entry = small_entry(plain_image(path, (0, 0, 0)), boxes=[(0, 0, 30, 9)], overlaps=[1.0])
    add_bbox_regression_targets([entry])
    check_roidb([entry])
    with pytest.raises(DataError, match=r"a\.bmp: box \(0, 0, 30, 9\).*30 x 20"):
        get_minibatch([entry], 3)
