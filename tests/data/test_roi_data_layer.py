"""RoIDataLayer: the original's minibatches, epochs, prefetching, going on from a state, and bad parameters.

Set CAFFE_LITE_DEMO_IMAGES to the folder of 000004.jpg and 001551.jpg to compare the pixels of the recorded
minibatches too (see tests/data/roidb_maker.py).
"""

from __future__ import annotations

import json
import os
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import caffe_lite
from caffe_lite.blob import Blob
from caffe_lite.data.config import ConfigError, cfg
from caffe_lite.data.roi_data_layer.layer import RoIDataLayer
from caffe_lite.data.roi_data_layer.roidb import add_bbox_regression_targets
from caffe_lite.errors import DataError, NetError
from tests.data.roidb_maker import GOLDEN, golden_imdb, plain_image, small_entry, trainable

pytestmark = pytest.mark.usefixtures("original_settings")

TOPS = ("data", "rois", "labels", "bbox_targets", "bbox_loss_weights")
PROTOTXT = """
layer { name: "data" type: "Python" top: "data" top: "rois" top: "labels" top: "bbox_targets" top: "bbox_loss_weights"
  python_param { module: "roi_data_layer.layer" layer: "RoIDataLayer" param_str: "'num_classes': 21" } }
"""
PHOTOGRAPHS = os.environ.get("CAFFE_LITE_DEMO_IMAGES")


def test_a_net_gets_the_originals_minibatches(stand_in_images, tmp_path):
    (tmp_path / "data_only.prototxt").write_text(PROTOTXT)
    net = caffe_lite.Net(str(tmp_path / "data_only.prototxt"), caffe_lite.TRAIN)
    layer = net.layers[0]
    golden = np.load(GOLDEN / "minibatch_default.npz")
    roidb = trainable(golden_imdb(PHOTOGRAPHS or stand_in_images, ".jpg" if PHOTOGRAPHS else ".png"))
    np.random.seed(int(golden["seed"]))
    layer.set_roidb(roidb)
    for k in range(4):
        net.forward()
        assert layer.minibatch_images == [roidb[i]["image"] for i in golden[f"m{k}_db_inds"]]
        blobs = {name: net.blobs[name].data for name in TOPS}
        for name in ("rois", "labels"):
            np.testing.assert_array_equal(blobs[name], golden[f"m{k}_{name}"])
        np.testing.assert_array_equal(blobs["bbox_loss_weights"], golden[f"m{k}_bbox_loss_weights"])
        np.testing.assert_allclose(blobs["bbox_targets"], golden[f"m{k}_bbox_targets"], rtol=1e-5, atol=1e-6)
        assert blobs["data"].shape == tuple(golden[f"m{k}_data_shape"])
        if PHOTOGRAPHS:  # OpenCV's bilinear resize differs by a last bit between its versions and processors
            step = int(golden["step"])
            sample = blobs["data"][:, :, ::step, ::step]
            np.testing.assert_allclose(sample, golden[f"m{k}_data_sample"], atol=5e-5)
            total = np.abs(blobs["data"].astype(np.float64)).sum()
            np.testing.assert_allclose(total, golden[f"m{k}_data_abssum"], rtol=1e-8)
    np.testing.assert_array_equal(np.random.randint(0, 2**31 - 1, 4), golden["rng_next"])


def make_layer(param_str="'num_classes': 21", tops=5):
    layer = RoIDataLayer(SimpleNamespace(name="data", type="Python", loss_weight=[]))
    layer.param_str = param_str
    top = [Blob() for _ in range(tops)]
    layer.set_up([], top)
    return layer, top


def test_an_epoch_is_a_permutation_without_its_last_images(tmp_path, monkeypatch):
    cfg.TRAIN.SCALES, cfg.TRAIN.BATCH_SIZE = (8,), 8
    names = [str(plain_image(tmp_path / f"{i}.png", (i, i, i), 8, 12)) for i in range(5)]
    roidb = [small_entry(name, boxes=[(0, 0, 5, 5)], overlaps=[1.0]) for name in names]
    add_bbox_regression_targets(roidb)
    drawn = iter([np.array([4, 2, 0, 1, 3]), np.array([1, 0, 4, 3, 2])])
    monkeypatch.setattr(np.random, "permutation", lambda count: next(drawn))
    layer, top = make_layer("num_classes: 3")
    layer.set_roidb(roidb)
    for expected in ((4, 2), (0, 1), (1, 0), (4, 3)):  # image 3, then image 2, would have come last
        layer.forward([], top)
        assert layer.minibatch_images == [names[i] for i in expected]
        np.testing.assert_allclose(top[0].data[:, 0, 0, 0], np.array(expected) - 102.9801, atol=1e-3)


def minibatches(layer, top, count):
    out = []
    for _ in range(count):
        layer.forward([], top)
        out.append((list(layer.minibatch_images), [blob.data.copy() for blob in top]))
    return out


def assert_same(first, second):
    assert len(first) == len(second)
    for (images_a, blobs_a), (images_b, blobs_b) in zip(first, second, strict=True):
        assert images_a == images_b
        for a, b in zip(blobs_a, blobs_b, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture
def four(tmp_path):
    """Four small images, six classes of RoIs to choose from, two scales."""
    cfg.TRAIN.SCALES, cfg.TRAIN.BATCH_SIZE = (16, 24), 8
    rng = np.random.default_rng(2)
    roidb = []
    for i in range(4):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        boxes = [(x, 0, x + 9, 9) for x in range(12)]
        roidb.append(small_entry(path, boxes, [1.0, 0.8, 0.7, 0.6, *[0.2] * 8]))
    add_bbox_regression_targets(roidb)
    return roidb


def test_prefetching_changes_no_minibatch_and_leaves_no_thread(four):
    layer, top = make_layer("num_classes: 3")
    np.random.seed(3)
    layer.set_roidb(four)
    expected = minibatches(layer, top, 6)
    before = threading.active_count()
    cfg.TRAIN.USE_PREFETCH = True
    np.random.seed(3)
    layer.set_roidb(four)
    assert_same(minibatches(layer, top, 6), expected)
    layer.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_saved_state_goes_on_with_the_same_minibatches(four, prefetch):
    cfg.TRAIN.USE_PREFETCH = prefetch
    layer, top = make_layer("num_classes: 3")
    np.random.seed(3)
    layer.set_roidb(four)
    minibatches(layer, top, 3)
    state = json.loads(json.dumps(layer.state()))
    expected = minibatches(layer, top, 4)

    other, other_top = make_layer("num_classes: 3")
    np.random.seed(99)
    other.set_roidb(four)
    minibatches(other, other_top, 1)
    other.set_state(state)
    assert_same(minibatches(other, other_top, 4), expected)
    with pytest.raises(DataError, match="roidb of 4 images, this one has 3"):
        other.set_roidb(four[:3])
        other.set_state(state)
    layer.close()
    other.close()


def test_setup_shapes_and_order_of_tops():
    layer, top = make_layer()
    assert [blob.shape for blob in top] == [(1, 3, 100, 100), (1, 5), (1,), (1, 84), (1, 84)]
    assert layer.name_to_top_map == {name: index for index, name in enumerate(TOPS)}
    cfg.TRAIN.BBOX_REG = False
    layer, top = make_layer(tops=3)
    assert [blob.shape for blob in top] == [(1, 3, 100, 100), (1, 5), (1,)]


@pytest.mark.parametrize(
    ("param_str", "said"),
    [
        ("", "no num_classes"),
        ("'classes': 21", "no num_classes"),
        ("'num_class': 21", "'num_class' looks like it"),
        ("21", "no num_classes"),
        ("num_classes: many", "got 'many'"),
        ("num_classes: 1", "got 1"),
        ("num_classes: [", "not YAML"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_a_bad_param_str(param_str, said):
    with pytest.raises(ConfigError) as caught:
        make_layer(param_str)
    assert said in str(caught.value) and "layer 'data'" in str(caught.value)
    assert isinstance(caught.value, KeyError)


def test_the_number_of_tops_must_agree_with_bbox_reg():
    with pytest.raises(NetError, match="needs 5 tops .*bbox_targets.* got 3"):
        make_layer(tops=3)
    cfg.TRAIN.BBOX_REG = False
    with pytest.raises(NetError, match="needs 3 tops .* got 5"):
        make_layer(tops=5)


def test_forward_before_set_roidb():
    layer, top = make_layer()
    with pytest.raises(DataError, match="layer 'data': .*call set_roidb"):
        layer.forward([], top)


def test_a_roidb_that_does_not_fit(tmp_path):
    layer, _ = make_layer()
    with pytest.raises(DataError, match="roidb is empty"):
        layer.set_roidb([])
    with pytest.raises(DataError, match="num_classes 21, but the roidb has 3"):
        layer.set_roidb([small_entry(tmp_path / "a.png")])
    layer, _ = make_layer("num_classes: 3")
    cfg.TRAIN.BATCH_SIZE = 127
    with pytest.raises(ConfigError, match="TRAIN.BATCH_SIZE 127 must be a multiple of TRAIN.IMS_PER_BATCH 2"):
        layer.set_roidb([small_entry(tmp_path / "a.png")])
