"""One setting for the threads of BLAS, numba and OpenCV."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from caffe_lite import threads
from caffe_lite.errors import CaffeError
from tests.small_net import feed
from tests.solver_maker import make_solver, same, values


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


NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 4 dim: 3 dim: 33 dim: 35 } shape { dim: 4 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 32 kernel_size: 5 stride: 2 pad: 2 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" }
layer { name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2"
        convolution_param { num_output: 40 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "bn" type: "BatchNorm" bottom: "pool2" top: "bn" }
layer { name: "conv3" type: "Convolution" bottom: "bn" top: "conv3"
        convolution_param { num_output: 9 kernel_size: 1 engine: CAFFE weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv3" top: "ip"
        inner_product_param { num_output: 700 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip" top: "ip2"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


def test_nets_in_several_threads_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nets = [make_solver("", NET, random_seed=str(seed)).net for seed in (1, 2)]
    for seed, net in enumerate(nets):
        feed(net, seed)

    def ip(net):
        net.run_forward(end=8)  # before Dropout draws numbers
        return net.blobs["ip"].data.copy()

    assert nets[0].layers[8].name == "ip"
    want = [ip(net) for net in nets]

    def wrong(i):
        return sum(not np.array_equal(ip(nets[i]), want[i]) for _ in range(60))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(wrong, range(2))) == [0, 0]


def test_training_with_another_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("caffe_lite.parallel.LARGE", 1000)  # so that small loops are shared out, too

    def train(count):
        threads.set_num_threads(count)
        solver = make_solver("momentum: 0.9 weight_decay: 0.01", NET, base_lr="0.01")
        solver.step(4)
        return values(solver)

    one, two, again = train(1), train(2), train(2)
    assert same(two, again)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())
