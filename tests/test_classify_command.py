"""``caffe-lite classify`` on a net whose output is the mean colour of its input, so every prediction is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite.cli import main

COLOURS = {"a.png": (255, 0, 51), "b.png": (0, 102, 0), "c.png": (20, 30, 40)}  # R, G, B of images of one colour
NET = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 2 dim: {channels} dim: 8 dim: 8 }} }} }}
layer {{ name: "mean" type: "Pooling" bottom: "data" top: "mean" pooling_param {{ pool: AVE global_pooling: true }} }}
layer {{ name: "out" type: "InnerProduct" bottom: "mean" top: "out" inner_product_param {{ num_output: {channels} }} }}
"""


def make_net(folder: Path, channels: int = 3) -> list[str]:
    """The options that name a net which hands on the mean of each of its channels."""
    prototxt, weights = folder / f"net{channels}.prototxt", folder / f"net{channels}.caffemodel"
    prototxt.write_text(NET.format(channels=channels))
    net = caffe.Net(str(prototxt), caffe.TEST)
    net.params["out"][0].data[...] = np.eye(channels)
    net.save(str(weights))
    return ["--model_def", str(prototxt), "--pretrained_model", str(weights)]


@pytest.fixture
def net(tmp_path: Path) -> list[str]:
    return make_net(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, (name, (r, g, b)) in enumerate(COLOURS.items()):
        cv2.imwrite(str(folder / name), np.full((10 + i, 16, 3), (b, g, r), np.uint8))
    (folder / "notes.txt").write_text("no image")
    return folder


def bgr_minus_mean(name: str) -> np.ndarray:
    """What the defaults make of a colour: B, G, R from 0 to 255 minus the mean of ILSVRC 2012."""
    return np.array(COLOURS[name][::-1]) - [104.00698793, 116.66876762, 122.67891434]


def test_a_folder_in_the_order_of_names_with_the_defaults(net, photos: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.npy"
    assert main(["classify", str(photos), str(out), *net, "--ext", "png", "--center_only"]) == 0
    np.testing.assert_allclose(np.load(out), [bgr_minus_mean(name) for name in COLOURS], atol=1e-3)
    assert "Classifying 3 inputs." in capsys.readouterr().out


def test_best_classes_come_with_their_labels(net, photos: Path, tmp_path: Path, capsys) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("n01 blue\nn02 green\nn03 red, crimson\n")
    args = [str(photos / "a.png"), str(tmp_path / "out"), *net, "--center_only", "--labels", str(labels), "--top", "2"]
    assert main(["classify", *args, "--mean_file", ""]) == 0
    printed = capsys.readouterr().out
    assert "  255.0000  n03 red, crimson\n  51.0000  n01 blue\n" in printed
    assert "green" not in printed
    assert np.load(tmp_path / "out.npy").shape == (1, 3), "NumPy's ending is added, as by np.save"


def test_each_step_of_preparation(net, photos: Path, tmp_path: Path) -> None:
    caffe_mean = tmp_path / "mean.npy"
    np.save(caffe_mean, np.array([1.0, 2.0, 3.0]))
    options = ["--mean_file", str(caffe_mean), "--channel_swap", "0,2,1", "--raw_scale", "10", "--input_scale", "0.5"]
    out = tmp_path / "out.npy"
    assert main(["classify", str(photos / "a.png"), str(out), *net, *options, "--center_only"]) == 0
    np.testing.assert_allclose(np.load(out), [[(10 - 1) / 2, (2 - 2) / 2, (0 - 3) / 2]], atol=1e-4)


def test_a_mean_image_of_a_binaryproto(net, photos: Path, tmp_path: Path) -> None:
    from caffe_lite.weights import write_mean

    write_mean(tmp_path / "mean.binaryproto", np.broadcast_to(np.float32([1, 2, 3])[:, None, None], (3, 8, 8)))
    out = tmp_path / "out.npy"
    mean = ["--mean_file", str(tmp_path / "mean.binaryproto")]
    assert main(["classify", str(photos / "a.png"), str(out), *net, *mean, "--center_only"]) == 0
    np.testing.assert_allclose(np.load(out), [[51 - 1, 0 - 2, 255 - 3]], atol=1e-3)


def test_center_only_sees_the_centre_and_oversampling_the_corners(net, tmp_path: Path) -> None:
    image = np.zeros((1, 12, 12, 3), np.float32)
    image[:, 2:10, 2:10] = 1  # the centre crop of 8 x 8 is white, the corners' are white where they meet it: 36 of 64
    np.save(tmp_path / "images.npy", image)
    plain = ["--images_dim", "12,12", "--mean_file", "", "--raw_scale", "1"]
    for flags, expected in (["--center_only"], 1.0), ([], (4 * 36 / 64 + 1) / 5):
        assert main(["classify", str(tmp_path / "images.npy"), str(tmp_path / "o.npy"), *net, *plain, *flags]) == 0
        np.testing.assert_allclose(np.load(tmp_path / "o.npy"), np.full((1, 3), expected), rtol=1e-5)


def test_a_net_of_grey_images(photos: Path, tmp_path: Path, capsys) -> None:
    grey = make_net(tmp_path, channels=1)
    args = [str(photos / "b.png"), str(tmp_path / "out.npy"), *grey]
    assert main(["classify", *args]) == 1
    error = capsys.readouterr().err
    assert "the mean of data" in error and "--mean_file" in error and not (tmp_path / "out.npy").exists()
    assert main(["classify", *args, "--mean_file", "", "--channel_swap", ""]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), [[0.7154 * 102]], rtol=1e-4)  # green's luminance


def test_quiet_prints_nothing(net, photos: Path, tmp_path: Path, capsys) -> None:
    assert main(["classify", str(photos), str(tmp_path / "o.npy"), *net, "--ext", "png", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda f: f / "empty", [], "no file in this folder ends in .jpg"),
        (lambda f: f / "absent.png", [], "absent.png: cannot be read"),
        (lambda f: f / "objects.npy", [], "objects.npy: damaged, or not a .npy of numbers"),
        (lambda f: f / "flat.npy", [], r"expected images as numbers (N, H, W, C), got float64 (3, 4)"),
        (lambda f: f / "photos" / "a.png", ["--labels", "LABELS"], "2 labels, one a line, for the 3 classes"),
        (lambda f: f / "photos" / "a.png", ["--images_dim", "4,4"], "a crop of (8, 8) does not fit"),
        (lambda f: f / "photos" / "a.png", ["--images_dim", "8"], "expected height and width"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    net, photos: Path, tmp_path: Path, capsys, make, options, message
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros((3, 4)))
    options = [str(tmp_path / "labels.txt") if option == "LABELS" else option for option in options]
    out = tmp_path / "out.npy"
    assert main(["classify", str(make(tmp_path)), str(out), *net, *options]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()
