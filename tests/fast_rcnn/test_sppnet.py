"""SPPnet: the scale of a region, pyramid pooling over it, fine-tuning behind it, and all stages in a row."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import models, prototxt
from caffe_lite.blob import Blob
from caffe_lite.data.config import cfg, cfg_from_file
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.image_blob import prep_im_for_blob
from caffe_lite.errors import DataError, NetError, WeightsError
from caffe_lite.fast_rcnn import sppnet
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.rcnn.feature_cache import FeatureCache
from caffe_lite.fast_rcnn.sppnet import pipeline
from caffe_lite.fast_rcnn.sppnet.finetune import feeder
from caffe_lite.fast_rcnn.sppnet.pyramid import PyramidFeatures

SCALES, LARGEST, SIDE = (60, 84, 132), 300, 64
IMAGE = np.random.default_rng(2).integers(0, 256, (90, 120, 3), dtype=np.uint8)
BOXES = np.array(
    [[0, 0, 119, 89], [10, 20, 15, 30], [30, 30, 30, 30], [50, 10, 110, 70], [3, 40, 60, 88], [70, 0, 119, 40]],
    np.uint16,
)
BINS = (6, 3, 2, 1)


@pytest.fixture(autouse=True)
def settings() -> None:
    cfg_from_file(models.path("mini/sppnet/sppnet.yml"))
    cfg.TEST.SCALES, cfg.TEST.MAX_SIZE = SCALES, LARGEST


@pytest.fixture
def convolutions(tmp_path: Path) -> str:
    """Weights for the convolutions."""
    net = caffe_lite.Net(str(models.path("mini/rcnn/test.prototxt")), caffe_lite.TEST)
    rng = np.random.default_rng(1)
    for blobs in net.params.values():
        blobs[0].data[...] = rng.normal(0, np.sqrt(2 / blobs[0].data[0].size), blobs[0].shape)
    net.save(tmp_path / "convolutions.caffemodel")
    return str(tmp_path / "convolutions.caffemodel")


def features(weights: str) -> PyramidFeatures:
    made = pipeline.make_features(pipeline.DEFINITION)
    made.copy_from(weights, pooled_only=True)
    return made


def slow_level(box: np.ndarray) -> int:
    """The scale at which the region's area is nearest to that of 64 x 64 pixels."""
    area = (int(box[2]) - int(box[0]) + 1) * (int(box[3]) - int(box[1]) + 1)
    scales = [min(target / 90, LARGEST / 120) for target in SCALES]
    return min(range(len(scales)), key=lambda i: abs(area * scales[i] ** 2 - SIDE * SIDE))


def slow_pool(conv: np.ndarray, roi: np.ndarray, bins: int) -> np.ndarray:
    """Maxima of (C, H, W) over a grid of bins x bins in a region, by the definition of RoI pooling; flattened."""

    def nearest(value: float) -> int:
        return math.floor(value / 8 + 0.5)

    x1, y1, x2, y2 = (nearest(float(v)) for v in roi)
    rows, columns = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    out = np.zeros((conv.shape[0], bins, bins), np.float32)
    for i in range(bins):
        ya, yb = y1 + math.floor(i * rows / bins), y1 + math.ceil((i + 1) * rows / bins)
        for j in range(bins):
            xa, xb = x1 + math.floor(j * columns / bins), x1 + math.ceil((j + 1) * columns / bins)
            part = conv[:, min(ya, conv.shape[1]) : yb, min(xa, conv.shape[2]) : xb]
            if part.size:
                out[:, i, j] = part.max(axis=(1, 2))
    return out.ravel()


def test_the_regions_go_to_more_than_one_scale() -> None:
    assert {slow_level(box) for box in BOXES} == {0, 1, 2}


def test_pooled_features_are_maxima_at_the_scale_of_the_region(convolutions: str) -> None:
    made = features(convolutions)
    found = made.pooled(IMAGE, BOXES)
    assert found.shape == (len(BOXES), 96 * 50)
    levels = [prep_im_for_blob(IMAGE, cfg.PIXEL_MEANS, target, LARGEST) for target in SCALES]
    maps = []
    for scaled, _ in levels:
        made.net.blobs["data"].reshape(1, 3, *scaled.shape[:2])
        made.net.blobs["rois"].reshape(1, 5)
        data = scaled.transpose(2, 0, 1)[np.newaxis]
        made.net.forward(data=data, rois=np.zeros((1, 5), np.float32))
        maps.append(made.net.blobs["conv4"].data[0].copy())
    for row, box in zip(found, BOXES, strict=True):
        level = slow_level(box)
        roi = np.float32(box * levels[level][1])
        expected = np.concatenate([slow_pool(maps[level], roi, bins) for bins in BINS])
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)


def test_the_side_of_the_training_input_is_that_of_the_prototxt(convolutions: str) -> None:
    """A larger one sends every region to a larger scale."""
    made = features(convolutions)
    made.area = 1e9
    conv = prep_im_for_blob(IMAGE, cfg.PIXEL_MEANS, SCALES[-1], LARGEST)[0].shape[0]
    made.pooled(IMAGE, BOXES)
    assert made.net.blobs["data"].shape[2] == conv == 132


def test_last_features_go_on_from_the_pooled_ones(convolutions: str) -> None:
    made = features(convolutions)
    rng = np.random.default_rng(4)
    weights, bias = (blob.data for blob in made.net.params["fc6_spp"])
    weights[...], bias[...] = rng.normal(0, 0.01, weights.shape), rng.normal(0, 1, bias.shape)
    pooled = made.pooled(IMAGE, BOXES)
    np.testing.assert_allclose(made.last(pooled), np.maximum(0, pooled @ weights.T + bias), rtol=1e-3, atol=1e-3)
    again = made.pooled(IMAGE, BOXES[:2])  # the net's shapes have changed in between
    np.testing.assert_array_equal(again, pooled[:2])


def entries(overlaps: list[list[float]], classes: list[list[int]]) -> Any:
    roidb = [
        {"max_overlaps": np.array(o, np.float32), "max_classes": np.array(c)}
        for o, c in zip(overlaps, classes, strict=True)
    ]
    return SimpleNamespace(name="fake", roidb=roidb)


def test_batches_are_drawn_from_all_images_foreground_first() -> None:
    overlaps = [[1, 0.5, 0.49, 0.1, 0.09], [0.7, 0.3], [0.2]]
    classes = [[3, 3, 3, 2, 2], [5, 5], [1]]
    imdb = entries(overlaps, classes)
    rows = np.arange(8, dtype=np.float32)[:, np.newaxis] * [1, 10]
    cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.FG_FRACTION = 6, 1 / 3
    net = SimpleNamespace(blobs={"pooled": Blob((1, 1)), "labels": Blob((1,))})
    fill = feeder(FeatureCache(rows.astype(np.float32), [5, 2, 1], 0.0), imdb)
    seen: set[int] = set()
    for _ in range(30):
        fill(net)
        drawn = net.blobs["pooled"].data[:, 0].astype(int)
        np.testing.assert_array_equal(net.blobs["pooled"].data, rows[drawn])
        assert set(drawn[:2]) <= {0, 1, 5} and len(set(drawn[:2])) == 2
        assert sorted(drawn[2:]) == [2, 3, 6, 7]
        labels = {0: 3, 1: 3, 5: 5}
        np.testing.assert_array_equal(net.blobs["labels"].data, [labels[d] for d in drawn[:2]] + [0] * 4)
        seen |= set(drawn)
    assert seen == {0, 1, 2, 3, 5, 6, 7}
    cfg.TRAIN.BATCH_SIZE = 12  # more than there are: some twice
    fill = feeder(FeatureCache(rows.astype(np.float32), [5, 2, 1], 0.0), imdb)
    fill(net)
    assert set(net.blobs["pooled"].data[:4, 0]) <= {0, 1, 5} and len(net.blobs["labels"].data) == 12


def test_no_foreground_is_an_error() -> None:
    with pytest.raises(DataError, match="fake: 0 foreground and 1 background regions"):
        feeder(FeatureCache(np.zeros((2, 3), np.float32), [2], 0.0), entries([[0.2, 0.0]], [[1, 0]]))


TINY = ["--iters", "3", "--cfg", "models/mini/sppnet/sppnet.yml", "--set", "TEST.SCALES", "(60, 84)"]


@pytest.mark.filterwarnings("ignore:.*never detected", "ignore:Liblinear")
def test_all_stages_and_again_to_the_bit(devkit: str, tmp_path: Path, convolutions: str) -> None:
    trained = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        np.random.seed(3)
        caffe_lite.set_random_seed(3)
        imdb = get_imdb("synthetic_trainval", data=devkit)
        trained.append(sppnet.train(imdb, folder, convolutions, iters=3, progress=False))
    first, again = trained
    assert list(first.seconds) == ["pooled features", "fine-tune", "last features", "SVMs", "box regressors"]
    for name in ("features.caffemodel", "pooled.npy", "last.npy"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    np.testing.assert_array_equal(first.svm_weights, again.svm_weights)
    given = caffe_lite.Net(str(models.path("mini/rcnn/test.prototxt")), caffe_lite.TEST, weights=convolutions)
    for name in ("conv1", "conv2", "conv3", "conv4"):  # not trained
        np.testing.assert_array_equal(first.features.net.params[name][0].data, given.params[name][0].data)
    tuned = caffe_lite.Net(str(models.path("mini/sppnet/train.prototxt")), caffe_lite.TEST)
    tuned.copy_from(tmp_path / "a" / "mini_sppnet_iter_3.caffemodel")
    np.testing.assert_array_equal(first.features.net.params["fc6_spp"][0].data, tuned.params["fc6_spp"][0].data)

    imdb = get_imdb("synthetic_test", data=devkit)
    found = sppnet.test(first, imdb, tmp_path / "test", progress=False)
    again = sppnet.test(sppnet.load(tmp_path / "a"), imdb, tmp_path / "test", progress=False)
    for a, b in zip(found.all_boxes, again.all_boxes, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    cfg.TEST.SCALES = (60,)
    with pytest.raises(DataError, match=r"heads.npz: trained on features of .*84, 132.*, these are of .*\(60,\)"):
        sppnet.load(tmp_path / "a")


@pytest.mark.filterwarnings("ignore:.*never detected", "ignore:Liblinear")
def test_commands(devkit: str, tmp_path: Path, convolutions: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    train = ["sppnet", "train", "--imdb", "synthetic_trainval", "--data", devkit, "--out", out, *TINY]
    assert main(train) == 1
    assert "--weights" in capsys.readouterr().err
    assert main([*train, "--weights", convolutions]) == 0
    assert "fine-tune" in capsys.readouterr().out
    test = ["sppnet", "test", "--imdb", "synthetic_test", "--data", devkit, "--model", out, *TINY[2:]]
    assert main(test) == 0
    assert "mAP" in capsys.readouterr().out


def test_weights_without_the_convolutions_are_refused(tmp_path: Path) -> None:
    caffe_lite.Net(str(models.path("mini/sppnet/train.prototxt")), caffe_lite.TEST).save(tmp_path / "fc.caffemodel")
    with pytest.raises(WeightsError, match="holds no weights for conv1, conv2, conv3, conv4, which net 'mini_sppnet'"):
        features(str(tmp_path / "fc.caffemodel"))


def test_a_net_without_rois_is_refused() -> None:
    with pytest.raises(NetError, match="expected data"):
        PyramidFeatures(caffe_lite.Net(str(models.path("mini/rcnn/test.prototxt")), caffe_lite.TEST))


@pytest.mark.parametrize("net", ["CaffeNet", "VGG_CNN_M_1024", "VGG16", "mini"])
def test_the_nets_are_those_of_fast_rcnn_with_a_pyramid(net: str) -> None:
    """The same trunk, 50 bins of it at the trunk's scale, and a train net of what lies behind."""

    def layers(name: str) -> dict[str, Any]:
        return {layer.name: layer for layer in prototxt.read_net(str(models.path(name)))[0].layer}

    fast, test, train = (layers(f"{net}/{name}.prototxt") for name in ("test", "sppnet/test", "sppnet/train"))
    pool = next(name for name, layer in fast.items() if layer.type == "ROIPooling")
    trunk = list(fast)[: list(fast).index(pool)]
    assert [test[name] for name in trunk] == [fast[name] for name in trunk]
    pools = [layer for layer in test.values() if layer.type == "ROIPooling"]
    for layer, bins in zip(pools, BINS, strict=True):
        param = layer.roi_pooling_param
        assert (param.pooled_h, param.pooled_w, param.spatial_scale) == (
            bins, bins, fast[pool].roi_pooling_param.spatial_scale,
        )  # fmt: skip
        assert list(layer.bottom) == list(fast[pool].bottom)
    assert list(test["pooled"].bottom) == [f"spp{bins}_flat" for bins in BINS]
    channels = next(fast[name] for name in reversed(trunk) if fast[name].type == "Convolution")
    inputs = prototxt.read_net(str(models.path(f"{net}/sppnet/train.prototxt")))[0].input_shape
    assert inputs[0].dim[1] == 50 * channels.convolution_param.num_output
    inner = [layer for layer in test.values() if layer.type == "InnerProduct"]
    assert [layer.name for layer in train.values() if layer.type == "InnerProduct"][:-1] == [x.name for x in inner]
    assert "cls_score" in train and "cls_score" not in test
    for layer in inner:
        assert layer.inner_product_param.num_output == train[layer.name].inner_product_param.num_output
