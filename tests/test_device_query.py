"""device_query: what CUDA says, or why there is nothing to say."""

from __future__ import annotations

import sys
import types

import pytest

from caffe_lite.cli import main

PROPERTIES = {
    "name": b"Test GPU", "major": 9, "minor": 0, "totalGlobalMem": 1 << 33, "warpSize": 32,
    "maxThreadsDim": (1024, 1024, 64), "asyncEngineCount": 3, "kernelExecTimeoutEnabled": 0,
}  # fmt: skip


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for CuPy on a machine with two GPUs."""
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 2,
        getDeviceProperties=lambda index: {**PROPERTIES, "name": b"Test GPU %d" % index},
        CUDARuntimeError=OSError,
    )
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=runtime)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def test_all_devices(two_gpus: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device_query"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "id" in line] == [
        "Device id:                     0",
        "Device id:                     1",
    ]
    assert "Name:                          Test GPU 1" in lines
    assert "Maximum dimension of block:    1024, 1024, 64" in lines
    assert "Concurrent copy and execution: Yes" in lines and "Kernel execution timeout:      No" in lines


@pytest.mark.parametrize(
    ("flag", "message"), [("2", "GPU 2 does not exist: this machine has 2"), ("x", "expected device")]
)
def test_a_device_that_is_not_there(
    two_gpus: None, capsys: pytest.CaptureFixture[str], flag: str, message: str
) -> None:
    assert main(["device_query", "-gpu", flag]) == 1
    assert message in capsys.readouterr().err


def test_without_cupy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["device_query"]) == 1
    assert "caffe-lite[cuda12]" in capsys.readouterr().err
