"""Fixtures of every test: the devices under test, solvers on them, and what trains a detector within a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from caffe_lite import device as devices
from caffe_lite import models
from caffe_lite.data.config import cfg, cfg_from_file, preserved_cfg
from caffe_lite.data.synthetic import make_devkit
from caffe_lite.device import Device
from caffe_lite.errors import DeviceError
from caffe_lite.solver import Solver
from tests import cuda_on_host
from tests.solver_maker import make_solver


def _why_no_gpu() -> str:
    before = devices.current()
    try:
        devices.set_mode_gpu()
    except DeviceError as error:
        return str(error)
    finally:
        devices.use(before)
    return ""


NO_GPU = _why_no_gpu()
NO_COMPILER = "" if cuda_on_host.has_compiler() else "cuda-on-host needs g++, which is not on PATH"


DEVICES = ["cpu"] + ["cuda-on-host"] * (not NO_COMPILER) + ["gpu"] * (not NO_GPU)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--need-gpu", action="store_true", help="an error, before any test, where there is no GPU to test")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--need-gpu") and NO_GPU:
        raise pytest.UsageError(f"no GPU can be tested: {NO_GPU}")


def pytest_report_header() -> list[str]:
    """Say once which devices are left out, instead of skipping each test on them."""
    missing = [("cuda-on-host", NO_COMPILER), ("gpu", NO_GPU)]
    left_out = [f"not tested on {name}: {reason}" for name, reason in missing if reason]
    return [f"devices: {', '.join(DEVICES)}", *left_out]


@contextmanager
def in_use(name: str) -> Iterator[Device]:
    """The device of this name; nets are built on it inside the ``with``."""
    before = devices.current()
    try:
        if name == "cuda-on-host":
            with cuda_on_host.emulated_device() as emulated:
                devices.use(emulated)
                yield emulated
        else:
            devices.set_mode_cpu() if name == "cpu" else devices.set_mode_gpu()
            yield devices.current()
    finally:
        devices.use(before)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Each device that layers run on, in use while the test lasts; ``cuda-on-host`` needs no GPU."""
    with in_use(request.param) as chosen:
        yield chosen


@pytest.fixture(params=DEVICES[1:] or [pytest.param("", marks=pytest.mark.skip(reason="neither a GPU nor g++"))])
def gpu(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Each GPU under test, in use while the test lasts: ``cuda-on-host`` and, where there is one, the real one."""
    with in_use(request.param) as chosen:
        yield chosen


@pytest.fixture
def emulated() -> Iterator[Device]:
    """The GPU whose kernels run on the host, in use while the test lasts."""
    if NO_COMPILER:
        pytest.skip(NO_COMPILER)
    with in_use("cuda-on-host") as chosen:
        yield chosen


@pytest.fixture
def make(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Solver]:
    """``make_solver`` of tests/solver_maker.py, in a folder of its own, on each device."""
    monkeypatch.chdir(tmp_path)
    return make_solver


@pytest.fixture(scope="session")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset folder of 4 images to train on and 2 to test on, for all tests: they write into its cache alone."""
    return make_devkit(tmp_path_factory.mktemp("devkit") / "data", 5, {"trainval": 4, "test": 2}, (120, 100))


@pytest.fixture
def mini_settings() -> Iterator[None]:
    """Those of models/mini at one small scale, with few regions: an iteration takes some hundredths of a second."""
    with preserved_cfg():
        cfg_from_file(models.path("mini/mini.yml"))
        cfg.TRAIN.SCALES = cfg.TEST.SCALES = (64,)
        cfg.TRAIN.BATCH_SIZE = 16
        yield
