"""R-CNN's features: what they are, kept on disk, computed anew when damaged, refused when they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import device as devices
from caffe_lite import models, prototxt
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.image_blob import read_image
from caffe_lite.device import Device
from caffe_lite.errors import DataError, NetError, WeightsError
from caffe_lite.fast_rcnn.rcnn import feature_cache
from caffe_lite.fast_rcnn.rcnn.feature_cache import cache_last, cache_pooled
from caffe_lite.fast_rcnn.rcnn.features import WindowFeatures
from caffe_lite.fast_rcnn.rcnn.finetune import window_layer
from tests.fast_rcnn.rcnn_inputs import FakeImdb, features, image

pytestmark = pytest.mark.usefixtures("rcnn_settings")

TRAIN = str(models.path("mini/rcnn/train.prototxt"))
SIZE = 64


def test_features_do_not_depend_on_the_batch_and_are_kept(
    devkit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imdb = get_imdb("synthetic_trainval", data=devkit)
    imdb.append_flipped_images()
    made = features()
    pooled = cache_pooled(str(tmp_path), made, imdb, progress=False)
    last = cache_last(str(tmp_path), made, pooled, imdb, progress=False)
    param = prototxt.read_net(TRAIN)[0]
    one_by_one = WindowFeatures(made.net, window_layer(param, TRAIN), batch=1)
    for i in (0, imdb.num_images - 1):  # the last one is mirrored
        entry = imdb.roidb[i]
        im = read_image(imdb.image_path_at(i))
        boxes = entry["boxes"][:7]
        expected = one_by_one.pooled(im[:, ::-1] if entry["flipped"] else im, boxes)
        np.testing.assert_allclose(pooled.of(i)[:7], expected, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(last.of(i), made.last(np.array(pooled.of(i))), rtol=1e-5, atol=1e-4)
        made.net.blobs["data"].reshape(len(boxes), 3, SIZE, SIZE)
        whole = made.net.forward(data=made.warp(im[:, ::-1] if entry["flipped"] else im, boxes))["fc6"]
        np.testing.assert_allclose(last.of(i)[:7], whole, rtol=1e-4, atol=1e-3)

    def computed(self: Any, im: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        raise AssertionError("computed again")

    saved = np.array(pooled.all)
    monkeypatch.setattr(WindowFeatures, "pooled", computed)
    again = cache_pooled(str(tmp_path), made, imdb, progress=False)
    np.testing.assert_array_equal(again.all, saved)
    assert again.seconds == pooled.seconds > 0
    made.net.params["fc6"][1].data[0] += 1  # behind the pooled features
    cache_pooled(str(tmp_path), made, imdb, progress=False)
    made.net.params["conv2"][0].data[0] += 1
    with pytest.raises(AssertionError, match="computed again"):
        cache_pooled(str(tmp_path), made, imdb, progress=False)


def test_features_are_the_same_on_every_device(device: Device) -> None:
    boxes = np.array([[10, 10, 60, 50], [30, 5, 119, 89], [0, 0, 20, 20]], np.uint16)
    made = features()
    pooled = made.pooled(image(), boxes)
    last, key = made.last(pooled), made.last_hash()
    before = devices.current()
    devices.set_mode_cpu()
    try:
        expected = features()
        assert expected.last_hash() == key
        np.testing.assert_allclose(pooled, expected.pooled(image(), boxes), rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(last, expected.last(pooled), rtol=1e-3, atol=1e-2)
    finally:
        devices.use(before)


@pytest.mark.parametrize("damage", ["cut", "note", "other regions"])
def test_features_that_are_damaged_or_of_other_regions_are_computed_anew(
    devkit: str, tmp_path: Path, damage: str
) -> None:
    imdb = get_imdb("synthetic_test", data=devkit)
    for entry in imdb.roidb:
        entry["boxes"] = entry["boxes"][:3]
    expected = np.array(cache_pooled(str(tmp_path), features(), imdb, progress=False).all)
    file, note = tmp_path / "pooled.npy", tmp_path / "pooled.json"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "note":
        note.write_text("{")
    else:
        imdb.roidb[0]["boxes"] = imdb.roidb[0]["boxes"][::-1]
        expected[:3] = expected[:3][::-1]
    again = cache_pooled(str(tmp_path), features(), imdb, progress=False).all
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-4)


def test_a_net_that_gives_no_features_is_refused() -> None:
    layer = window_layer(prototxt.read_net(TRAIN)[0], TRAIN)
    net = caffe_lite.Net(str(models.path("mini/test.prototxt")), caffe_lite.TEST)
    with pytest.raises(NetError, match="one output"):
        WindowFeatures(net, layer)
    layer.transform_param.crop_size = 48
    net = caffe_lite.Net(str(models.path("mini/rcnn/test.prototxt")), caffe_lite.TEST)
    with pytest.raises(NetError, match=r"expected data \(n, 3, 48, 48\)"):
        WindowFeatures(net, layer)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    made = features()
    text = (models.path("mini/rcnn/test.prototxt")).read_text().replace('"conv3"', '"conv3_other"')
    (tmp_path / "other.prototxt").write_text(text)
    caffe_lite.Net(str(tmp_path / "other.prototxt"), caffe_lite.TEST).save(tmp_path / "other.caffemodel")
    with pytest.raises(WeightsError, match="holds no weights for conv3, "):
        made.copy_from(tmp_path / "other.caffemodel")


def test_images_without_regions(tmp_path: Path) -> None:
    imdb = FakeImdb([])
    with pytest.raises(DataError, match="no regions"):
        feature_cache.cache_pooled(str(tmp_path), features(), imdb, progress=False)
