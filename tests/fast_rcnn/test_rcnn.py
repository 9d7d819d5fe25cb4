"""R-CNN: warped windows, features kept on disk, box regressors, SVMs on cached features, and all stages in a row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import caffe_lite
from caffe_lite import device as devices
from caffe_lite import models, prototxt
from caffe_lite.data.boxes import bbox_overlaps, bbox_transform, bbox_transform_inv
from caffe_lite.data.config import cfg, cfg_from_file, preserved_cfg
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.image_blob import read_image
from caffe_lite.data.roi_data_layer.roidb import prepare_roidb
from caffe_lite.data.synthetic import make_devkit
from caffe_lite.data.window_file import read_window_file
from caffe_lite.device import Device
from caffe_lite.errors import DataError, NetError, WeightsError
from caffe_lite.fast_rcnn import rcnn, sppnet
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.rcnn import bbox_regression, feature_cache, pipeline
from caffe_lite.fast_rcnn.rcnn.bbox_regression import box_examples, ridge_regression, train_regressors, whitening
from caffe_lite.fast_rcnn.rcnn.feature_cache import FeatureCache, cache_last, cache_pooled
from caffe_lite.fast_rcnn.rcnn.features import WindowFeatures
from caffe_lite.fast_rcnn.rcnn.finetune import window_layer, write_window_file
from caffe_lite.fast_rcnn.rcnn.region_model import CachedMiner, RegionModel
from caffe_lite.fast_rcnn.svm import EVICT_THRESH, NEG_IOU
from caffe_lite.proto import caffe_pb2

TRAIN = str(models.path("mini/rcnn/train.prototxt"))
SIZE, CONTEXT = 64, 4
MEAN = np.array([102.9801, 115.9465, 122.7717], np.float32)


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_devkit(tmp_path_factory.mktemp("devkit") / "data", 5, {"trainval": 4, "test": 2}, (120, 100))


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with preserved_cfg():
        cfg_from_file(models.path("mini/mini.yml"))
        seed()
        yield


def seed() -> None:
    np.random.seed(3)
    caffe_lite.set_random_seed(3)


def features() -> WindowFeatures:
    """Of the mini net with random weights."""
    made = pipeline.make_features(pipeline.DEFINITION)
    rng = np.random.default_rng(1)
    for blobs in made.net.params.values():
        blobs[0].data[...] = rng.normal(0, np.sqrt(2 / blobs[0].data[0].size), blobs[0].shape)
    return made


def image(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- warping


def away_from_zero(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def slow_warp(im: np.ndarray, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(3, s, s) and where it is inside the image: the definition, a pixel at a time.

    The box grows about its centre so that it is s - 2 * pad of s pixels; of the result, what lies in the image is
    stretched bilinearly to its share of the square, and the rest is the mean.
    """
    grow = SIZE / (SIZE - 2 * CONTEXT)
    axes = []
    for first, last, length in ((box[1], box[3], im.shape[0]), (box[0], box[2], im.shape[1])):
        half = (last - first + 1) / 2
        lo, hi = away_from_zero(first + half - half * grow), away_from_zero(first + half + half * grow)
        scale = SIZE / (hi - lo + 1)
        lo_in, hi_in = max(lo, 0), min(hi, length - 1)
        before = away_from_zero((lo_in - lo) * scale)
        count = min(away_from_zero((hi_in - lo_in + 1) * scale), SIZE - before)
        axes.append((lo_in, hi_in, before, count))
    out, inside = np.zeros((3, SIZE, SIZE)), np.zeros((SIZE, SIZE), bool)
    (y1, y2, top, rows), (x1, x2, left, columns) = axes

    def sample(i: int, count: int, lo: int, hi: int) -> tuple[int, int, float]:
        at = min(max((i + 0.5) * (hi - lo + 1) / count - 0.5, 0), hi - lo)
        return lo + int(at), min(lo + int(at) + 1, hi), at - int(at)

    for r in range(rows):
        ya, yb, v = sample(r, rows, y1, y2)
        for c in range(columns):
            xa, xb, u = sample(c, columns, x1, x2)
            upper = (1 - u) * im[ya, xa].astype(float) + u * im[ya, xb]
            lower = (1 - u) * im[yb, xa].astype(float) + u * im[yb, xb]
            out[:, top + r, left + c] = (1 - v) * upper + v * lower - MEAN
            inside[top + r, left + c] = True
    return out, inside


@pytest.mark.parametrize(
    "box",
    [
        (30, 20, 69, 59),  # all of it inside, with its context
        (0, 0, 119, 89),  # the whole image: context missing on all four sides
        (90, 70, 119, 89),  # the corner at the bottom right
        (0, 40, 3, 60),  # narrow, at the left border
        (50, 50, 50, 50),  # one pixel
    ],
)
def test_windows_are_warped_as_defined(box: tuple[int, int, int, int]) -> None:
    found = features().warp(image(), np.array([box], np.uint16))[0]
    expected, inside = slow_warp(image(), box)
    assert (found[:, ~inside] == 0).all()
    np.testing.assert_allclose(found[:, inside], expected[:, inside], atol=1.01)  # OpenCV rounds to whole grey levels


def test_windows_are_those_that_the_net_was_trained_on(devkit: str, tmp_path: Path) -> None:
    """The train net's WindowData layer and the features see the same pixels."""
    imdb = get_imdb("synthetic_trainval", data=devkit)
    prepare_roidb(imdb)
    write_window_file(str(tmp_path / "windows.txt"), imdb)
    windows = read_window_file(str(tmp_path / "windows.txt"), 0.5, 0.5)
    param = prototxt.read_net(TRAIN)[0]
    layer = window_layer(param, TRAIN)
    layer.window_data_param.source = str(tmp_path / "windows.txt")
    layer.transform_param.mirror = False
    alone = caffe_pb2.NetParameter(layer=[layer])
    net = caffe_lite.Net.from_param(alone)
    seen = net.forward()["data"]
    net.layers[0].close()
    warped = []
    for rows in (windows.background, windows.foreground):
        for i, path in enumerate(windows.images):
            warped.append(features().warp(read_image(path), rows[rows[:, 0] == i, 2:]))
    every = np.concatenate(warped).reshape(-1, 3 * SIZE * SIZE)
    hashes = {row.tobytes() for row in every}
    assert {row.tobytes() for row in seen.reshape(len(seen), -1)} <= hashes


def test_the_window_file_has_the_overlaps_of_the_roidb(devkit: str, tmp_path: Path) -> None:
    imdb = get_imdb("synthetic_trainval", data=devkit)
    imdb.append_flipped_images()
    prepare_roidb(imdb)
    path = str(tmp_path / "windows.txt")
    write_window_file(path, imdb)
    entries = [e for e in imdb.roidb if not e["flipped"]]
    found = read_window_file(path, 0.5, 0.5)
    assert found.images == [e["image"] for e in entries]
    for i, entry in enumerate(entries):
        fg = entry["max_overlaps"] >= 0.5
        mine = found.foreground[found.foreground[:, 0] == i]
        np.testing.assert_array_equal(mine[:, 1], entry["max_classes"][fg])
        np.testing.assert_array_equal(mine[:, 2:], entry["boxes"][fg])
        np.testing.assert_array_equal(found.background[found.background[:, 0] == i, 2:], entry["boxes"][~fg])


# ---- features


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


@pytest.mark.parametrize("system", [rcnn, sppnet])
def test_a_region_outside_its_image_is_named_before_anything_is_computed(
    devkit: str, tmp_path: Path, system: Any
) -> None:
    imdb = get_imdb("synthetic_test", data=devkit)
    imdb.roidb[1]["boxes"][-1] = (5, 5, 400, 9)
    features().net.save(tmp_path / "weights.caffemodel")
    with pytest.raises(DataError, match=r"JPEGImages.*box \(5, 5, 400, 9\).*outside the image"):
        system.train(imdb, tmp_path / "out", pretrained=tmp_path / "weights.caffemodel", iters=1, progress=False)
    assert not list((tmp_path / "out").iterdir())


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


# ---- box regression


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (12, 12)])
def test_ridge_regression_is_the_least_squares_solution(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """|X W - Y|^2 + c |W|^2 is the squared error of the rows of X with sqrt(c) I below them."""
    monkeypatch.setattr(bbox_regression, "BLOCK", 16)  # several blocks
    rng = np.random.default_rng(0)
    x, y, penalty = rng.normal(size=shape), rng.normal(size=(shape[0], 4)), 3.0
    below = np.sqrt(penalty) * np.eye(shape[1])
    expected = np.linalg.lstsq(np.vstack((x, below)), np.vstack((y, np.zeros((shape[1], 4)))), rcond=None)[0]
    np.testing.assert_allclose(ridge_regression(x, y, penalty), expected, rtol=1e-9, atol=1e-12)


def test_whitening_and_back() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) + [1, 2, 3, 4]
    white = whitening(targets)
    y = (targets - white.mean) @ white.whiten
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.T @ y / 50, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(y @ white.colour + white.mean, targets, atol=1e-10)


def test_whitening_of_targets_that_do_not_vary() -> None:
    targets = np.tile([0.1, 0.2, 0.3, 0.4], (5, 1))
    white = whitening(targets)
    np.testing.assert_allclose((targets - white.mean) @ white.whiten, 0, atol=1e-12)


def regions(seed: int, classes: int = 3, images: int = 6) -> list[dict[str, Any]]:
    """Two objects and 20 boxes about them in each image; the last has no object."""
    rng = np.random.default_rng(seed)
    roidb = []
    for i in range(images):
        corners = rng.integers(20, 60, (2, 2))
        objects = np.hstack((corners, corners + rng.integers(20, 50, (2, 2))))
        around = np.repeat(objects, 10, axis=0) + rng.integers(-9, 10, (20, 4))
        boxes = np.vstack((objects, around)).astype(np.uint16)
        labels = np.zeros(22, np.int32)
        labels[:2] = rng.integers(1, classes, 2) if i < images - 1 else 0
        overlaps = np.zeros((22, classes), np.float32)
        for g in np.flatnonzero(labels):
            iou = bbox_overlaps(boxes, boxes[g : g + 1])[:, 0]
            overlaps[:, labels[g]] = np.maximum(overlaps[:, labels[g]], iou)
        gt_overlaps = scipy.sparse.csr_matrix(overlaps)
        roidb.append({"boxes": boxes, "gt_classes": labels, "gt_overlaps": gt_overlaps, "flipped": False})
    return roidb


def cache_of(roidb: list[dict[str, Any]], dim: int, seed: int = 0) -> FeatureCache:
    counts = [len(entry["boxes"]) for entry in roidb]
    rows = np.random.default_rng(seed).normal(1, 2, (sum(counts), dim)).astype(np.float32)
    return FeatureCache(rows, counts, 0.0)


def test_regressors_are_ridge_regressions_on_scaled_features() -> None:
    """Each class by itself, by the definition, with the whitened targets and the constant feature."""
    roidb, dim = regions(3), 11
    pooled = cache_of(roidb, dim)
    examples: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {1: [], 2: []}
    for i, entry in enumerate(roidb):
        objects = [r for r in range(22) if entry["gt_classes"][r]]
        for r in range(22):
            iou = [float(bbox_overlaps(entry["boxes"][[r]], entry["boxes"][[g]])[0, 0]) for g in objects]
            if iou and max(iou) >= 0.6:
                g = objects[iou.index(max(iou))]
                target = bbox_transform(entry["boxes"][[r]], entry["boxes"][[g]])[0]
                examples[entry["gt_classes"][g]].append((pooled.of(i)[r], target))
    all_rows = np.array([f for rows in examples.values() for f, _ in rows], np.float64)
    scale = 20 / np.mean([np.linalg.norm(row) for row in all_rows])
    found = train_regressors(pooled, roidb, 3, progress=False)
    probe = np.random.default_rng(9).normal(1, 2, (5, dim)).astype(np.float32)
    deltas = found.deltas(probe)
    assert (deltas[:, :4] == 0).all() and deltas.shape == (5, 12)
    for k, rows in examples.items():
        x = np.array([[*(f.astype(np.float64) * scale), 1.0] for f, _ in rows])
        t = np.array([t for _, t in rows])
        values, vectors = np.linalg.eigh(np.cov(t.T, bias=True))
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        y = (t - t.mean(axis=0)) @ root
        w = np.linalg.solve(x.T @ x + 1000 * np.eye(dim + 1), x.T @ y)
        ones = np.ones((5, 1))
        expected = np.hstack((probe * scale, ones)) @ w @ np.linalg.inv(root) + t.mean(axis=0)
        np.testing.assert_allclose(deltas[:, 4 * k : 4 * k + 4], expected, rtol=1e-4, atol=1e-6)


def test_examples_and_their_targets_lead_to_the_object() -> None:
    roidb = regions(4)
    labels, rows, targets = box_examples(roidb, cache_of(roidb, 2).starts)
    boxes = np.concatenate([e["boxes"] for e in roidb])[rows]
    image_of = np.repeat(np.arange(len(roidb)), 22)[rows]
    moved = bbox_transform_inv(boxes, targets)
    assert len(rows) > 20 and not (image_of == len(roidb) - 1).any()
    for i, label, box in zip(image_of, labels, moved, strict=True):
        objects = roidb[i]["boxes"][roidb[i]["gt_classes"] == label]
        assert np.abs(objects - box).max(axis=1).min() < 1e-6


def test_no_objects_no_regression() -> None:
    roidb = regions(5, images=1)
    found = train_regressors(cache_of(roidb, 3), roidb, 3, progress=False)
    assert not found.weights.any() and not found.bias.any()


# ---- SVMs


class FakeImdb:
    name, classes, num_classes = "fake", ("__background__", "a", "b"), 3

    def __init__(self, roidb: list[dict[str, Any]]) -> None:
        self.roidb, self.num_images = roidb, len(roidb)


@pytest.mark.filterwarnings("ignore:Liblinear")
def test_svms_on_cached_features_keep_no_easy_negative_and_no_violator_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Classes whose features lie apart: afterwards no negative is beyond the margin, in the cache or elsewhere."""
    monkeypatch.setattr("caffe_lite.fast_rcnn.svm.RETRAIN_LIMIT", 30)
    roidb = regions(6, images=40)
    pooled = cache_of(roidb, 8)
    overlaps = np.concatenate([e["gt_overlaps"].toarray() for e in roidb])
    for k in (1, 2):
        pooled.all[:, k] = np.where(overlaps[:, k] >= NEG_IOU, 30, -30)
    miner = CachedMiner(pooled, FakeImdb(roidb), progress=False)
    miner.train()
    scores = pooled.all @ miner.weights.T + miner.bias
    for k in (1, 2):
        negatives = scores[overlaps[:, k] < NEG_IOU, k]
        assert negatives.max() < -0.99
        cached = np.concatenate(miner.trainers[k]._negatives)
        assert 0 < len(cached) < len(negatives)
        kept = cached @ miner.weights[k] + miner.bias[k]
        assert kept.max() < -0.99
        assert kept.min() >= EVICT_THRESH - 1e-4
        assert scores[overlaps[:, k] == 1, k].min() > 0.99
    assert not miner.weights[0].any()


# ---- the whole


TINY = ["--iters", "3", "--cfg", "models/mini/mini.yml"]


def model_of(devkit: str, folder: Path, iters: int = 3) -> RegionModel:
    seed()
    return rcnn.train(get_imdb("synthetic_trainval", data=devkit), folder, iters=iters, progress=False)


@pytest.mark.filterwarnings("ignore:.*never detected", "ignore:Liblinear")
def test_all_stages_and_again_to_the_bit(devkit: str, tmp_path: Path) -> None:
    first, again = model_of(devkit, tmp_path / "a"), model_of(devkit, tmp_path / "b")
    assert list(first.seconds) == ["fine-tune", "pooled features", "last features", "SVMs", "box regressors"]
    assert min(first.seconds.values()) > 0
    for name in ("features.caffemodel", "pooled.npy", "last.npy"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    np.testing.assert_array_equal(first.svm_weights, again.svm_weights)
    np.testing.assert_array_equal(first.regressors.weights, again.regressors.weights)

    imdb = get_imdb("synthetic_test", data=devkit)
    found = rcnn.test(first, imdb, tmp_path / "test", progress=False)
    assert len(found.seconds) == imdb.num_images and set(found.aps) == set(imdb.classes[1:])
    loaded = rcnn.load(tmp_path / "a")
    assert loaded.seconds == first.seconds
    for a, b in zip(found.all_boxes, rcnn.test(loaded, imdb, tmp_path, progress=False).all_boxes, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    scores, boxes = first.detect(image(), np.zeros((0, 4), np.uint16))
    assert scores.shape == (0, 7) and boxes.shape == (0, 28)


def test_detection_scores_by_the_svms_and_moves_by_the_regressors() -> None:
    made = features()
    rng = np.random.default_rng(5)
    svm_weights = rng.normal(0, 0.1, (3, made.dim)).astype(np.float32)
    regressors = bbox_regression.BoxRegressors(
        rng.normal(0, 1e-4, (12, made.pooled_dim)).astype(np.float32), rng.normal(0, 0.1, 12).astype(np.float32)
    )
    model = RegionModel(made, ("__background__", "a", "b"), svm_weights, np.arange(3, dtype=np.float32), regressors)
    im, boxes = image(), np.array([[10, 10, 60, 50], [30, 5, 119, 89]], np.uint16)
    scores, found = model.detect(im, boxes)
    pooled = made.pooled(im, boxes)
    np.testing.assert_allclose(scores, made.last(pooled) @ svm_weights.T + [0, 1, 2], rtol=1e-4, atol=1e-4)
    for r, box in enumerate(boxes.astype(float)):
        width, height = box[2] - box[0], box[3] - box[1]
        for k in range(3):
            dx, dy, dw, dh = pooled[r] @ regressors.weights[4 * k : 4 * k + 4].T + regressors.bias[4 * k : 4 * k + 4]
            x, y = box[0] + width / 2 + dx * width, box[1] + height / 2 + dy * height
            w, h = width * np.exp(dw) / 2, height * np.exp(dh) / 2
            expected = [max(x - w, 0), max(y - h, 0), min(x + w, 119), min(y + h, 89)]
            np.testing.assert_allclose(found[r, 4 * k : 4 * k + 4], expected, rtol=1e-4, atol=1e-2)
    cfg.TEST.BBOX_REG = False
    np.testing.assert_array_equal(model.detect(im, boxes)[1], np.tile(boxes, 3))


@pytest.mark.filterwarnings("ignore:.*never detected", "ignore:Liblinear")
def test_commands(devkit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["rcnn", "train", "--imdb", "synthetic_trainval", "--data", devkit, "--out", out, *TINY]) == 0
    assert "box regressors" in capsys.readouterr().out
    test = ["rcnn", "test", "--imdb", "synthetic_test", "--data", devkit, "--cfg", "models/mini/mini.yml"]
    assert main([*test, "--model", out]) == 0
    printed = capsys.readouterr().out
    assert "mAP" in printed and "s an image" in printed
    assert (tmp_path / "out" / "synthetic_test" / "detections.npz").is_file()
    assert main(test) == 1
    assert "--model" in capsys.readouterr().err
    (tmp_path / "out" / "heads.npz").write_bytes(b"PK")
    assert main([*test, "--model", out]) == 1
    assert "heads.npz: not the SVMs and box regressors" in capsys.readouterr().err


def test_heads_of_other_features_are_refused(tmp_path: Path) -> None:
    made = features()
    none = bbox_regression.BoxRegressors(np.zeros((12, made.pooled_dim), np.float32), np.zeros(12, np.float32))
    model = RegionModel(made, ("__background__", "a", "b"), np.zeros((3, 5), np.float32), np.zeros(3), none)
    model.save(tmp_path)
    with pytest.raises(DataError, match=r"heads.npz: arrays .*\(3, 5\).* expected .*\(3, 192\)"):
        rcnn.load(tmp_path)
    with pytest.raises(DataError, match="fake has the classes"):
        rcnn.test(RegionModel(made, ("x",), none.bias, none.bias, none), FakeImdb([]), tmp_path)


def test_images_without_regions(tmp_path: Path) -> None:
    imdb = FakeImdb([])
    with pytest.raises(DataError, match="no regions"):
        feature_cache.cache_pooled(str(tmp_path), features(), imdb, progress=False)


# ---- the shipped nets


def layers_with_weights(name: str) -> dict[str, tuple[str, int]]:
    """Name -> type and num_output of the layers of a shipped prototxt that have weights."""
    found = {}
    for layer in prototxt.read_net(str(models.path(name)))[0].layer:
        if layer.type == "Convolution":
            found[layer.name] = (layer.type, layer.convolution_param.num_output)
        elif layer.type == "InnerProduct":
            found[layer.name] = (layer.type, layer.inner_product_param.num_output)
    return found


@pytest.mark.parametrize("net", ["CaffeNet", "VGG_CNN_M_1024", "VGG16", "mini"])
def test_the_nets_are_those_of_fast_rcnn_on_windows(net: str) -> None:
    """Same layers with weights, so that pretrained weights serve all systems; batches and context as in the paper."""
    fast = layers_with_weights(f"{net}/train.prototxt")
    del fast["bbox_pred"]
    train = layers_with_weights(f"{net}/rcnn/train.prototxt")
    assert train == fast
    del train["cls_score"]
    assert layers_with_weights(f"{net}/rcnn/test.prototxt") == train
    param = prototxt.read_net(str(models.path(f"{net}/rcnn/train.prototxt")))[0]
    windows = window_layer(param, net)
    test = prototxt.read_net(str(models.path(f"{net}/rcnn/test.prototxt")))[0]
    size = windows.transform_param.crop_size
    assert list(test.input_shape[0].dim) == [1, 3, size, size]
    assert list(windows.transform_param.mean_value) == pytest.approx(cfg.PIXEL_MEANS.ravel())
    given = windows.window_data_param
    assert (given.fg_threshold, given.bg_threshold, given.crop_mode) == (0.5, 0.5, "warp")
    assert given.context_pad == (4 if net == "mini" else 16)
    if net != "mini":
        solver = prototxt.read_solver(str(models.path(f"{net}/rcnn/solver.prototxt")))[0]
        assert given.batch_size * solver.iter_size == 128 and given.fg_fraction == 0.25


@pytest.mark.parametrize("command", ["rcnn", "sppnet"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"fast-rcnn {command} test" in capsys.readouterr().out.split("example")[1]
