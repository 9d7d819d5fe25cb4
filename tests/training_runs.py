"""Small trainings that a test starts in processes of their own: run through, or resumed.

python -m tests.training_runs straight FOLDER CASE...    each up to its end, snapshotting on the way
python -m tests.training_runs resume FOLDER CASE...      each from its snapshot at iteration STOP to its end
python -m tests.training_runs forever FOLDER CASE        on and on from the latest snapshot, one an iteration

A case is a folder with solver.prototxt. What is printed, as JSON for each case: a hash of all
parameters and of the history, and the lines logged after the snapshot at STOP.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

import caffe_lite
from caffe_lite import snapshot
from tests.data.data_files import database, datum, encode, pixels

STOP, END = 3, 8  # iterations

SOLVER = (
    f'net: "net.prototxt" base_lr: 0.05 lr_policy: "fixed" max_iter: {END} snapshot: {STOP} snapshot_prefix: "s" '
    "display: 1 average_loss: 4 random_seed: 5 weight_decay: 0.01 "
)
HEAD = """
layer { name: "drop" type: "Dropout" bottom: "x" top: "x" }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
DUMMY = """
layer { name: "source" type: "DummyData" top: "x" top: "y"
        dummy_data_param { shape { dim: 4 dim: 5 } shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
"""
TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
MOMENTUM = {"SGD": 0.9, "Nesterov": 0.9, "AdaDelta": 0.9, "Adam": 0.9}
IMAGES = "transform_param { mirror: true crop_size: 4 scale: 0.01 }"


def source(name: str, kind: str, text: str, labels: bool = True) -> str:
    """A data layer, and a loss on each of its items."""
    tops = f'top: "{name}" top: "{name}_label"' if labels else f'top: "{name}"'
    return f"""
layer {{ name: "{name}_source" type: "{kind}" {tops} {text} }}
layer {{ name: "{name}_ip" type: "InnerProduct" bottom: "{name}" top: "{name}_ip"
        inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "{name}_loss" type: "SoftmaxWithLoss" bottom: "{name}_ip" bottom: "{name}_label" top: "{name}_loss" }}
"""


DATA_LAYERS = (
    source("lmdb", "Data", f'data_param {{ source: "lmdb" backend: LMDB batch_size: 2 prefetch: 3 }} {IMAGES}')
    + source("image", "ImageData", f'image_data_param {{ source: "list" batch_size: 3 shuffle: true }} {IMAGES}')
    + source("rows", "HDF5Data", 'hdf5_data_param { source: "rows" batch_size: 3 shuffle: true }')
    + source("window", "WindowData", f'window_data_param {{ source: "windows" batch_size: 2 }} {IMAGES}')
)
RECURRENT = """
layer { name: "source" type: "HDF5Data" top: "x" top: "cont" top: "y"
        hdf5_data_param { source: "sequences" batch_size: 3 } }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
        recurrent_param { num_output: 3 weight_filler { type: "uniform" min: -1 max: 1 } } }
layer { name: "rnn" type: "RNN" bottom: "h" bottom: "cont" top: "o"
        recurrent_param { num_output: 2 weight_filler { type: "uniform" min: -1 max: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "o" bottom: "y" top: "loss" }
"""
PYTHON = """
layer { name: "source" type: "Python" top: "x" top: "y" python_param { module: "own_layer" layer: "Walk" } }
"""
OWN_LAYER = """
import random
import numpy as np
from caffe_lite import Layer

class Walk(Layer):
    def setup(self, bottom, top):
        self.at = np.zeros(5)
    def reshape(self, bottom, top):
        top[0].reshape(4, 5)
        top[1].reshape(4, 3)
    def forward(self, bottom, top):
        self.at += np.random.normal(size=5) + random.gauss(0, 1)
        top[0].data[...] = self.at
        top[1].data[...] = random.random()
    def backward(self, top, propagate_down, bottom):
        pass
    def state(self):
        return {"at": self.at.copy(), "more": [1, None, {"x": 2.5}]}
    def set_state(self, state):
        assert state["more"] == [1, None, {"x": 2.5}]
        self.at = np.array(state["at"])
"""
POOLING = """
layer { name: "source" type: "DummyData" top: "image" top: "y"
        dummy_data_param { shape { dim: 4 dim: 2 dim: 6 dim: 6 } shape { dim: 4 dim: 3 }
                           data_filler { type: "uniform" } } }
layer { name: "x" type: "Pooling" bottom: "image" top: "x" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 } }
"""
TESTED = """
layer { name: "held_out" type: "HDF5Data" top: "x" top: "y" include { phase: TEST }
        hdf5_data_param { source: "held_out" batch_size: 2 shuffle: true } }
layer { name: "source" type: "DummyData" top: "x" top: "y" include { phase: TRAIN }
        dummy_data_param { shape { dim: 4 dim: 5 } shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
"""

CASES: dict[str, tuple[str, str]] = {  # net, solver
    **{name: (DUMMY + HEAD, f'type: "{name}" momentum: {MOMENTUM.get(name, 0)}') for name in TYPES},
    "plain": (DUMMY + HEAD[HEAD.index('layer { name: "ip"') :], 'type: "Adam" momentum: 0.9'),
    "iter_size": (DUMMY + HEAD, "iter_size: 2 momentum: 0.9 snapshot_format: HDF5"),
    "multistep": (DUMMY + HEAD, 'lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 5 snapshot_diff: true'),
    "data_layers": (DATA_LAYERS, "momentum: 0.5"),
    "recurrent": (RECURRENT, "momentum: 0.5"),
    "python": (PYTHON + HEAD, "momentum: 0.5"),
    "pooling": (POOLING + HEAD, "momentum: 0.5"),
    "tested": (TESTED + HEAD, "test_iter: 2 test_interval: 2"),
}


def write_case(folder: Path, name: str) -> Path:
    """A folder with all that the case ``name`` needs."""
    case = folder / name
    case.mkdir()
    net, options = CASES[name]
    (case / "net.prototxt").write_text(f'name: "{name}"{net}')
    (case / "solver.prototxt").write_text(SOLVER)
    set_fields(case / "solver.prototxt", options)
    if name == "data_layers":
        _write_images(case)
    _write_rows(case)
    (case / "own_layer.py").write_text(OWN_LAYER)
    return case


def set_fields(solver: Path, text: str) -> None:
    """Put the fields of ``text`` into a solver.prototxt, in place of those of the same names."""
    found: dict[str, list[str]] = {}
    for part in (solver.read_text(), text):
        new: dict[str, list[str]] = {}
        for field, value in re.findall(r'(\w+): ("[^"]*"|\S+)', part):
            new.setdefault(field, []).append(f"{field}: {value}")
        found.update(new)
    solver.write_text("\n".join(line for lines in found.values() for line in lines))


def _write_images(case: Path) -> None:
    database(case / "lmdb", [datum(pixels(i), label=i % 2) for i in range(7)])
    windows = ""
    for i in range(5):
        image = f"{case}/{i}.png"
        Path(image).write_bytes(encode(pixels(i)))
        windows += f"# {i}\n{image}\n3\n6\n8\n2\n1 0.9 0 0 5 4\n0 0.1 1 1 7 5\n"
    (case / "windows").write_text(windows)
    (case / "list").write_text("".join(f"{case}/{i}.png {i % 2}\n" for i in range(5)))
    assert cv2.imread(f"{case}/0.png") is not None


def _write_rows(case: Path) -> None:
    rng = np.random.default_rng(1)
    contents: dict[str, dict[str, Any]] = {
        "rows": {"rows": rng.normal(size=(7, 4)), "rows_label": rng.integers(0, 2, 7)},
        "sequences": {"x": rng.normal(size=(15, 2, 4)), "cont": np.ones((15, 2)), "y": rng.normal(size=(15, 2, 2))},
        "held_out": {"x": rng.normal(size=(7, 5)), "y": rng.normal(size=(7, 3))},
    }
    for name, datasets in contents.items():
        with h5py.File(case / f"{name}.h5", "w") as file:
            for dataset, values in datasets.items():
                file[dataset] = np.asarray(values)
        (case / name).write_text(f"{case}/{name}.h5\n")


# ---- in the process


class Lines(logging.Handler):
    """What a solver displays, without times; emptied when the snapshot at STOP is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = re.sub(r" \(.*iters\)", "", record.getMessage())
        if line.startswith(("Iteration", "    T", "MultiStep")):
            self.lines.append(line)


def run(mode: str, case: Path) -> dict[str, Any]:
    os.chdir(case)
    sys.path.insert(0, str(case))
    logger, lines = logging.getLogger("caffe_lite"), Lines()
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    solver = caffe_lite.get_solver("solver.prototxt")
    if mode == "forever":
        _forever(solver)
    if mode == "resume":
        (state,) = (f for f in os.listdir() if re.fullmatch(rf"s_iter_{STOP}\.solverstate(\.h5)?", f))
        solver.restore(state)
        lines.lines.clear()
    else:
        write = solver.write_snapshot

        def write_and_clear(solver: Any) -> tuple[str, str]:
            written = write(solver)
            if solver.iter == STOP:
                lines.lines.clear()
            return written

        solver.write_snapshot = write_and_clear
    solver.solve()
    logger.removeHandler(lines)
    return {"hash": digest(solver), "lines": lines.lines}


def digest(solver: Any) -> str:
    """Of all parameters and the history, to the bit."""
    sha = hashlib.sha256()
    for array in [b.data for b in solver.net.learnable_params] + list(solver.history):
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _forever(solver: Any) -> None:
    solver.keep_snapshots = 3
    state = snapshot.latest("s")
    if state:
        solver.restore(state)
    print(solver.iter, digest(solver), flush=True)
    solver.step(1)  # which takes half a second: kernels are loaded
    print("under way", flush=True)
    while True:
        solver.snapshot()
        solver.step(1)


if __name__ == "__main__":
    print(json.dumps({name: run(sys.argv[1], Path(sys.argv[2]) / name) for name in sys.argv[3:]}))
