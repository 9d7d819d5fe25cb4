"""A short check of an installed wheel, run outside the checkout: python wheel_check.py (no pytest needed)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import caffe_lite as caffe
from caffe_lite import models

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 8 dim: 3 dim: 9 dim: 9 } shape { dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def main() -> None:
    assert "site-packages" in caffe.__file__, f"not the installed package: {caffe.__file__}"
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" random_seed: 1 snapshot_prefix: "net"'
    )
    solver = caffe.get_solver("solver.prototxt")
    rng = np.random.default_rng(0)
    solver.net.blobs["data"].data[...] = rng.normal(size=(8, 3, 9, 9))
    solver.net.blobs["label"].data[...] = np.arange(8) % 2
    first = float(solver.net.forward()["loss"])
    solver.step(30)
    last = float(solver.net.forward()["loss"])
    assert last < first / 2, (first, last)
    model, _ = solver.snapshot()
    again = caffe.Net("net.prototxt", caffe.TEST, weights=model)
    np.testing.assert_array_equal(again.params["conv"][0].data, solver.net.params["conv"][0].data)
    for net in ("mini", "CaffeNet", "VGG_CNN_M_1024", "VGG16"):
        assert models.path(f"{net}/train.prototxt").is_file(), net
        assert models.path(f"{net}/piecewise/train.prototxt").is_file(), net
    assert models.path("cfgs/multiscale.yml").is_file()
    assert next(Path(caffe.__file__).parent.glob("layers/*.cu"), None), "the wheel has no CUDA sources"
    for script in ("caffe-lite", "fast-rcnn"):  # --help imports every command
        subprocess.run([Path(sys.executable).with_name(script), "--help"], check=True, stdout=subprocess.DEVNULL)
    lenet = "models/classification/LeNet/deploy.prototxt"
    summary = subprocess.run([Path(sys.executable).with_name("caffe-lite"), "summary", lenet], capture_output=True)
    assert b"431,080" in summary.stdout, summary.stderr
    Path("old_script.py").write_text("import caffe; from caffe import layers as L; print(caffe.TRAIN, L.ReLU)")
    subprocess.run([sys.executable, "-m", "caffe_lite", "old_script.py"], check=True, stdout=subprocess.DEVNULL)
    folders = {p.parent for p in Path(caffe.__file__).parent.rglob("*.py")}
    assert {"rcnn", "sppnet", "export", "commands"} <= {folder.name for folder in folders}
    print(f"wheel check: 1 passed, 0 failed (loss {first:.3f} -> {last:.3f})")


if __name__ == "__main__":
    main()
