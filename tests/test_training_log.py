"""The log as JSON lines, and as Caffe's lines, which parsers of Caffe's logs read."""

from __future__ import annotations

import datetime
import io
import json
import logging
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from caffe_lite import glog, training_log
from caffe_lite.errors import CaffeError, SolverError
from caffe_lite.log_tables import parse_lines
from caffe_lite.training_log import TrainingLog
from tests.solver_maker import make_solver

FIELDS = 'snapshot_prefix: "s" max_iter: 4 display: 2 test_iter: 1 test_interval: 4 momentum: 0.9'
log = logging.getLogger("caffe_lite")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def events(path: str = "s_log.jsonl") -> list[tuple[str, int]]:
    return [(line["event"], line["iter"]) for line in training_log.read(path)]


# ---- JSON lines


def test_a_line_for_each_event() -> None:
    solver = make_solver(FIELDS)
    before = len(log.handlers), len(solver.listeners)
    with TrainingLog(solver):
        solver.solve()
    lines = [json.loads(line) for line in Path("s_log.jsonl").read_text().splitlines()]
    assert [(line["event"], line["iter"]) for line in lines] == [
        ("start", 0), ("test", 0), ("train", 0), ("train", 2), ("snapshot", 4), ("test", 4), ("end", 4)
    ]  # fmt: skip
    train, test = lines[2], lines[1]
    assert set(train) == {"event", "time", "iter", "loss", "smoothed_loss", "lr", "seconds", "outputs"}
    assert train["loss"] == train["smoothed_loss"] == pytest.approx(train["outputs"]["loss"], rel=1e-6)
    assert train["lr"] == pytest.approx(0.1) and train["seconds"] > 0
    assert set(test["outputs"]) == {"accuracy", "loss"} and test["loss"] is None and test["net"] == 0
    assert lines[4]["model"] == "s_iter_4.caffemodel" and lines[4]["state"] == "s_iter_4.solverstate"
    assert lines[0]["net"] == "mlp" and lines[-1]["outcome"] == "done"
    times = [line["time"] for line in lines]
    assert times == sorted(times) and abs(times[-1] - datetime.datetime.now().timestamp()) < 60
    assert (len(log.handlers), len(solver.listeners)) == before


def test_outputs_of_several_elements_are_lists_and_what_is_no_number_is_null() -> None:
    solver = make_solver(FIELDS)
    with TrainingLog(solver):
        solver.tell("test", net=0, loss=np.float32(1.5), outputs={"a": np.array([[1, np.nan]]), "b": np.array(np.inf)})
    line = training_log.read("s_log.jsonl")[1]
    assert line["outputs"] == {"a": [1, None], "b": None} and line["loss"] == 1.5


def test_a_run_that_goes_on_appends() -> None:
    first = make_solver(FIELDS)
    with TrainingLog(first):
        first.step(2)
        first.snapshot()
    second = make_solver(FIELDS)
    second.restore("s_iter_2.solverstate")
    with TrainingLog(second):
        second.solve()
    assert events() == [
        ("start", 0), ("test", 0), ("train", 0), ("snapshot", 2), ("end", 2),
        ("start", 2), ("train", 2), ("snapshot", 4), ("test", 4), ("end", 4),
    ]  # fmt: skip
    assert training_log.read("s_log.jsonl")[4]["outcome"] == "stopped"


@pytest.mark.parametrize("left", [b'{"event": "tra', b"x" * 10000, b'{"a": 1}\n{"b": 2}\n' + b"y" * 5000])
def test_what_a_killed_process_left_of_a_line_is_cut_off(left: bytes) -> None:
    Path("s_log.jsonl").write_bytes(left)
    whole = left[: left.rfind(b"\n") + 1]
    solver = make_solver(FIELDS)
    with TrainingLog(solver):
        pass
    text = Path("s_log.jsonl").read_bytes()
    assert text.startswith(whole + b'{"event": "start"') and text.count(b"\n") == whole.count(b"\n") + 2
    assert len(training_log.read("s_log.jsonl")) == whole.count(b"\n") + 2


def test_reading_leaves_out_an_unfinished_line() -> None:
    Path("x.jsonl").write_text('{"event": "start", "iter": 0}\n{"event"')
    assert events("x.jsonl") == [("start", 0)]


@pytest.mark.parametrize("path", ["/dev/full", "no/such/folder/log.jsonl"], ids=["full-disk", "no-folder"])
def test_a_log_that_cannot_be_written_does_not_stop_training(path: str, caplog: pytest.LogCaptureFixture) -> None:
    if path == "/dev/full":
        assert os.path.exists(path), "this test needs Linux"
    solver = make_solver(FIELDS)
    with TrainingLog(solver, path):
        solver.solve()
    assert solver.iter == 4
    warnings = [m for m in caplog.messages if "goes on without this log" in m]
    assert len(warnings) == 1 and warnings[0].startswith(path)


def test_warnings_are_in_it_from_other_threads_too_and_errors_end_it() -> None:
    solver = make_solver(FIELDS)
    with pytest.raises(SolverError), TrainingLog(solver):
        thread = threading.Thread(target=log.warning, args=("slow %s", "disk"))
        thread.start()
        thread.join()
        solver.net.blobs["data"].data[...] = np.nan
        solver.step(1)
    lines = training_log.read("s_log.jsonl")
    assert [line["event"] for line in lines] == ["start", "warning", "test", "end"]
    assert (lines[1]["level"], lines[1]["message"]) == ("WARNING", "slow disk")
    assert "the loss is nan" in lines[-1]["outcome"]


def test_debug_info_is_no_warning() -> None:
    solver = make_solver(FIELDS + " debug_info: true")
    with TrainingLog(solver):
        solver.step(1)
    assert [event for event, _ in events()] == ["start", "test", "train", "end"]


# ---- Caffe's lines

PREFIX = re.compile(r"([IWEF])(\d{4}) (\d{2}:\d{2}:\d{2}\.\d{6}) +(\d+) (\S+?):(\d+)\] (.*)")


def lines_of_a_run(**options: object) -> list[str]:
    stream = io.StringIO()
    with glog.logging_to(stream, **options):
        solver = make_solver(
            FIELDS + ' snapshot: 2 average_loss: 5 lr_policy: "step" stepsize: 2 gamma: 0.1', lr_policy=""
        )
        solver.solve()
    return stream.getvalue().splitlines()


def test_every_line_has_glogs_prefix_and_the_place_in_caffe() -> None:
    lines = lines_of_a_run()
    begin = next(i for i, line in enumerate(lines) if "Solving" in line)
    fields = [PREFIX.fullmatch(line) for line in lines[begin:]]
    assert all(fields)
    now = datetime.datetime.now()
    assert fields[0][1] == "I" and fields[0][2] == now.strftime("%m%d") and int(fields[0][4]) == os.getpid()
    places = {re.sub(r"\d[\d.]*(e[-+]\d+)?", "0", field[7]): field[5] for field in fields}
    assert places["Iteration 0, lr = 0"] == "sgd_solver.cpp"
    assert places["Solving mlp"] == places["Iteration 0 (0 iter/s, 0s/0 iters), loss = 0"] == "solver.cpp"


def test_the_messages_are_caffes() -> None:
    messages = [m[7] for m in map(PREFIX.fullmatch, lines_of_a_run()) if m]
    number = r"[\d.]+(?:e[-+]\d+)?"
    patterns = [
        r"Initializing solver from parameters: ", r"Creating training net from net file: net\.prototxt",
        r"Creating test net \(#0\) specified by net file: net\.prototxt", r"Solver scaffolding done\.",
        r"Solving mlp", r"Learning Rate Policy: step",
        r"Iteration 0, Testing net \(#0\)", rf"    Test net output #0: accuracy = {number}",
        rf"    Test net output #1: loss = {number} \(\* 1 = {number} loss\)",
        rf"Iteration 0 \(0 iter/s, {number}s/2 iters\), loss = {number}",
        rf"    Train net output #0: loss = {number} \(\* 1 = {number} loss\)", r"Iteration 0, lr = 0\.1",
        r"Snapshotting to binary proto file s_iter_2\.caffemodel",
        r"Snapshotting solver state to binary proto file s_iter_2\.solverstate",
        rf"Iteration 2 \({number} iter/s, {number}s/2 iters\), loss = {number}",
        rf"    Train net output #0: loss = {number} \(\* 1 = {number} loss\)", r"Iteration 2, lr = 0\.01",
        r"Snapshotting to binary proto file s_iter_4\.caffemodel",
        r"Snapshotting solver state to binary proto file s_iter_4\.solverstate",
        rf"Iteration 4, loss = {number}",
        r"Iteration 4, Testing net \(#0\)", rf"    Test net output #0: accuracy = {number}",
        rf"    Test net output #1: loss = {number} \(\* 1 = {number} loss\)",
        r"Optimization Done\.",
    ]  # fmt: skip
    assert len(messages) == len(patterns)
    for message, pattern in zip(messages, patterns, strict=True):
        assert re.fullmatch(pattern, message), f"{message!r} is not {pattern!r}"


def test_log_parsers_find_everything() -> None:
    lines = lines_of_a_run()
    train, test = parse_lines(lines, 2026, "log")
    rates = [(row["NumIters"], row["LearningRate"]) for row in train]
    assert rates == [(0, 0.1), (2, 0.1)], "Caffe prints the rate after the outputs: its parser takes the one before"
    assert [row["NumIters"] for row in test] == [0, 4]
    assert all(row["Seconds"] >= 0 and row["loss"] > 0 for row in train + test)
    # The shell version counts fields: awk prints $11 of a test output and $9 of a rate.
    assert float(next(m for m in lines if "Test net output #1" in m).split()[10]) == pytest.approx(test[0]["loss"])
    assert float(next(m for m in lines if "lr = " in m).split()[8]) == 0.1


def test_levels_are_glogs(monkeypatch: pytest.MonkeyPatch) -> None:
    def printed(**options: object) -> str:
        stream = io.StringIO()
        with glog.logging_to(stream, **options):
            log.info("i")
            log.warning("w")
            log.error("e")
            log.critical("f")
        return "".join(line[0] for line in stream.getvalue().splitlines())

    assert [printed(level=n) for n in range(4)] == ["IWEF", "WEF", "EF", "F"]
    monkeypatch.setenv("GLOG_minloglevel", "2")
    assert printed() == "EF"
    monkeypatch.setenv("GLOG_minloglevel", "loud")
    with pytest.raises(CaffeError, match="GLOG_minloglevel must be 0 .* got 'loud'"):
        printed()


def test_nothing_is_printed_afterwards_and_the_level_is_as_before() -> None:
    stream, level = io.StringIO(), log.level
    with glog.logging_to(stream):
        log.info("inside")
    log.info("outside")
    assert stream.getvalue().endswith("] inside\n") and log.level == level


def test_a_file_in_a_folder_has_every_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    with glog.logging_to(stream, level=1, folder=str(tmp_path)):
        log.info("quiet")
        log.warning("loud")
    (path,) = tmp_path.glob("caffe.*.log.INFO.*")
    assert re.search(rf"\.log\.INFO\.\d{{8}}-\d{{6}}\.{os.getpid()}$", path.name)
    assert path.read_text().count("\n") == 2 and stream.getvalue().count("\n") == 1
