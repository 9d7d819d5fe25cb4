"""``caffe-lite train``: its flags, signals from outside, the terminal, its exit status."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import caffe_lite
from caffe_lite import device as devices
from caffe_lite import training_log
from caffe_lite.cli import main

ROOT = Path(__file__).resolve().parent.parent
NET = """
name: "mlp"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
        shape { dim: 4 dim: 6 } shape { dim: 4 }
        data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "slow" type: "Python" bottom: "data" top: "slow" python_param { module: "MODULE" layer: "Slow" } }
layer { name: "ip1" type: "InnerProduct" bottom: "slow" top: "ip1"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "extra" type: "Silence" bottom: "ip1" include { stage: "more" min_level: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }
"""
SLOW = """
import time
import caffe_lite

class Slow(caffe_lite.Layer):
    forwards = 0

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        Slow.forwards += 1
        if Slow.forwards > SLEEP_AFTER:
            time.sleep(60)
        top[0].data[...] = bottom[0].data

    def backward(self, top, propagate_down, bottom):
        pass
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 random_seed: 3
display: 2 snapshot_prefix: "s" """


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = devices.current()
    write(module=f"slow_of_{abs(hash(request.node.name))}")
    yield
    devices.use(before)


def write(extra: str = "max_iter: 4", module: str = "", sleep_after: int = 10**9) -> None:
    if module:
        Path("net.prototxt").write_text(NET.replace("MODULE", module))
    name = re.search(r'module: "(\w+)"', Path("net.prototxt").read_text())[1]
    Path(f"{name}.py").write_text(SLOW.replace("SLEEP_AFTER", str(sleep_after)))
    Path("solver.prototxt").write_text(SOLVER + extra)


def train(*arguments: str) -> int:
    return main(["train", "--solver", "solver.prototxt", *arguments])


def parameters(path: str) -> dict[str, np.ndarray]:
    net = caffe_lite.Net("net.prototxt", caffe_lite.TEST, weights=path)
    return {f"{name}:{i}": np.array(b.data) for name, blobs in net.params.items() for i, b in enumerate(blobs)}


def same(a: str, b: str) -> bool:
    x, y = parameters(a), parameters(b)
    return all(np.array_equal(x[name], y[name]) for name in x)


# ---- flags


def test_caffes_lines_the_snapshot_and_the_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-solver=solver.prototxt"]) == 0
    messages = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    for expected in ("Use CPU.", "Starting Optimization", "Solving mlp", "Learning Rate Policy: fixed"):
        assert expected in messages
    assert messages.count("Optimization Done.") == 2, "Caffe's solver and its tool say so"
    assert {p.name for p in Path().glob("s_iter_*")} >= {"s_iter_4.caffemodel", "s_iter_4.solverstate"}
    assert [line["event"] for line in training_log.read("s_log.jsonl")] == [
        "start",
        "train",
        "train",
        "snapshot",
        "end",
    ]


def test_snapshot_goes_on_to_the_same_bits() -> None:
    write("max_iter: 6 snapshot: 3")
    assert train() == 0
    os.rename("s_iter_6.caffemodel", "straight.caffemodel")
    assert train("--snapshot", "s_iter_3.solverstate") == 0
    assert same("straight.caffemodel", "s_iter_6.caffemodel")


def test_resume_takes_the_newest_whole_snapshot_or_begins(capsys: pytest.CaptureFixture[str]) -> None:
    write("max_iter: 2")
    assert train("--resume") == 0
    assert "there is no snapshot s_iter_N.solverstate: training begins anew" in capsys.readouterr().err
    write("max_iter: 4")
    assert train("--resume") == 0
    Path("s_iter_4.caffemodel").write_bytes(b"cut")
    write("max_iter: 6")
    capsys.readouterr()
    assert train("--resume", "--weights", "taken-only-where-training-begins") == 0
    err = capsys.readouterr().err
    assert "Resuming from s_iter_2.solverstate" in err and "s_iter_4.caffemodel" in err
    starts = [line["iter"] for line in training_log.read("s_log.jsonl") if line["event"] == "start"]
    assert starts == [0, 2, 2]


def test_weights_replace_those_of_the_solver() -> None:
    caffe_lite.Net("net.prototxt", caffe_lite.TRAIN).save("one.caffemodel")
    write('max_iter: 0 weights: "missing.caffemodel"')
    assert train() == 1
    assert train("-weights", "one.caffemodel") == 0
    assert same("one.caffemodel", "s_iter_0.caffemodel")


def test_level_and_stage_belong_to_the_train_net(capsys: pytest.CaptureFixture[str]) -> None:
    write("max_iter: 1 test_iter: 1 test_interval: 1 debug_info: true")
    both = "--level=2", "-stage", "other,more", "-phase", "TEST"  # --phase is accepted, and ignored, as by Caffe
    for flags, kept in (((), 0), (("--stage", "more"), 0), (both, 1)):
        assert train(*flags) == 0
        err = capsys.readouterr().err
        assert err.count("Layer ip1_ip1_0_split, top blob ip1_ip1_0_split_0 data") == kept


def test_keep_prunes(capsys: pytest.CaptureFixture[str]) -> None:
    write("max_iter: 5 snapshot: 1")
    assert train("--keep", "2") == 0
    assert {p.name for p in Path().glob("s_iter_*.solverstate")} == {"s_iter_4.solverstate", "s_iter_5.solverstate"}


def test_quiet_prints_warnings_only_and_log_dir_keeps_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--quiet", "--log_dir", ".") == 0
    assert capsys.readouterr().err == ""
    (path,) = Path().glob("caffe.*.log.INFO.*")
    assert "Iteration 2, lr = 0.1" in path.read_text()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_stops_with_an_error_or_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    net = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text(net.replace("std: 1", "std: 1e39"))
    assert train("--quiet") == 1
    err = capsys.readouterr().err
    assert err.startswith("caffe-lite: error: iteration 0: the loss is nan; first seen in layer 'data' (DummyData)")
    assert err.count("\n") == 1 and "end" in training_log.read("s_log.jsonl")[-1]["event"]
    assert train("--quiet", "--on-nan", "skip") == 0
    assert capsys.readouterr().err.count("; the update is skipped") == 4
    assert [line["event"] for line in training_log.read("s_log.jsonl")].count("warning") == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--snapshot", "a", "--weights", "b"], "--snapshot says where to go on: leave out --weights and --resume"),
        (["--snapshot", "no.solverstate"], "no.solverstate"),
        (["--weights", "no.caffemodel"], "no.caffemodel"),
        (["--gpu", "0,1"], "training on several GPUs is not supported, choose one"),
        (["--gpu", "first"], "--gpu takes the number of one GPU, or 'all', got 'first'"),
        (["--gpu", "0", "--cpu"], "give --gpu or --cpu, not both"),
        (["--log_dir", "nowhere"], "nowhere"),
        (["--solver", "nowhere.prototxt"], "nowhere.prototxt"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_exit_status_1(capsys, arguments: list[str], message: str) -> None:
    assert train("--quiet", *arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("caffe-lite: error: ") and message in err and err.count("\n") == 1


class NoGpu:
    """Stands in for a machine without a GPU; notes which one was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[int] = []
        monkeypatch.setattr(devices, "_open_gpu", self.open)
        monkeypatch.setattr(devices, "_gpu_index", 0)

    def open(self, index: int) -> devices.Device:
        self.asked.append(index)
        raise caffe_lite.errors.DeviceError("none here")


@pytest.mark.parametrize(
    ("fields", "flags", "asked"),
    [
        ("", [], []), ("solver_mode: CPU", [], []), ("solver_mode: GPU", [], [0]), ("device_id: 2", [], []),
        ("solver_mode: GPU device_id: 2", [], [2]), ("solver_mode: GPU device_id: 2", ["--gpu=1"], [1]),
        ("solver_mode: CPU", ["-gpu", "3"], [3]), ("solver_mode: GPU", ["--cpu"], []),
    ],
)  # fmt: skip
def test_the_device_is_chosen_as_by_caffe(monkeypatch, capsys, fields: str, flags: list[str], asked: list[int]) -> None:
    write(f"max_iter: 0 {fields}")
    machine = NoGpu(monkeypatch)
    assert train(*flags) == (1 if asked else 0)
    assert machine.asked == asked
    if asked and not flags:
        assert "solver.prototxt: solver_mode: GPU (or train with --cpu): none here" in capsys.readouterr().err


# ---- from outside


def start(*arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "caffe_lite.cli", "train", "--solver", "solver.prototxt", *arguments]
    # Unbuffered: communicate() would lose what readline() has read ahead.
    return subprocess.Popen(command, stderr=stderr, bufsize=0, env={**os.environ, "PYTHONPATH": str(ROOT)})


def read_until(process: subprocess.Popen[bytes], text: str) -> str:
    seen = ""
    while text not in seen:
        line = process.stderr.readline().decode()
        assert line, f"ended before {text!r}: {seen}"
        seen += line
    return seen


def wait_for(path: str) -> None:
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline, f"there is no {path}"
        time.sleep(0.01)


def test_an_interrupt_stops_with_a_snapshot_from_which_training_goes_on() -> None:
    write("max_iter: 1000000000")
    process = start()
    read_until(process, "Iteration 10 ")
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 0
    assert "stopping after this iteration" in rest and "Optimization stopped early." in rest
    assert all(re.match(r"[IWE]\d{4} ", line) for line in rest.splitlines()), "log parsers need a time on every line"
    (state,) = Path().glob("*.solverstate")
    done = int(re.search(r"_iter_(\d+)", state.name)[1])
    assert training_log.read("s_log.jsonl")[-1]["outcome"] == "stopped"
    write(f"max_iter: {done + 2}")
    assert train("--snapshot", state.name) == 0
    assert Path(f"s_iter_{done + 2}.caffemodel").exists()


def test_a_hang_up_snapshots_and_a_second_interrupt_ends_an_iteration_that_lasts() -> None:
    write("max_iter: 1000000000 snapshot: 100", sleep_after=300)
    process = start("--sighup_effect=snapshot")
    read_until(process, "Iteration 10 ")
    process.send_signal(signal.SIGHUP)
    wait_for("s_iter_300.solverstate")
    process.send_signal(signal.SIGINT)
    read_until(process, "interrupt once more to stop at once")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    states = {int(re.search(r"_iter_(\d+)", p.name)[1]) for p in Path().glob("*.solverstate")}
    assert {100, 200, 300} < states and len(states) == 4
    caffe_lite.get_solver("solver.prototxt").restore("s_iter_300.solverstate")
    assert json.loads(Path("s_log.jsonl").read_text().splitlines()[-1])["outcome"] == "KeyboardInterrupt"


def test_on_a_terminal_log_lines_do_not_run_into_the_progress_bar() -> None:
    write("max_iter: 200")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns, pixels
    process = start(stderr=theirs)
    os.close(theirs)
    output = b""
    while True:
        try:
            output += (piece := os.read(ours, 4096))
        except OSError:  # Linux: the other side is closed
            break
        if not piece:
            break
    os.close(ours)
    assert process.wait(timeout=60) == 0
    shown = [line.rsplit("\r", 1)[-1] for line in output.decode().replace("\r\n", "\n").split("\n")]
    entries = [line for line in shown if "Iteration" in line]
    assert len(entries) >= 200 and all(re.match(r"I\d{4} ", line) for line in entries)
    assert "mlp: 100%" in output.decode() and "loss=" in output.decode()
