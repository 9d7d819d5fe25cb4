"""``caffe-lite test``: means over batches, in Caffe's lines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import caffe_lite
from caffe_lite.cli import main
from tests.data.data_files import database, datum, pixels


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    db = database(tmp_path / "db", [datum(pixels(i), i % 3) for i in range(6)])
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(
        f'layer {{ name: "data" type: "Data" top: "data" top: "label" data_param {{ source: "{db}" backend: LMDB batch_size: 2 }} '
        "transform_param { scale: 0.01 } include { phase: TEST } }\n"
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3\n'
        '        weight_filler { type: "xavier" } } }\n'
        'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2 }\n'
    )
    weights = tmp_path / "net.caffemodel"
    caffe_lite.set_random_seed(1)
    caffe_lite.Net(prototxt, caffe_lite.TEST).save(weights)
    return [str(prototxt), str(weights)]


def test_means_of_three_batches(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "-model", files[0], f"--weights={files[1]}", "-iterations", "3"]) == 0
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    net = caffe_lite.Net(files[0], caffe_lite.TEST, weights=files[1])
    batches = [{name: float(value) for name, value in net.forward().items()} for _ in range(3)]
    accuracy, loss = (np.mean([batch[name] for batch in batches]) for name in ("accuracy", "loss"))
    assert lines[lines.index("Running for 3 iterations.") + 1 :] == [
        *(f"Batch {i}, {name} = {batch[name]:.6g}" for i, batch in enumerate(batches) for name in ("accuracy", "loss")),
        f"Loss: {2 * loss:.6g}",
        f"accuracy = {accuracy:.6g}",
        f"loss = {loss:.6g} (* 2 = {2 * loss:.6g} loss)",
    ]


def test_lines_are_glogs(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--model", files[0], "--weights", files[1], "--iterations", "1", "--quiet"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert all(re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+:\d+\] ", line) for line in lines)
    assert not any("Batch" in line for line in lines)


@pytest.mark.parametrize("broken", [0, 1])
def test_a_missing_file_is_named(files: list[str], capsys: pytest.CaptureFixture[str], broken: int) -> None:
    files[broken] += ".absent"
    assert main(["test", "--model", files[0], "--weights", files[1]]) == 1
    assert f"caffe-lite: error: {files[broken]}" in capsys.readouterr().err
