"""Fixtures of every test: the devices under test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from caffe_lite import device as devices
from caffe_lite.device import CPU, Device
from caffe_lite.errors import DeviceError
from tests import cuda_on_host

DEVICES = ("cpu", "cuda-on-host", "gpu")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Each device that layers run on, in use while the test lasts; ``cuda-on-host`` needs no GPU."""
    before = devices.current()
    try:
        if request.param == "cpu":
            devices.use(CPU)
            yield CPU
        elif request.param == "cuda-on-host":
            if not cuda_on_host.has_compiler():
                pytest.skip("cuda-on-host needs g++, which is not on PATH")
            with cuda_on_host.emulated_device() as emulated:
                devices.use(emulated)
                yield emulated
        else:
            try:
                devices.set_mode_gpu()
            except DeviceError as error:
                pytest.skip(str(error))
            yield devices.current()
    finally:
        devices.use(before)
