"""benchmarks/gpu.py where there is no GPU: its tables, what it measures on a toy net, and what it says without one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cases, engines, floor, gpu, gpu_timing
from benchmarks.gpu_table import Machine, Row, error_table, table
from caffe_lite import device as devices
from caffe_lite.device import Device

MACHINE = Machine("Made-up GPU", copy=1000.0, rates={"float32": 50_000.0, "tf32": 400_000.0})


def test_the_table_of_made_up_numbers() -> None:
    rows = [
        Row("net", {"float32": 0.010, "tf32": 0.004, "PyTorch": 0.012, "PyTorch TF32": 0.003}, 2.5e11, 2e9),
        Row("relu", {"float32": 0.002}, 0.0, 1e9),
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(rows, MACHINE).splitlines()]
    assert {len(line) for line in lines} == {10}
    # 2 GB in 10 ms are 200 of 1000 GB/s; 250 GFLOP in 10 ms are 25 of 50 TFLOP/s
    assert lines[2] == ["net", "10.000", "12.000", "1.20", "4.000", "3.000", "0.75", "-", "20 %", "50 %"]
    assert lines[3] == ["relu", "2.000", "-", "-", "-", "-", "-", "-", "50 %", "-"]


def test_the_machine_and_the_errors_are_printed() -> None:
    assert str(MACHINE) == "Made-up GPU: copy 1000 GB/s; matrix products, TFLOP/s: float32 50.0, tf32 400.0"
    lines = error_table({"S": {"float32": 1.2e-6, "bf16": 3e-2}, "M": {"float32": 2e-6}}).splitlines()
    assert lines[2:] == ["| S | 1.2e-06 | 3.0e-02 |", "| M | 2.0e-06 | - |"]


def test_without_a_gpu_one_line_says_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    before = devices.current()
    assert gpu.main([]) == 1
    assert devices.current() is before
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and err.startswith("gpu.py: GPU mode needs CuPy")


def test_the_cases_are_there() -> None:
    names = {case.name: case for case in cases.CASES}
    assert [names[name].train for name in cases.GPU_CASES] == [False] * 3 + [True] * 3


@pytest.fixture(params=[False, True], ids=["test", "train"])
def toy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, bool]:
    """The folder of a small case, and whether it trains."""
    for name, value in (("IMAGE", (48, 64)), ("TEST_ROIS", 6), ("TRAIN_ROIS", 6), ("CLASSES", 7)):
        monkeypatch.setattr(cases, name, value)
    monkeypatch.setattr(gpu_timing, "SMALL_IMAGE", (32, 48))
    train = request.param
    cases.write(cases.Case("toy", f"mini/{'train' if train else 'test'}.prototxt", train), tmp_path)
    return tmp_path, train


def test_every_layer_is_timed(toy: tuple[Path, bool]) -> None:
    folder, train = toy
    net = gpu_timing.build(folder, train, devices.CPU, engines.load_inputs(folder))
    found = gpu_timing.layer_seconds(net, train, repeat=1)
    assert list(found) == [layer.name for layer in net.layers]
    assert all(forward > 0 and (backward > 0) == train for forward, backward in found.values())
    assert any(floor.products(node) for node in net.nodes)


def test_the_device_is_held_against_the_cpu(toy: tuple[Path, bool], emulated: Device) -> None:
    folder, train = toy
    found = gpu_timing.differences(folder, train, emulated, ("float32", "tf32"))
    assert list(found) == ["float32", "tf32"] and 0 <= found["float32"] < gpu.TOLERANCE and found["tf32"] < 0.1


def test_a_wrong_device_is_seen(toy: tuple[Path, bool], emulated: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    from caffe_lite.layers.inner_product import InnerProduct

    right = InnerProduct.forward_gpu

    def wrong(self, bottom, top):
        right(self, bottom, top)
        top[0].data[...] *= 1.1

    monkeypatch.setattr(InnerProduct, "forward_gpu", wrong)
    folder, train = toy
    assert gpu_timing.differences(folder, train, emulated, ["float32"])["float32"] > 10 * gpu.TOLERANCE


@pytest.mark.parametrize(("tolerance", "status"), [(gpu.TOLERANCE, 0), (-1.0, 1)])
def test_a_whole_run_on_a_toy_net(
    emulated: Device,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tolerance: float,
    status: int,
) -> None:
    """All but the GPU's own calls; the status says whether the net was what it is on the CPU."""
    for name, value in (("IMAGE", (48, 64)), ("TEST_ROIS", 6)):
        monkeypatch.setattr(cases, name, value)
    monkeypatch.setattr(gpu_timing, "SMALL_IMAGE", (32, 48))
    monkeypatch.setattr(gpu_timing, "machine", lambda device, repeat: MACHINE)
    monkeypatch.setattr(gpu_timing, "versions", lambda device: "CuPy none")
    monkeypatch.setattr(gpu_timing, "computes", lambda device: ("float32",))
    monkeypatch.setattr(gpu, "free", lambda device: None)
    monkeypatch.setattr(gpu, "torch_engines", lambda: ())
    monkeypatch.setattr(gpu, "TOLERANCE", tolerance)
    options = argparse.Namespace(repeat=1, layers=True)
    assert gpu.report([cases.Case("toy", "mini/test.prototxt")], emulated, options) == status
    assert emulated.compute == "float32"
    out, err = capsys.readouterr()
    for line in ("### toy", "### Whole nets", "| conv1 forward | ", "| roi_pool forward | ", "| toy | "):
        assert f"\n{line}" in out
    assert "backward |" not in out and err == ("gpu.py: not what it is on the CPU: toy\n" if status else "")


def test_a_case_that_fails_does_not_stop_the_others(
    emulated: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_case(case: cases.Case, device: Device, args: argparse.Namespace) -> tuple[Row, list[Row], dict[str, float]]:
        if case.name == "bad":
            raise MemoryError("no room")
        return Row(case.name, {"float32": 0.5}, 1e9, 1e9), [], {"float32": 1e-6}

    monkeypatch.setattr(gpu_timing, "machine", lambda device, repeat: MACHINE)
    monkeypatch.setattr(gpu_timing, "versions", lambda device: "CuPy none")
    monkeypatch.setattr(gpu, "run_case", run_case)
    chosen = [cases.Case(name, "") for name in ("one", "bad", "two")]
    assert gpu.report(chosen, emulated, argparse.Namespace(repeat=1, layers=False)) == 1
    out, err = capsys.readouterr()
    assert out.index("### one") < out.index("### two") < out.index("### Whole nets") and "bad" not in out
    assert "no room" in err and err.endswith("gpu.py: failed, see above: bad (MemoryError)\n")


def test_the_peers_failure_leaves_our_times(
    emulated: Device, toy: tuple[Path, bool], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu_timing, "computes", lambda device: ("float32",))
    monkeypatch.setattr(gpu, "free", lambda device: None)
    monkeypatch.setattr(gpu, "torch_engines", lambda: ("PyTorch",))
    monkeypatch.setattr(engines, "pytorch", refuse)
    folder, train = toy
    assert list(gpu.whole(folder, cases.Case("toy", "", train), emulated, 1)) == ["float32"]
    assert capsys.readouterr().err == "gpu.py: toy: PyTorch fails: RuntimeError: out of memory\n"


def test_the_rates_of_a_machine(emulated: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the calls that CuPy has; the rates are the host's."""
    monkeypatch.setattr(devices, "gpu_properties", lambda index: {"name": b"Made-up GPU", "major": 7})
    found = gpu_timing.machine(emulated, 1, megabytes=1, size=32)
    assert found.name == "Made-up GPU" and found.copy > 0 and list(found.rates) == ["float32"]
    assert emulated.compute == "float32"


def test_a_case_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--case", "XL"]) == 1
    assert "no case is named like that; there are: S test, 2000 RoIs; " in capsys.readouterr().err


def test_the_small_check_keeps_rois_in_the_picture() -> None:
    names = ["data", "rois", "labels"]
    arrays = cases.inputs(cases.Case("toy", "CaffeNet/train.prototxt", train=True), names)
    small = gpu_timing.small_inputs(arrays)
    height, width = small["data"].shape[2:]
    assert small["rois"].shape == (gpu_timing.SMALL_ROIS, 5) and small["labels"].shape == (gpu_timing.SMALL_ROIS,)
    np.testing.assert_array_equal(small["rois"][:, 0], arrays["rois"][: gpu_timing.SMALL_ROIS, 0])
    assert (small["rois"][:, [1, 3]] < width).all() and (small["rois"][:, [2, 4]] < height).all()
