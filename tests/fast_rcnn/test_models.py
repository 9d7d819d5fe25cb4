"""The variants of the nets in use: stage-wise training, the original's names, five scales, every test net."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import models
from caffe_lite.data.config import cfg, cfg_from_file, cfg_from_list
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.roi_data_layer.minibatch import get_minibatch
from caffe_lite.data.roi_data_layer.roidb import add_bbox_regression_targets
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.test import im_detect, test_net
from caffe_lite.fast_rcnn.train import SolverWrapper, get_training_roidb, train_net

pytestmark = pytest.mark.usefixtures("mini_settings")


def train(devkit: str, variant: str, iters: int, weights: str | None = None) -> SolverWrapper:
    """Train models/mini/VARIANT with its settings on the synthetic pictures."""
    cfg_from_file(models.path(f"cfgs/{variant}.yml"))
    np.random.seed(3)
    caffe_lite.set_random_seed(3)
    imdb = get_imdb("synthetic_trainval", data=devkit)
    return train_net(f"models/mini/{variant}/solver.prototxt", imdb, variant, weights, iters, progress=False)


def parameters(path: str, prototxt: str = "mini/test.prototxt") -> dict[str, list[np.ndarray]]:
    net = caffe_lite.Net(str(models.path(prototxt)), caffe_lite.TEST)
    net.copy_from(path)
    return {name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()}


def test_stage_wise_training(devkit: str) -> None:
    """First classification alone; then bbox_pred alone, all else as the first stage left it."""
    first = train(devkit, "no_bbox_reg", 3)
    weights = first.snapshots[-1]
    assert Path(weights).name == "mini_fast_rcnn_no_bbox_reg_iter_3.caffemodel"
    assert "bbox_pred" not in first.solver.net.params and set(first.losses) == {"loss"}
    tested = caffe_lite.Net(str(models.path("mini/no_bbox_reg/test.prototxt")), caffe_lite.TEST, weights=weights)
    aps = test_net(tested, get_imdb("synthetic_test", data=devkit), "tested", progress=False)
    assert len(aps) == 6

    cfg.TRAIN.BBOX_REG = cfg.TEST.BBOX_REG = True
    second = train(devkit, "piecewise", 3, weights)
    assert Path(second.snapshots[-1]).name == "mini_fast_rcnn_piecewise_iter_3.caffemodel"
    assert list(second.copy_report.untouched) == ["bbox_pred"]
    assert set(second.losses) == {"loss"}  # that of bbox_pred: loss_cls has weight 0
    assert second.losses["loss"][-1] == pytest.approx(float(second.solver.net.blobs["loss_bbox"].data), rel=1e-6)
    assert float(second.solver.net.blobs["loss_cls"].data) > 0.1
    before, after = parameters(weights), parameters(second.snapshots[-1])
    for name in set(after) - {"bbox_pred"}:
        for a, b in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert after["bbox_pred"][0].any()
    assert second.solver.net.params["bbox_pred"][1].data.any()  # biases begin at 0


def test_stage_wise_regression_learns_on_the_features_of_a_classifier(devkit: str) -> None:
    """bbox_pred comes to predict the targets better than 0 does, on the same minibatches."""
    cfg.TRAIN.BATCH_SIZE = 32
    weights = train(devkit, "no_bbox_reg", 50).snapshots[-1]
    cfg_from_file(models.path("cfgs/piecewise.yml"))
    cfg.TRAIN.BBOX_REG = True
    roidb = get_training_roidb(get_imdb("synthetic_trainval", data=devkit))
    stage = SolverWrapper("models/mini/piecewise/solver.prototxt", roidb, "piecewise", weights)
    of_zero = []
    for _ in range(100):
        stage.solver.step(1)
        blobs = stage.solver.net.blobs
        errors = np.abs(blobs["bbox_loss_weights"].data * blobs["bbox_targets"].data)
        of_zero.append(np.where(errors < 1, 0.5 * errors**2, errors - 0.5).sum() / len(errors))  # the paper's smooth L1
    losses = stage.losses["loss"]
    assert losses[0] == pytest.approx(of_zero[0], rel=0.02)  # bbox_pred begins near 0
    assert np.mean(losses[50:]) < 0.9 * np.mean(of_zero[50:])


def test_settings_of_a_net_and_of_an_experiment_go_together(devkit: str) -> None:
    """``--cfg`` twice: the mini net's scales, and what the second file sets over the first's EXP_DIR."""
    words = ["train-net", "--solver", "models/mini/no_bbox_reg/solver.prototxt", "--imdb", "synthetic_trainval"]
    words += ["--data", devkit, "--iters", "1", "--cfg", "models/mini/mini.yml", "--cfg", "models/cfgs/no_bbox_reg.yml"]
    assert main([*words, "--set", "TRAIN.BATCH_SIZE", "16", "TRAIN.SCALES", "(64,)"]) == 0
    assert cfg.TRAIN.MAX_SIZE == 320 and cfg.EXP_DIR == "no_bbox_reg"
    assert Path("output/no_bbox_reg/synthetic_trainval/mini_fast_rcnn_no_bbox_reg_iter_1.caffemodel").is_file()


def test_a_net_trained_with_regression_tests_without_it(devkit: str) -> None:
    """Table 6, multi-task training: the same net with TEST.BBOX_REG False returns the regions."""
    net = caffe_lite.Net(str(models.path("mini/test.prototxt")), caffe_lite.TEST)
    regions = np.array([[3, 4, 60, 50], [10, 20, 50, 70]])
    image = np.zeros((100, 120, 3), np.uint8)
    cfg.TEST.BBOX_REG = False
    _, boxes = im_detect(net, image, regions)
    np.testing.assert_array_equal(boxes, np.tile(regions, (1, 7)))


def test_five_scales_in_training_and_testing(devkit: str) -> None:
    """A scale is drawn for each image; in testing a region goes to the level of nearest area 224 x 224."""
    cfg_from_list(["TRAIN.SCALES", "(48, 56, 68, 86, 120)", "TRAIN.MAX_SIZE", "200", "TRAIN.IMS_PER_BATCH", "4"])
    imdb = get_imdb("synthetic_trainval", data=devkit)
    roidb = get_training_roidb(imdb)
    add_bbox_regression_targets(roidb)
    np.random.seed(5)
    expected = np.random.randint(0, high=5, size=4)
    np.random.seed(5)
    blobs = get_minibatch(roidb[:4], 7)
    sides = []
    for plane in blobs["data"]:
        used = np.abs(plane).sum(axis=0) > 0
        sides.append(min(used.any(axis=1).sum(), used.any(axis=0).sum()))
    assert len(set(expected)) > 1 and sides == [cfg.TRAIN.SCALES[k] for k in expected]

    cfg_from_list(["TEST.SCALES", "(48, 56, 68, 86, 120)", "TEST.MAX_SIZE", "200", "DEDUP_BOXES", "0.0"])
    net = caffe_lite.Net(str(models.path("mini/test.prototxt")), caffe_lite.TEST)
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    regions = np.array([[0, 0, 119, 99], [5, 5, 20, 20]], np.uint16)
    im_detect(net, image, regions)
    assert net.blobs["data"].shape == (5, 3, 120, 144)
    assert net.blobs["rois"].data[:, 0].tolist() == [4, 4]  # small regions: the largest level
    np.testing.assert_allclose(net.blobs["rois"].data[:, 1:], regions * 1.2, rtol=1e-6)


def test_minibatches_without_foreground_train_the_classifier_alone(devkit: str) -> None:
    """No region reaches FG_THRESH: all are background, the loss of the boxes is 0, and nothing is NaN."""
    cfg_from_list(["TRAIN.FG_THRESH", "1.5", "TRAIN.BG_THRESH_LO", "0.0"])
    trained = train_net(
        "models/mini/solver.prototxt", get_imdb("synthetic_trainval", data=devkit), "out", max_iters=2, progress=False
    )
    assert not trained.solver.net.blobs["labels"].data.any()
    assert trained.losses["loss_bbox"] == [0, 0] and min(trained.losses["loss_cls"]) > 0
    assert all(np.isfinite(blob.data).all() for blobs in trained.solver.net.params.values() for blob in blobs)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("caffe_lite.fast_rcnn.config", "cfg cfg_from_file cfg_from_list"),
        ("caffe_lite.fast_rcnn.test", "im_detect test_net apply_nms"),
        ("caffe_lite.fast_rcnn.train", "SolverWrapper get_training_roidb train_net"),
        ("caffe_lite.data.roidb", "prepare_roidb add_bbox_regression_targets"),
        ("caffe_lite.data.minibatch", "get_minibatch"),
        ("caffe_lite.data.roi_data_layer", "RoIDataLayer"),
        ("caffe_lite.data.roi_data_layer.layer", "RoIDataLayer"),
        ("caffe_lite.data.nms", "nms"),
        ("caffe_lite.data.voc_eval", "voc_eval"),
        ("caffe_lite.fast_rcnn", "Detector"),
    ],
)
def test_who_knows_the_original_finds_its_names(module: str, names: str) -> None:
    found: Any = importlib.import_module(module)
    for name in names.split():
        assert hasattr(found, name), name
    assert found.cfg is cfg if "cfg" in names.split() else True
