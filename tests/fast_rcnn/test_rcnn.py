"""R-CNN: all stages in a row, the commands, and the shipped nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe_lite import models, prototxt
from caffe_lite.data.config import cfg
from caffe_lite.data.factory import get_imdb
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn import rcnn, sppnet
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.rcnn.finetune import window_layer
from caffe_lite.fast_rcnn.rcnn.region_model import RegionModel
from tests.fast_rcnn.rcnn_inputs import features, image, seed

pytestmark = pytest.mark.usefixtures("rcnn_settings")


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
