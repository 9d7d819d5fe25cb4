"""Choosing a GPU: every reason why it cannot be had, or not that way, is an error that says what to do about it.

A stand-in for CuPy plays the machines.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import device as devices
from caffe_lite.cli import main
from caffe_lite.cuda import Kernels
from caffe_lite.errors import DeviceError

GIB = 1 << 30


class CUDARuntimeError(RuntimeError):
    """CuPy's: ``status`` is the cudaError_t."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cupy(types.ModuleType):
    """A machine with GPUs of these compute capabilities, or whose runtime fails with ``error``."""

    def __init__(self, *capabilities: tuple[int, int], error: CUDARuntimeError | None = None) -> None:
        super().__init__("cupy")
        self.used: list[int] = []
        self.free, self.pool_free, self.pool_used, self.pool_limit = 5 * GIB, GIB, 2 * GIB, 0

        def count() -> int:
            if error:
                raise error
            return len(capabilities)

        def properties(index: int) -> dict[str, int]:
            return dict(zip(("major", "minor"), capabilities[index], strict=True))

        runtime = types.SimpleNamespace(
            getDeviceCount=count, getDeviceProperties=properties, CUDARuntimeError=CUDARuntimeError,
            runtimeGetVersion=lambda: 13000, driverGetVersion=lambda: 12040,
        )  # fmt: skip
        self.broken: Exception | None = None  # what a first computation fails with
        self.cuda = types.SimpleNamespace(
            runtime=runtime, Device=lambda index: OneGpu(self, index),
            device=types.SimpleNamespace(get_cublas_handle=self._compute), compiler=None,
        )  # fmt: skip
        self.ones = np.ones

    def _compute(self) -> None:
        if self.broken:
            raise self.broken

    def get_default_memory_pool(self) -> Any:
        return types.SimpleNamespace(
            free_bytes=lambda: self.pool_free, used_bytes=lambda: self.pool_used, get_limit=lambda: self.pool_limit
        )


class OneGpu:
    """cupy.cuda.Device."""

    def __init__(self, cupy: Cupy, index: int) -> None:
        self.cupy, self.index = cupy, index
        self.mem_info = cupy.free, 80 * GIB

    def use(self) -> None:
        self.cupy.used.append(self.index)

    def __enter__(self) -> OneGpu:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test chooses is forgotten after it."""
    for name in ("_current", "_gpu_index", "_compute"):
        monkeypatch.setattr(devices, name, {"_current": devices.CPU, "_gpu_index": 0, "_compute": "float32"}[name])
    yield


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``install(cupy)`` lets ``import cupy`` find it."""

    def put(cupy: Cupy | None) -> Cupy | None:
        monkeypatch.setitem(sys.modules, "cupy", cupy)  # type: ignore[arg-type]
        return cupy

    return put


def test_the_chosen_gpu_is_used(install: Any) -> None:
    cupy = install(Cupy((9, 0), (9, 0)))
    caffe_lite.set_device(1)
    assert not devices.current().is_gpu
    caffe_lite.set_mode_gpu()
    assert cupy.used == [1] and repr(devices.current()) == "gpu:1"
    caffe_lite.set_device(0)  # at once
    assert cupy.used == [1, 0] and repr(devices.current()) == "gpu:0"


def test_cupy_is_missing(install: Any) -> None:
    install(None)
    with pytest.raises(DeviceError, match=r"not installed: pip install 'caffe-lite\[cuda12\]' or .*set_mode_cpu"):
        caffe_lite.set_mode_gpu()


def test_cupy_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its libraries, say, are not those of the CUDA on this machine."""
    (tmp_path / "cupy.py").write_text("raise ImportError('libnvrtc.so.12: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match=r"cannot be loaded \(libnvrtc.so.12: .*cuda12.*nvidia-smi"):
        caffe_lite.set_mode_gpu()


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        (Cupy(error=CUDARuntimeError(35, "insufficient")), r"built for CUDA 13.0.*knows CUDA 12.4 at most.*\[cuda12\]"),
        (Cupy(error=CUDARuntimeError(100, "no device")), "CUDA finds no device .*CUDA_VISIBLE_DEVICES"),
        (Cupy(error=CUDARuntimeError(999, "unknown error")), "no usable device .unknown error.; see what nvidia-smi"),
        (Cupy(), "finds no device; compute on the CPU .*set_mode_cpu"),
    ],
    ids=["driver too old", "no device", "unknown", "none counted"],
)
def test_cuda_has_no_device(install: Any, cupy: Cupy, message: str) -> None:
    install(cupy)
    with pytest.raises(DeviceError, match=message):
        caffe_lite.set_mode_gpu()
    assert devices.current() is devices.CPU


def test_without_a_driver_none_is_named(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = install(Cupy(error=CUDARuntimeError(35, "insufficient")))
    monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: 0)
    with pytest.raises(DeviceError, match="no NVIDIA driver is loaded .insufficient.; install one"):
        caffe_lite.set_mode_gpu()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ImportError('Failure finding "libcublasLt.so.13"\nNo such file'), r"finding .libcublasLt.so.13.\); .*cuda13"),
        (RuntimeError("CuPy failed to load libnvrtc.so.12"), "libnvrtc.so.12.; CuPy needs CUDA's cuBLAS, NVRTC"),
        (CUDARuntimeError(46, "cudaErrorDevicesUnavailable: busy"), "busy.*whether another process has the GPU"),
        (MemoryError("Out of memory allocating 512 bytes"), "GPU 0 is out of memory .Out of memory allocating 512"),
    ],
    ids=["no cuBLAS", "no NVRTC", "in use", "full"],
)
def test_a_gpu_that_cannot_compute_is_refused_at_once(install: Any, broken: Exception, message: str) -> None:
    """Not by the first layer of a net."""
    install(Cupy((9, 0))).broken = broken
    with pytest.raises(DeviceError, match=message) as caught:
        caffe_lite.set_mode_gpu()
    assert len(str(caught.value).splitlines()) == 1
    assert devices.current() is devices.CPU


def test_a_kernel_that_does_not_compile_is_named(install: Any, tmp_path: Path) -> None:
    class CompileException(Exception):
        """CuPy's."""

    def refuse(name: str) -> None:
        raise CompileException("nvrtc: error: invalid value for --gpu-architecture (-arch)")

    cupy = install(Cupy((12, 0)))
    cupy.cuda.compiler = types.SimpleNamespace(CompileException=CompileException)
    cupy.cuda.runtime.getDevice = lambda: 0
    cupy.RawModule = lambda **options: types.SimpleNamespace(get_function=refuse)
    (tmp_path / "toy.cu").write_text('extern "C" __global__ void toy(int n, Dtype* y) {}')
    with pytest.raises(DeviceError, match="toy.cu does not compile for GPU 0: .*architecture.*\n.*NVRTC.* newer CuPy"):
        Kernels(str(tmp_path / "toy.py"))("toy", 1, np.zeros(1, "float32"), dtype="float32")


def test_a_device_number_that_is_not_there(install: Any) -> None:
    install(Cupy((9, 0), (9, 0)))
    caffe_lite.set_device(2)
    with pytest.raises(DeviceError, match="GPU 2 does not exist: this machine has 2"):
        caffe_lite.set_mode_gpu()
    with pytest.raises(DeviceError, match=r"set_device\(-1\): a device number is >= 0; use set_mode_cpu"):
        caffe_lite.set_device(-1)


# ---- compute


@pytest.mark.parametrize("compute", ["tf32", "bf16"])
def test_compute_before_capability_8(install: Any, compute: str) -> None:
    install(Cupy((7, 5)))
    caffe_lite.set_mode_gpu()
    with pytest.raises(DeviceError, match=f"{compute}.* needs compute capability 8.0 or more, GPU 0 has 7.5"):
        caffe_lite.set_compute(compute)
    assert devices.current().compute == "float32"
    caffe_lite.set_mode_cpu()
    caffe_lite.set_compute(compute)  # nobody knows yet on which GPU
    with pytest.raises(DeviceError, match="needs compute capability 8.0"):
        caffe_lite.set_mode_gpu()


def test_compute_is_the_devices(install: Any) -> None:
    install(Cupy((8, 0), (7, 0)))
    caffe_lite.set_compute("bf16")
    caffe_lite.set_mode_gpu()
    assert devices.current().compute == "bf16"
    caffe_lite.set_compute("tf32")  # at once
    assert devices.current().compute == "tf32"
    with pytest.raises(DeviceError, match="GPU 1 has 7.0"):
        caffe_lite.set_device(1)


def test_compute_is_one_of_three() -> None:
    with pytest.raises(DeviceError, match="float32, tf32, bf16, got 'tf23'; did you mean 'tf32'"):
        caffe_lite.set_compute("tf23")


NET = """
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 } } }
layer { name: "l" type: "Reduction" bottom: "x" top: "l" loss_weight: 1 }
"""


def test_compute_is_an_option(install: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of commands that run nets, and of train: refused by an old GPU, and without one."""
    install(Cupy((7, 0)))
    net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    net.write_text(NET)
    solver.write_text(f'net: "{net}" base_lr: 1 lr_policy: "fixed" max_iter: 1')
    for command in (["time", "--model", str(net)], ["train", "--solver", str(solver), "--quiet"]):
        assert main([*command, "--compute", "bf16", "--gpu", "0"]) == 1
        assert "compute 'bf16' needs compute capability 8.0 or more, GPU 0 has 7.0" in capsys.readouterr().err
        assert main([*command, "--compute", "tf32"]) == 1
        assert "--compute tf32 is for GPUs: give --gpu too" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["classify", "detect"])
def test_compute_is_an_option_of_pycaffes_commands(
    command: str, install: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Theirs is a ``--gpu`` without a number; nothing is read before the device is chosen."""
    install(Cupy((7, 0), (9, 0)))
    args = [command, str(tmp_path / "in.txt"), str(tmp_path / "out.csv"), "--pretrained_model", "absent.caffemodel"]
    assert main([*args, "--compute", "bf16", "--gpu"]) == 1
    assert "compute 'bf16' needs compute capability 8.0 or more, GPU 0 has 7.0" in capsys.readouterr().err
    assert main([*args, "--compute", "tf32"]) == 1
    assert "--compute tf32 is for GPUs: give --gpu too" in capsys.readouterr().err
    caffe_lite.set_device(1)
    assert main([*args, "--compute", "tf32", "--gpu"]) == 1
    assert "absent.caffemodel" in capsys.readouterr().err
    assert (devices.current().index, devices.current().compute) == (1, "tf32")


# ---- free memory


def test_free_memory_is_cudas_and_the_pools(install: Any) -> None:
    cupy = install(Cupy((9, 0)))
    caffe_lite.set_mode_gpu()
    assert devices.current().free_memory() == 6 * GIB
    cupy.pool_limit = 4 * GIB  # of which 2 are in use
    assert devices.current().free_memory() == 2 * GIB
