"""Unions of datasets: images, roidb and mirrored half of the parts, one after the other."""

from __future__ import annotations

import os

import numpy as np
import pytest

from caffe_lite.data.factory import get_imdb
from caffe_lite.data.roi_data_layer.roidb import add_bbox_regression_targets, prepare_roidb
from caffe_lite.errors import DataError
from tests.data.voc_folder import make_voc

CAT = ("cat", (3, 5, 20, 30), 0)
DOG = ("dog", (1, 1, 64, 48), 1)
NAME = "voc_2007_trainval+voc_2012_trainval"


@pytest.fixture
def data(tmp_path):
    make_voc(tmp_path, {"trainval": {"a1": [CAT, DOG], "a2": []}})
    make_voc(tmp_path, {"trainval": {"b1": [("cow", (2, 2, 9, 9), 0)]}}, year="2012", devkit="VOCdevkit2012")
    return tmp_path


def union(data, name=NAME):
    imdb = get_imdb(name, data)
    imdb.config["selective_search"] = {"min_side": 8, "progress": False}
    return imdb


def test_roidbs_follow_one_another(data):
    imdb = union(data)
    parts = [union(data, name) for name in NAME.split("+")]
    assert imdb.name == NAME and imdb.image_index == ["a1", "a2", "b1"]
    assert [os.path.basename(imdb.image_path_at(i)) for i in range(3)] == ["a1.jpg", "a2.jpg", "b1.jpg"]
    expected = [entry for part in parts for entry in part.roidb]
    assert len(imdb.roidb) == len(expected) == 3 and len(expected[2]["boxes"]) > 2
    for entry, other in zip(imdb.roidb, expected, strict=True):
        np.testing.assert_array_equal(entry["boxes"], other["boxes"])
        np.testing.assert_array_equal(entry["gt_overlaps"].toarray(), other["gt_overlaps"].toarray())
    assert [entry["gt_classes"].tolist() for entry in imdb.gt_roidb()] == [[1, 2], [], [3]]


def test_settings_reach_every_part(data):
    imdb = union(data)
    imdb.config["use_diff"] = False
    assert [entry["gt_classes"].tolist() for entry in imdb.gt_roidb()] == [[1], [], [3]]
    mixed = get_imdb("voc_2007_trainval_no_diff+voc_2012_trainval", data)
    assert [entry["gt_classes"].tolist() for entry in mixed.gt_roidb()] == [[1], [], [3]]
    imdb.set_proposals("dense:5")
    assert [len(entry["boxes"]) for entry in imdb.roidb] == [6, 5, 6]


def test_the_mirrored_half_can_be_trained_on(data):
    imdb = union(data)
    imdb.append_flipped_images()
    prepare_roidb(imdb)
    assert imdb.num_images == 6
    names = [os.path.basename(entry["image"]) for entry in imdb.roidb]
    assert names == ["a1.jpg", "a2.jpg", "b1.jpg"] * 2
    assert imdb.roidb[5]["boxes"][0].tolist() == [64 - 8 - 1, 1, 64 - 1 - 1, 8]
    with pytest.warns(UserWarning, match="do not vary"):
        add_bbox_regression_targets(imdb.roidb)


def test_classes_must_agree(data):
    (data / "VOCdevkit2012/VOC2012/classes.txt").write_text("cat\ncow\ndog\n")
    with pytest.raises(DataError, match="class 2 is 'dog' in voc_2007_trainval, 'cow' in voc_2012_trainval"):
        get_imdb(NAME, data)
    (data / "VOCdevkit2012/VOC2012/classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="has 4 .*voc_2012_trainval 3"):
        get_imdb(NAME, data)


def test_a_part_twice_or_missing_is_refused(data):
    with pytest.raises(DataError, match="twice"):
        get_imdb("voc_2007_trainval+voc_2007_trainval", data)
    with pytest.raises(DataError, match="unknown dataset 'voc_2007_trianval'; did you mean"):
        get_imdb("voc_2007_trianval+voc_2012_trainval", data)
    with pytest.raises(DataError, match="no PASCAL VOC 2010"):
        get_imdb("voc_2007_trainval+voc_2010_trainval", data)


def test_a_union_cannot_be_tested(data):
    imdb = union(data)
    for refuse in (imdb.check_testable, lambda: imdb.evaluate_detections([])):
        with pytest.raises(DataError, match="a union is for training.*voc_2007_trainval and on voc_2012_trainval"):
            refuse()
