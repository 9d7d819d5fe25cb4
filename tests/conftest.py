"""Fixtures of every test: the devices under test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from caffe_lite import device as devices
from caffe_lite.device import Device
from caffe_lite.errors import DeviceError
from tests import cuda_on_host


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
    before = devices.current()
    with cuda_on_host.emulated_device() as device:
        devices.use(device)
        yield device
    devices.use(before)
