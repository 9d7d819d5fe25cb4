"""The stand-in for CuPy refuses what CuPy refuses, and computes the rest as NumPy does."""

from __future__ import annotations

import importlib.util
import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from caffe_lite.device import Device
from tests import strict_device
from tests.strict_device import DeviceArray, xp

OPTIONS = {"where", "initial", "mean", "correction", "device", "like", "order", "stable", "kind", "subok", "keepdims"}
HOST = np.arange(6, dtype="float32").reshape(2, 3)


def device_array() -> Any:
    return xp.asarray(HOST)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + HOST,
        lambda x: HOST * x,
        lambda x: xp.add(x, HOST),
        lambda x: xp.add(x, x, out=HOST),
        lambda x: xp.concatenate([x, HOST]),
        lambda x: x.sum(out=HOST),
        lambda x: x.__setitem__(..., HOST),
        lambda x: x[np.array([0, 1])],
        lambda x: operator.iadd(x, HOST),
        lambda x: np.asarray(x),
        lambda x: np.add(HOST, x),
        lambda x: x.set(x),
        lambda x: strict_device.laid_open((3, x, HOST)),
    ],
)
def test_arrays_of_the_host_and_the_device_do_not_mix(mix: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        mix(device_array())


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda x: xp.errstate, AttributeError),
        (lambda x: xp.insert(x, 0, 1), AttributeError),
        (lambda x: xp.add.at, AttributeError),
        (lambda x: x.ctypes, AttributeError),
        (lambda x: xp.sum(x, where=x > 1), TypeError),
        (lambda x: xp.add(x, x, where=x > 1), TypeError),
        (lambda x: x.max(initial=0), TypeError),
        (lambda x: range(x[0, 0].astype("int32")), TypeError),
        (lambda x: len(x.sum()), TypeError),
        (lambda x: {x}, TypeError),
    ],
)
def test_what_cupy_lacks(use: Callable[[Any], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        use(device_array())


@pytest.mark.parametrize(
    "wait", [float, int, bool, lambda v: v.item(), lambda v: v.get(), lambda v: v.reshape(1)[v.reshape(1) > 0]]
)
def test_what_waits_is_refused_where_it_must_not(wait: Callable[[Any], Any]) -> None:
    value = device_array().sum()
    wait(value)
    with strict_device.closed(), pytest.raises(AssertionError, match="waits for the device"):
        wait(value)
    wait(value)


def test_repeated_places() -> None:
    x, places = device_array().reshape(-1), xp.asarray([0, 2, 0])
    x[places] = 7
    assert x.tolist() == [7, 1, 7, 3, 4, 5]
    with pytest.raises(AssertionError, match="repeated places"):
        x[places] = xp.arange(3)


def test_the_rest_is_numpys() -> None:
    x = device_array()
    assert isinstance(x[0, 0], DeviceArray) and x[0, 0].shape == () and x.sum().shape == ()
    np.testing.assert_array_equal((1 - x[:, 1:] @ x[:, 1:].T).get(), 1 - HOST[:, 1:] @ HOST[:, 1:].T)
    before = HOST.copy()
    same = x
    x += 1
    x[0] *= x[1]
    assert same is x and xp.sqrt(x, out=x) is x
    np.testing.assert_allclose(x.get(), np.sqrt([[4, 10, 18], [4, 5, 6]]), rtol=1e-6)
    np.testing.assert_array_equal(xp.sign(xp.asarray([-2.0, 0.0, np.nan])).get(), [-1, 0, 0])
    np.testing.assert_array_equal(HOST, before)  # asarray is a copy to the device
    np.testing.assert_array_equal(np.maximum(x, 3).get(), np.maximum(x.get(), 3))


def test_an_emulated_net_has_such_arrays(emulated: Device) -> None:
    assert isinstance(emulated.workspace("x", (2, 3), "float32"), DeviceArray)


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


if importlib.util.find_spec("cupy"):  # it needs no GPU to be asked

    def test_nothing_is_allowed_that_this_cupy_lacks() -> None:
        import cupy

        functions = {n for n in dir(np) if not n.startswith("_") and callable(getattr(np, n))}
        functions = {n for n in functions if not isinstance(getattr(np, n), type)} - strict_device.LACKING
        assert {n for n in functions if not hasattr(cupy, n)} == set()
        for name in strict_device.METHODS:
            assert hasattr(cupy.ndarray, name)

    def test_no_parameter_is_allowed_that_this_cupy_lacks() -> None:
        import cupy

        for name, lacking in strict_device.LACKING_PARAMETERS.items():
            if not (lacking & OPTIONS and hasattr(np, name) and hasattr(cupy, name)):
                continue
            theirs = parameters(getattr(cupy, name))
            assert (parameters(getattr(np, name)) & OPTIONS) - theirs <= lacking, name
