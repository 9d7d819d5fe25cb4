"""The PyTorch module computes what the net computes: each layer type, every deploy net, the detectors."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite.cli import main
from caffe_lite.export import foreign_weights, pytorch
from caffe_lite.export.arrays import named_blobs
from caffe_lite.export.torch_layers import converters
from caffe_lite.export.torch_source import MODULE_NAMES
from tests.export.layer_cases import CASES, fill, names, one_layer_net, type_of
from tests.export.nets import CONV, DEPLOY_NETS, EVIL, chain, random_net

torch = pytest.importorskip("torch", reason="needs torch")

TOO_WIDE = "kernel_size: 3 stride: 3 pad: 2"  # a padding that PyTorch does not take
LAYERS = [case for case in CASES if type_of(case) in converters and TOO_WIDE not in case[0]]
DETECTORS = [pytest.param(f"{name}/test.prototxt", marks=pytest.mark.soak) for name in ("CaffeNet", "VGG_CNN_M_1024", "VGG16")]  # fmt: skip


def roi_pool(data: Any, rois: Any, size: tuple[int, int], scale: float) -> Any:
    """torchvision.ops.roi_pool by its definition: maxima of bins of a rounded region, 0 for empty ones."""
    (height, width), (ph, pw) = data.shape[2:], size
    y = torch.zeros(len(rois), data.shape[1], ph, pw)
    corners = rois[:, 1:].numpy() * np.float32(scale)
    rounded = np.where(corners < 0, np.ceil(corners - 0.5), np.floor(corners + 0.5)).astype(int)
    for r, (x1, y1, x2, y2) in enumerate(rounded):
        bin_h, bin_w = (
            np.float32(max(y2 - y1 + 1, 1)) / np.float32(ph),
            np.float32(max(x2 - x1 + 1, 1)) / np.float32(pw),
        )
        for i, j in np.ndindex(ph, pw):
            top, bottom = (int(min(max(v + y1, 0), height)) for v in (np.floor(i * bin_h), np.ceil((i + 1) * bin_h)))
            left, right = (int(min(max(v + x1, 0), width)) for v in (np.floor(j * bin_w), np.ceil((j + 1) * bin_w)))
            if bottom > top and right > left:
                y[r, :, i, j] = data[int(rois[r, 0]), :, top:bottom, left:right].amax((1, 2))
    return y


@pytest.fixture(autouse=True)
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("torchvision")
    package.ops = types.SimpleNamespace(roi_pool=roi_pool)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)


@pytest.mark.parametrize(("layer", "shapes", "tops"), LAYERS, ids=names(LAYERS))
def test_layer(tmp_path: Path, layer: str, shapes: list[tuple[int, ...]], tops: int) -> None:
    net = one_layer_net(layer, shapes, tops)
    fill(net)
    pytorch.export_torch(net, tmp_path / "net.pt")
    inputs = [net.blobs[name].data.copy() for name in net.inputs]
    expected = {name: values.copy() for name, values in net.forward().items()}
    found = dict(zip(net.outputs, pytorch.run_torch(tmp_path / "net.pt", inputs), strict=True))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-6)
        assert found[name].shape == values.shape


def test_every_converter_is_tried() -> None:
    assert set(converters) - {type_of(case) for case in LAYERS} == {"Parameter"}


@pytest.mark.parametrize("name", DEPLOY_NETS)
def test_deploy_nets(tmp_path: Path, name: str) -> None:
    net = random_net(f"classification/{name}/deploy.prototxt")
    net.blobs["data"].reshape(2, *net.blobs["data"].shape[1:])
    net.reshape()
    pytorch.export_torch(net, tmp_path / "net.pt")
    assert pytorch.compare(net, tmp_path / "net.pt")["prob"] < 2e-5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.pt", "net.py"]


@pytest.mark.parametrize("name", ["mini/test.prototxt", *DETECTORS])
def test_detectors(tmp_path: Path, name: str) -> None:
    net = random_net(name)
    net.blobs["data"].reshape(1, 3, 130, 170)
    net.blobs["rois"].reshape(7, 5)
    net.reshape()
    pytorch.export_torch(net, tmp_path / "net.pt")
    worst = pytorch.compare(net, tmp_path / "net.pt")
    assert set(worst) == {"cls_prob", "bbox_pred"} and max(worst.values()) < 2e-5


def test_names_that_are_no_identifiers(tmp_path: Path) -> None:
    net = chain(EVIL, (EVIL, CONV), ("train", CONV), ("a/b", CONV), ("a.b", CONV))
    for i, blob in enumerate(named_blobs(net).values()):
        blob.data[...] = np.random.default_rng(i).normal(size=blob.shape)
    pytorch.export_torch(net, tmp_path / "evil.pt")
    assert max(pytorch.compare(net, tmp_path / "evil.pt").values()) < 2e-6


def test_shared_parameters_are_stored_once(tmp_path: Path) -> None:
    layer = f'{CONV} param {{ name: "w" }} param {{ name: "b" }}'
    net = chain("shared", ("a", layer), ("b", layer))
    net.params["a"][0].data[...] = np.arange(9).reshape(3, 3, 1, 1)
    pytorch.export_torch(net, tmp_path / "net.pt")
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    assert state["a.weight"].data_ptr() == state["b.weight"].data_ptr()
    assert max(pytorch.compare(net, tmp_path / "net.pt").values()) < 2e-6


def test_no_attribute_hides_a_method_of_modules() -> None:
    assert {name for name in dir(torch.nn.Module) if not name.startswith("_")} <= MODULE_NAMES


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random_net("classification/LeNet/deploy.prototxt").save(tmp_path / "lenet.caffemodel")
    out = str(tmp_path / "lenet.pt")
    command = ["export", "models/classification/LeNet/deploy.prototxt", str(tmp_path / "lenet.caffemodel"), "-o", out]
    assert main([*command, "--check"]) == 0
    text = capsys.readouterr().out
    assert f"wrote {tmp_path / 'lenet.py'}" in text and "differs from caffe_lite by" in text


def test_a_state_dict_is_read(tmp_path: Path) -> None:
    half, whole = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3), torch.ones(2)
    for stored in ({"w": half, "b": whole}, {"state_dict": {"w": half, "b": whole}, "epoch": 3}):
        torch.save(stored, tmp_path / "net.pth")
        found = foreign_weights.read_arrays(tmp_path / "net.pth")
        np.testing.assert_array_equal(found["w"], np.arange(6, dtype=np.float32).reshape(2, 3))
        np.testing.assert_array_equal(found["b"], [1, 1])


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"w": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(caffe_lite.CaffeError, match="evil.pt: damaged"):
        foreign_weights.read_arrays(tmp_path / "evil.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(caffe_lite.CaffeError, match="holds no state dict"):
        foreign_weights.read_arrays(tmp_path / "list.pt")
    assert not (tmp_path / "touched").exists()
