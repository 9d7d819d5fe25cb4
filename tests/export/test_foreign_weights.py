"""Weights from elsewhere: by an explicit map, with torchvision's VGG16 as the worked example."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import models, prototxt
from caffe_lite.cli import main
from caffe_lite.errors import WeightsError
from caffe_lite.export import foreign_weights
from caffe_lite.proto import caffe_pb2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG16 = "models/classification/VGG16/deploy.prototxt"
MAP = "models/classification/VGG16/torchvision.json"
WIDTHS = {64: 4, 128: 5, 256: 6, 512: 7, 4096: 9, 1000: 8}


def small_vgg16() -> Any:
    """VGG16 with fewer channels, for images of 32 x 32."""
    param, _ = prototxt.read_net(models.resolve(VGG16))
    for layer in param.layer:
        for p in (layer.convolution_param, layer.inner_product_param):
            if p.num_output:
                p.num_output = WIDTHS[p.num_output]
    shape = param.layer[0].input_param.shape[0]
    shape.dim[:] = [1, 3, 32, 32]
    return param


def torchvision_arrays(scale: dict[int, int]) -> dict[str, np.ndarray]:
    """Random arrays in torchvision's names and shapes, its widths replaced by ``scale``, for maps of 1 x 1 at the end.

    Its layout: features 0, 2, 5, ... are convolutions (ReLUs take a number each, poolings one), classifier 0, 3, 6
    are linear (a ReLU and a Dropout follow each).
    """
    rng = np.random.default_rng(0)
    arrays, before, number = {}, 3, 0
    for stage in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        for width in stage:
            made = scale[width]
            arrays[f"features.{number}.weight"] = rng.normal(size=(made, before, 3, 3)) * (2 / (9 * before)) ** 0.5
            arrays[f"features.{number}.bias"] = rng.normal(size=made) / 5
            before, number = made, number + 2
        number += 1
    for i, width in ((0, 4096), (3, 4096), (6, 1000)):
        made = scale[width]
        arrays[f"classifier.{i}.weight"] = rng.normal(size=(made, before)) * before**-0.5
        arrays[f"classifier.{i}.bias"] = rng.normal(size=made) / 5
        before = made
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def reference(arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probabilities as torchvision's VGG16 defines them, of one image (3, H, W), in float64."""

    def conv(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        height, width = x.shape[1:]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        taps = [
            np.tensordot(w[:, :, i, j].astype(float), padded[:, i : i + height, j : j + width], 1)
            for i, j in np.ndindex(3, 3)
        ]
        return np.maximum(sum(taps) + b[:, None, None], 0)

    number = 0
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            x = conv(x, arrays[f"features.{number}.weight"], arrays[f"features.{number}.bias"])
            number += 2
        number += 1
        x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max((2, 4))
    y = x.reshape(-1)
    for i in (0, 3, 6):
        y = arrays[f"classifier.{i}.weight"].astype(float) @ y + arrays[f"classifier.{i}.bias"]
        y = np.maximum(y, 0) if i < 6 else np.exp(y - y.max())
    return y / y.sum()


def test_the_shipped_map_covers_vgg16() -> None:
    """Names of both sides, and torchvision's published shapes: features.0 (64, 3, 3, 3), classifier.0 (4096, 25088)."""
    names = foreign_weights.read_map(models.resolve(MAP))
    param, _ = prototxt.read_net(models.resolve(VGG16))
    layers = [layer.name for layer in param.layer if layer.type in ("Convolution", "InnerProduct")]
    assert list(names) == [f"{layer}.{what}" for layer in layers for what in ("weight", "bias")]
    assert list(names.values()) == list(torchvision_arrays(WIDTHS))
    assert names["conv5_3.weight"] == "features.28.weight" and names["fc6.weight"] == "classifier.0.weight"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """(prototxt of the small VGG16, arrays for it)."""
    path = tmp_path / "net.prototxt"
    path.write_text(prototxt.write(small_vgg16()))
    return str(path), torchvision_arrays(WIDTHS)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_torchvision_vgg16(files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    """What torchvision computes of an RGB image / 255, normalised, the net computes of its BGR minus the mean."""
    net_path, arrays = files
    source = str(tmp_path / f"vgg16.{ending}")
    if ending == "npz":
        np.savez(source, **arrays, **{"extra.num_batches_tracked": np.array(3)})  # type: ignore[arg-type]
    else:
        pytest.importorskip("safetensors.numpy", reason="needs the extra safetensors").save_file(arrays, source)
    out = str(tmp_path / "vgg16.caffemodel")
    command = ["import_weights", source, net_path, "-o", out, "--map", MAP, "--rgb-to-bgr", "conv1_1"]
    assert main([*command, "--mean", *map(str, MEAN), "--std", *map(str, STD)]) == 0
    text = capsys.readouterr().out
    assert "subtract from each pixel (B, G, R): 103.530, 116.280, 123.675" in text
    assert ("not used: extra.num_batches_tracked" in text) == (ending == "npz")

    rgb = np.random.default_rng(1).integers(0, 256, (3, 32, 32)).astype(float)
    net = caffe_lite.Net(net_path, caffe_lite.TEST, weights=out)
    net.blobs["data"].data[0] = rgb[::-1] - np.array([103.53, 116.28, 123.675])[:, None, None]
    normalised = (rgb / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(net.forward()["prob"][0], reference(arrays, normalised), rtol=2e-4)


def test_without_options_the_weights_are_copied(files: Any) -> None:
    net_path, arrays = files
    net = caffe_lite.Net(net_path, caffe_lite.TEST)
    report = foreign_weights.import_arrays(net, arrays, foreign_weights.read_map(models.resolve(MAP)), "source")
    np.testing.assert_array_equal(net.params["conv1_1"][0].data, arrays["features.0.weight"])
    np.testing.assert_array_equal(net.params["fc8"][1].data, arrays["classifier.6.bias"])
    assert report.mean_values is None and report.notes == [] and len(report.copied) == 32


def test_everything_that_is_wrong_is_listed(files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net_path, arrays = files
    names = foreign_weights.read_map(models.resolve(MAP))
    del names["conv2_1.bias"]
    names["conv9_9.weight"] = "features.0.weight"
    names["fc8.bias"] = "classifier.6.bais"
    arrays["features.2.weight"] = arrays["features.2.weight"][:, :2]
    np.savez(tmp_path / "w.npz", **arrays)
    (tmp_path / "map.json").write_text(json.dumps(names))
    out = tmp_path / "out.caffemodel"
    command = ["import_weights", str(tmp_path / "w.npz"), net_path, "-o", str(out), "--map", str(tmp_path / "map.json")]
    assert main(command) == 1
    error = capsys.readouterr().err
    for expected in (
        r"conv9_9\.weight: the net has no such array",
        r"conv2_1\.bias \(5,\): not in the map",
        r"fc8\.bias: the file has no 'classifier\.6\.bais'; did you mean 'classifier\.6\.bias'",
        r"conv1_2\.weight: 'features\.2\.weight' has shape \(4, 2, 3, 3\), the net needs \(4, 4, 3, 3\)",
    ):
        assert re.search(expected, error), expected
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rgb_to_bgr": "conv1_2"}, "4 input channels; RGB has 3"),
        ({"rgb_to_bgr": "conv1_3"}, "no layer 'conv1_3'.*did you mean"),
        ({"mean": [0.5]}, "3 input channels, but --mean 1 numbers"),
        ({"mean": MEAN, "std": (1, 0, 1)}, "--std must be numbers greater than 0"),
    ],
)
def test_bad_options(files: Any, options: dict[str, Any], reason: str) -> None:
    net_path, arrays = files
    net = caffe_lite.Net(net_path, caffe_lite.TEST)
    with pytest.raises(WeightsError, match=reason):
        foreign_weights.import_arrays(net, arrays, foreign_weights.read_map(models.resolve(MAP)), "source", **options)
    assert not net.params["conv1_1"][0].data.any(), "the net is unchanged"


def test_mean_and_std_without_reversing(files: Any) -> None:
    """The first layer is found; channels stay in their order."""
    net_path, arrays = files
    net = caffe_lite.Net(net_path, caffe_lite.TEST)
    names = foreign_weights.read_map(models.resolve(MAP))
    report = foreign_weights.import_arrays(net, arrays, names, "source", mean=MEAN, std=STD)
    assert report.mean_values == pytest.approx([123.675, 116.28, 103.53])
    expected = arrays["features.0.weight"] / (255 * np.reshape(STD, (1, 3, 1, 1)))
    np.testing.assert_allclose(net.params["conv1_1"][0].data, expected, rtol=1e-6)


def test_a_batch_norm_without_scale_factor() -> None:
    param = caffe_pb2.NetParameter(input=["x"])
    param.input_shape.add().dim.extend([1, 2, 1, 1])
    param.layer.add(name="bn", type="BatchNorm", bottom=["x"], top=["y"])
    net = caffe_lite.Net.from_param(param)
    arrays = {"m": np.array([1.0, 2.0]), "v": np.array([4.0, 9.0])}
    foreign_weights.import_arrays(net, arrays, {"bn.mean": "m", "bn.variance": "v"}, "source")
    y = net.forward(x=np.array([[[[5.0]], [[5.0]]]], np.float32))["y"].reshape(-1)
    np.testing.assert_allclose(y, [2, 1], rtol=1e-4)
    with pytest.raises(WeightsError, match=r"bn\.scale_factor \(1,\): not in the map"):
        foreign_weights.import_arrays(net, arrays, {"bn.mean": "m"}, "source")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]", "an object of texts"),
        ('{"a": 1}', "an object of texts"),
        ('{"a": "b", "a": "c"}', "'a' is mapped twice"),
        ("{", "not a JSON name map"),
        ("[" * 100_000, "not a JSON name map"),
    ],
)
def test_bad_maps(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(WeightsError, match=reason):
        foreign_weights.read_map(tmp_path / "map.json")


def test_bad_sources(tmp_path: Path) -> None:
    np.savez(tmp_path / "object.npz", a=np.array([{}], dtype=object))
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 20)
    np.savez(tmp_path / "text.npz", a=np.array(["x"]))
    for name, reason in (
        ("object.npz", "damaged"),
        ("cut.npz", "damaged"),
        ("cut.safetensors", "damaged|safetensors"),
        ("text.npz", "expected numbers"),
        ("none.npz", "no such file"),
        ("net.h5", "no format is known"),
    ):
        with pytest.raises(caffe_lite.CaffeError, match=reason):
            foreign_weights.read_arrays(tmp_path / name)
