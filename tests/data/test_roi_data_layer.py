"""RoIDataLayer: roidb preparation, targets and minibatches as the original computed them, and bad input.

tests/golden/pipeline/ holds what the original code made of two VOC photographs and their selective-search
boxes. The photographs are not here: random images of their size stand in, which leaves every draw, RoI,
label and target as it was. Set CAFFE_LITE_DEMO_IMAGES to the folder of 000004.jpg and 001551.jpg to
compare the pixels too.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import scipy.sparse

import caffe_lite
from caffe_lite.blob import Blob
from caffe_lite.data.boxes import bbox_transform
from caffe_lite.data.config import ConfigError, cfg, preserved_cfg, reset_cfg
from caffe_lite.data.roi_data_layer.layer import RoIDataLayer
from caffe_lite.data.roi_data_layer.minibatch import get_minibatch
from caffe_lite.data.roi_data_layer.roidb import (
    _compute_targets,
    _row_maxima,
    add_bbox_regression_targets,
    check_roidb,
    filter_roidb,
    prepare_roidb,
)
from caffe_lite.errors import DataError, NetError

GOLDEN = Path(__file__).parents[1] / "golden" / "pipeline"
TOPS = ("data", "rois", "labels", "bbox_targets", "bbox_loss_weights")
PROTOTXT = """
layer { name: "data" type: "Python" top: "data" top: "rois" top: "labels" top: "bbox_targets" top: "bbox_loss_weights"
  python_param { module: "roi_data_layer.layer" layer: "RoIDataLayer" param_str: "'num_classes': 21" } }
"""
PHOTOGRAPHS = os.environ.get("CAFFE_LITE_DEMO_IMAGES")


@pytest.fixture(autouse=True)
def _restored():
    before = np.random.get_state()
    with preserved_cfg():
        reset_cfg()
        yield
    np.random.set_state(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Random images with the names (but for the suffix) and sizes of the photographs."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, width, height in (("000004", 500, 406), ("001551", 500, 375)):
        cv2.imwrite(str(folder / f"{name}.png"), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return folder


def golden_imdb(folder, suffix):
    golden = np.load(GOLDEN / "roidb.npz")
    roidb = [
        {
            "boxes": golden[f"e{i}_boxes"],
            "gt_classes": golden[f"e{i}_gt_classes"],
            "gt_overlaps": scipy.sparse.csr_matrix(golden[f"e{i}_gt_overlaps"]),
            "flipped": bool(golden[f"e{i}_flipped"]),
        }
        for i in range(int(golden["num_entries"]))
    ]
    names = [Path(str(golden[f"e{i}_image"])).with_suffix(suffix).name for i in range(len(roidb))]
    return SimpleNamespace(roidb=roidb, image_path_at=lambda i: os.path.join(folder, names[i]))


def trainable(imdb):
    prepare_roidb(imdb)
    add_bbox_regression_targets(imdb.roidb)
    return imdb.roidb


def make_layer(param_str="'num_classes': 21", tops=5):
    layer = RoIDataLayer(SimpleNamespace(name="data", type="Python", loss_weight=[]))
    layer.param_str = param_str
    top = [Blob() for _ in range(tops)]
    layer.set_up([], top)
    return layer, top


def small_entry(image, boxes=((0, 0, 9, 9), (0, 0, 9, 8), (0, 0, 9, 3)), overlaps=(1.0, 0.9, 0.4), **more):
    """A prepared entry with 3 classes: an object of class 2, a foreground and a background proposal."""
    columns = np.zeros((len(boxes), 3), np.float32)
    columns[:, 2] = overlaps
    return {
        "image": str(image),
        "boxes": np.array(boxes, np.uint16).reshape(-1, 4),
        "gt_classes": np.array([2 if o == 1 else 0 for o in overlaps], np.int32),
        "gt_overlaps": scipy.sparse.csr_matrix(columns),
        "max_overlaps": columns.max(axis=1),
        "max_classes": columns.argmax(axis=1),
        "flipped": False,
        **more,
    }


def plain_image(path, colour, height=20, width=30):
    cv2.imwrite(str(path), np.full((height, width, 3), colour, np.uint8))
    return path


# ---- the roidb and its targets


def test_prepared_fields_and_targets_equal_the_originals(images):
    golden, unnormalised = np.load(GOLDEN / "roidb.npz"), np.load(GOLDEN / "unnormalised.npz")
    imdb = golden_imdb(images, ".png")
    prepare_roidb(imdb)
    for i, entry in enumerate(imdb.roidb):
        for key in ("max_overlaps", "max_classes"):
            np.testing.assert_array_equal(entry[key], golden[f"e{i}_{key}"])
            assert entry[key].dtype == golden[f"e{i}_{key}"].dtype
        raw = _compute_targets(entry["boxes"], entry["max_overlaps"], entry["max_classes"])
        np.testing.assert_allclose(raw, unnormalised[f"e{i}_bbox_targets"], rtol=3e-7, atol=1e-9)
    means, stds = add_bbox_regression_targets(imdb.roidb)
    np.testing.assert_allclose(means, golden["means"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(stds, golden["stds"], rtol=1e-6, atol=1e-9)
    for i, entry in enumerate(imdb.roidb):
        assert entry["bbox_targets"].dtype == np.float32
        np.testing.assert_allclose(entry["bbox_targets"], golden[f"e{i}_bbox_targets"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(entry["bbox_targets"][:, 0], golden[f"e{i}_bbox_targets"][:, 0])


def test_normalised_targets_have_zero_mean_and_unit_deviation_by_class(images):
    roidb = trainable(golden_imdb(images, ".png"))
    every = np.concatenate([entry["bbox_targets"] for entry in roidb])
    for label in np.unique(every[every[:, 0] > 0, 0]):
        of_class = every[every[:, 0] == label, 1:]
        if (of_class != 0).any():
            np.testing.assert_allclose(of_class.mean(axis=0), 0, atol=1e-4)
            np.testing.assert_allclose(of_class.std(axis=0), 1, atol=1e-3)


def test_targets_point_at_the_object_that_is_overlapped_most():
    boxes = np.array([[0, 0, 20, 20], [0, 0, 24, 30], [0, 0, 23, 27], [0, 0, 20, 7]], np.uint16)
    targets = _compute_targets(boxes, np.array([1, 1, 0.8, 0.4], np.float32), np.array([1, 2, 2, 1]))
    np.testing.assert_array_equal(targets[:2], [[1, 0, 0, 0, 0], [2, 0, 0, 0, 0]])
    np.testing.assert_allclose(targets[2], [2, *bbox_transform(boxes[2:3], boxes[1:2])[0]], rtol=1e-6)
    np.testing.assert_array_equal(targets[3], 0)  # below BBOX_THRESH


def test_an_image_without_objects_or_boxes_has_zero_targets(tmp_path):
    lonely = small_entry(tmp_path / "a.png", boxes=[(0, 0, 5, 5)], overlaps=[0.0])
    bare = small_entry(tmp_path / "b.png", boxes=[], overlaps=[])
    orphan = small_entry(tmp_path / "c.png", boxes=[(0, 0, 5, 5)], overlaps=[0.7])  # its object is not in the list
    add_bbox_regression_targets([lonely, bare, orphan])
    for entry in (lonely, bare, orphan):
        assert entry["bbox_targets"].shape == (len(entry["boxes"]), 5)
        assert not entry["bbox_targets"].any()


def test_a_class_whose_targets_are_all_equal_keeps_deviation_1_with_a_warning(tmp_path):
    entry = small_entry(tmp_path / "a.png", boxes=[(0, 0, 9, 9)], overlaps=[1.0])
    with pytest.warns(UserWarning, match="targets of class 2 do not vary"):
        means, stds = add_bbox_regression_targets([entry])
    assert entry["bbox_targets"].tolist() == [[2, 0, 0, 0, 0]]
    assert not means.any() and stds.tolist() == [0] * 8 + [1] * 4  # background and absent classes: 0


def test_one_constant_coordinate_leaves_the_others_normalised(tmp_path):
    """A proposal beside its object, of its size: dx varies; dy, dw and dh are 0."""
    entry = small_entry(tmp_path / "a.png", boxes=[(0, 0, 9, 9), (3, 0, 12, 9)], overlaps=[1.0, 0.6])
    with pytest.warns(UserWarning, match="class 2"):
        means, stds = add_bbox_regression_targets([entry])
    assert means[8:] == pytest.approx([-1 / 6, 0, 0, 0]) and stds[8:] == pytest.approx([1 / 6, 1, 1, 1])
    np.testing.assert_allclose(entry["bbox_targets"], [[2, 1, 0, 0, 0], [2, -1, 0, 0, 0]], atol=1e-6)


def test_images_without_a_roi_to_train_on_can_be_dropped(tmp_path):
    useful = small_entry(tmp_path / "a.png")
    empty = small_entry(tmp_path / "b.png", overlaps=[0.05, 0.0, 0.0])
    assert filter_roidb([useful, empty]) == [useful]


# ---- minibatches


def test_a_net_gets_the_originals_minibatches(images, tmp_path):
    (tmp_path / "data_only.prototxt").write_text(PROTOTXT)
    net = caffe_lite.Net(str(tmp_path / "data_only.prototxt"), caffe_lite.TRAIN)
    layer = net.layers[0]
    golden = np.load(GOLDEN / "minibatch_default.npz")
    roidb = trainable(golden_imdb(PHOTOGRAPHS or images, ".jpg" if PHOTOGRAPHS else ".png"))
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


# ---- the layer as a layer


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


# ---- bad input


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


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((9, 0, 8, 5), "x2 < x1"),
        ((0, 9, 5, 8), "y2 < y1"),
        ((0, 0, 30, 5), "outside the image, which is 30 x 20"),
        ((0, 0, 5, 20), "outside the image"),
        ((65535, 0, 65535, 5), "outside the image"),  # -1 as uint16
    ],
)
def test_a_bad_box_is_named_with_its_image_and_row(tmp_path, box, why):
    image = plain_image(tmp_path / "a.png", (0, 0, 0))
    good = small_entry(image)
    check_roidb([good])
    bad = small_entry(image, boxes=[(0, 0, 29, 19), box], overlaps=[1.0, 0.5], flipped=True)
    with pytest.raises(DataError) as caught:
        check_roidb([good, bad])
    for word in ("a.png (mirrored)", "proposal in row 1", str(box), why):
        assert word in str(caught.value)
    bad = small_entry(image, boxes=[box], overlaps=[1.0])
    with pytest.raises(DataError, match="object 0 of class 2"):
        check_roidb([bad])


def test_prepare_checks_boxes_and_overlaps(tmp_path):
    def imdb(entry):
        return SimpleNamespace(roidb=[entry], image_path_at=lambda i: str(tmp_path / "a.png"))

    plain_image(tmp_path / "a.png", (0, 0, 0))
    with pytest.raises(DataError, match="outside the image"):
        prepare_roidb(imdb(small_entry("", boxes=[(0, 0, 99, 9)], overlaps=[1.0])))
    background = small_entry("", boxes=[(0, 0, 9, 9)], overlaps=[0.0])
    background["gt_overlaps"] = scipy.sparse.csr_matrix(np.array([[0.5, 0, 0]], np.float32))
    with pytest.raises(DataError, match="row 0: overlap 0.5 with class 0"):
        prepare_roidb(imdb(background))
    with pytest.raises(DataError, match=r"a\.png: cannot read"):
        (tmp_path / "a.png").unlink()
        prepare_roidb(imdb(small_entry("")))


def test_a_sampled_box_outside_the_image_that_was_read(tmp_path):
    path = tmp_path / "a.bmp"  # its size is known only once it is read
    entry = small_entry(plain_image(path, (0, 0, 0)), boxes=[(0, 0, 30, 9)], overlaps=[1.0])
    add_bbox_regression_targets([entry])
    check_roidb([entry])
    with pytest.raises(DataError, match=r"a\.bmp: box \(0, 0, 30, 9\).*30 x 20"):
        get_minibatch([entry], 3)


@pytest.mark.parametrize("sorted_columns", [True, False])
def test_derived_fields_are_row_maximum_and_first_argmax_of_the_dense_overlaps(tmp_path, sorted_columns):
    rng = np.random.default_rng(0)
    dense = rng.choice(np.float32([0, 0, 0, 0.25, 0.5, 1]), (200, 5))
    dense[:, 0] = 0
    dense[:7] = -1  # crowds
    dense[7:9] = [(0, -1, -1, -1, -1), (-1, 0, -1, -1, -1)]
    sparse = scipy.sparse.csr_matrix(dense)
    if not sorted_columns:
        rows = [slice(*sparse.indptr[i : i + 2]) for i in range(200)]
        parts = (np.concatenate([a[r][::-1] for r in rows]) for a in (sparse.data, sparse.indices))
        sparse = scipy.sparse.csr_matrix((*parts, sparse.indptr), shape=dense.shape)
    sparse.data[sparse.data == 0.25] = 0  # zeros that are stored
    dense[dense == 0.25] = 0
    values, columns = _row_maxima(sparse)
    np.testing.assert_array_equal(values, dense.max(axis=1))
    np.testing.assert_array_equal(columns, dense.argmax(axis=1))
    assert values.dtype == np.float32 and columns.dtype == np.int64
