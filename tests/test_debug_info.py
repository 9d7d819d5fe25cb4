"""debug_info: Caffe's lines, with mean absolute values as they are defined."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from caffe_lite.device import Device
from tests.small_net import MLP
from tests.solver_maker import gradients, make_solver

NAMED = MLP.replace('name: "ip2" type', 'name: "ip2" param { name: "shared" } param { lr_mult: 0 } type')


@pytest.fixture
def messages(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> list[str]:
    """The lines of the first iteration of a solver with debug_info that displays every second one."""
    monkeypatch.chdir(tmp_path)
    solver = make_solver("debug_info: true display: 2 weight_decay: 0.01", layers=NAMED)
    with caplog.at_level(logging.INFO, "caffe_lite"):
        solver.step(2)
    return [m for m in caplog.messages if m.startswith("    [")]


def mean(array: np.ndarray) -> str:
    return f"{np.abs(np.asarray(array, np.float64)).mean():.6g}"


def test_the_lines_and_their_order(messages: list[str]) -> None:
    number = r"[-+.\de]+"
    forward = [
        ("data", "top blob data"), ("data", "top blob label"), ("ip1", "top blob ip1"), ("ip1", "param blob 0"),
        ("ip1", "param blob 1"), ("relu1", "top blob ip1"), ("ip2", "top blob ip2"), ("ip2", "param blob shared"),
        ("ip2", "param blob 1"), ("loss", "top blob loss"),
    ]  # fmt: skip
    backward = [
        ("loss", "bottom blob ip2"), ("ip2", "bottom blob ip1"), ("ip2", "param blob 0"), ("relu1", "bottom blob ip1"),
        ("ip1", "param blob 0"), ("ip1", "param blob 1"),
    ]  # fmt: skip
    update = [("ip1", "0"), ("ip1", "1"), ("ip2", "shared"), ("ip2", "1")]
    wanted = [rf"    \[Forward\] Layer {layer}, {what} data: {number}" for layer, what in forward]
    wanted += [rf"    \[Backward\] Layer {layer}, {what} diff: {number}" for layer, what in backward]
    pair = rf"\({number}, {number}\)"
    wanted.append(rf"    \[Backward\] All net params \(data, diff\): L1 norm = {pair}; L2 norm = {pair}")
    wanted += [rf"    \[Update\] Layer {layer}, param {name} data: {number}; diff: {number}" for layer, name in update]
    assert len(messages) == len(wanted), "of the displayed iteration only"
    for line, pattern in zip(messages, wanted, strict=True):
        assert re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"


def test_the_values(messages: list[str]) -> None:
    solver = make_solver("debug_info: true display: 2 weight_decay: 0.01", layers=NAMED)
    net = solver.net
    g = gradients(solver)
    w = [np.array(b.data) for blobs in net.params.values() for b in blobs]
    hidden = net.blobs["data"].data.reshape(4, 6) @ w[0].T + w[1]
    assert f"    [Forward] Layer ip1, top blob ip1 data: {mean(hidden)[:5]}" in "\n".join(messages), "before the ReLU"
    assert f"    [Forward] Layer relu1, top blob ip1 data: {mean(np.maximum(hidden, 0))[:5]}" in "\n".join(messages)
    shown = {m.split(" diff: ")[0]: float(m.split(" diff: ")[1]) for m in messages if "[Backward] Layer" in m}
    assert shown["    [Backward] Layer ip2, param blob 0"] == pytest.approx(np.abs(g[2]).mean(), rel=1e-5)
    norms = [float(x) for x in re.findall(r"[-+.\de]+(?=[,)])", next(m for m in messages if "All net" in m))]
    flat_w, flat_g = (np.concatenate([x.ravel() for x in arrays]) for arrays in (w, g))
    expected = [np.abs(flat_w).sum(), np.abs(flat_g).sum(), np.linalg.norm(flat_w), np.linalg.norm(flat_g)]
    assert norms[-4:] == pytest.approx(expected, rel=1e-5)
    data, diff = re.findall(r": ([-+.\de]+)", next(m for m in messages if "[Update] Layer ip1, param 0" in m))
    assert float(data) == pytest.approx(np.abs(w[0]).mean(), rel=1e-5), "before the update"
    assert float(diff) == pytest.approx(np.abs(0.1 * (g[0] + 0.01 * w[0])).mean(), rel=1e-5), "what is subtracted"


def test_the_summary_has_the_severity_that_caffe_gives_it(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    make_solver("debug_info: true display: 1").step(1)
    assert [r.getMessage()[:40] for r in caplog.records if r.levelno == logging.ERROR] == [
        "    [Backward] All net params (data, dif"
    ]


def test_a_net_says_so_itself_and_debugging_changes_no_bit(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    plain, debugged = make_solver("momentum: 0.9"), make_solver("momentum: 0.9 debug_info: true display: 1")
    plain.step(3)
    debugged.step(3)
    for a, b in zip(plain.net.params.values(), debugged.net.params.values(), strict=True):
        np.testing.assert_array_equal(a[0].data, b[0].data)
    assert not plain.net.debug_info
    with caplog.at_level(logging.INFO, "caffe_lite"):
        solver = make_solver(layers="debug_info: true\n" + MLP)
        solver.net.forward()
    assert "    [Forward] Layer relu1, top blob ip1 data: " in caplog.text
