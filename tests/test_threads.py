"""One setting for the threads of BLAS, numba and OpenCV."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from caffe_lite import threads
from caffe_lite.errors import CaffeError


@pytest.fixture(autouse=True)
def as_before():
    import numba

    blas, compiled, setting = (
        [(lib, lib.num_threads) for lib in threads._blas()],
        numba.get_num_threads(),
        threads._count,
    )
    yield
    for library, count in blas:
        library.set_num_threads(count)
    numba.set_num_threads(compiled)
    threads._count = setting


def blas_threads():
    from threadpoolctl import threadpool_info

    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


def test_setting_holds_every_library():
    import cv2
    import numba

    before = cv2.getNumThreads()
    threads.set_num_threads(1)
    assert threads.get_num_threads() == 1
    assert numba.get_num_threads() == 1
    assert blas_threads() == {1}
    assert cv2.getNumThreads() == 1
    cv2.setNumThreads(before)


def test_more_threads_than_processors():
    threads.set_num_threads(10_000)
    assert threads.get_num_threads() == 10_000


def test_environment_variable():
    code = (
        "import numba; from caffe_lite import threads; threads.apply();"
        "print(threads.get_num_threads(), numba.get_num_threads(), *{lib.num_threads for lib in threads._blas()})"
    )
    for value, want in (("1", "1 1 1"), ("zero", "must be an integer >= 1, got 'zero'")):
        environment = {**os.environ, "CAFFE_LITE_NUM_THREADS": value}
        result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert want in (result.stdout if value == "1" else result.stderr)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_bad_number(count):
    with pytest.raises(CaffeError, match="must be an integer >= 1"):
        threads.set_num_threads(count)


def test_single_threaded_blas_restores():
    for library in threads._blas():
        library.set_num_threads(2)
    before = blas_threads()  # a library may be built for one thread only
    with threads.single_threaded_blas():
        assert blas_threads() == {1}
        np.ones((8, 8)) @ np.ones((8, 8))
    with pytest.raises(KeyError), threads.single_threaded_blas():
        raise KeyError
    assert blas_threads() == before
