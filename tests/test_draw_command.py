"""``caffe-lite draw``: nets as pictures, by the ending of the file's name."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import pytest

from caffe_lite import models, prototxt
from caffe_lite.cli import main

LENET = "models/classification/LeNet/train_val.prototxt"
SVG = "{http://www.w3.org/2000/svg}"


def texts(path: Path) -> str:
    return "\n".join("".join(element.itertext()) for element in ET.parse(path).iter(f"{SVG}text"))


def test_svg_shows_every_layer_and_blob(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.svg"
    assert main(["draw", "models/CaffeNet/train.prototxt", "-o", str(out)]) == 0
    assert f"wrote {out}: CaffeNet" in capsys.readouterr().out
    shown = texts(out)
    param, _ = prototxt.read_net(models.path("CaffeNet/train.prototxt"))
    for layer in param.layer:
        assert all(name in shown for name in (layer.name, layer.type, *layer.bottom, *layer.top))


def test_phase(tmp_path: Path) -> None:
    for phase, accuracy in (("TRAIN", False), ("TEST", True)):
        assert main(["draw", LENET, "-o", str(tmp_path / "net.svg"), "--phase", phase]) == 0
        assert ("accuracy" in texts(tmp_path / "net.svg")) == accuracy


def test_direction(tmp_path: Path) -> None:
    """LeNet is a chain: higher than wide from top to bottom, wider than high from left to right."""
    for rankdir, higher in (("TB", True), ("LR", False), ("BT", True)):
        out = tmp_path / f"{rankdir}.png"
        net = "models/classification/LeNet/deploy.prototxt"
        assert main(["draw_net", net, "-o", str(out), "--rankdir", rankdir]) == 0
        height, width = cv2.imread(str(out)).shape[:2]
        assert (height > width) == higher


def test_dot_and_what_cannot_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", LENET, "-o", str(tmp_path / "net.dot")]) == 0
    assert (tmp_path / "net.dot").read_text().startswith("digraph")
    assert main(["draw", LENET, "-o", str(tmp_path / "net.bmp")]) == 1
    assert "bmp" in capsys.readouterr().err
    assert main(["draw", "absent.prototxt", "-o", str(tmp_path / "net.svg")]) == 1
    assert "absent.prototxt" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["net.dot"]
