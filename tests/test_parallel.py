"""``caffe_lite.parallel`` cuts the work without changing it, reports errors, and survives a fork."""

import os
import threading

import numpy as np
import pytest

from caffe_lite import parallel
from tests.layers.layer_case import LayerCase


@pytest.fixture
def threads(monkeypatch):
    """Three threads for anything with more than three numbers."""

    def use(count):
        monkeypatch.setattr(parallel, "get_num_threads", lambda: count)
        monkeypatch.setattr(parallel, "LARGE", 1)

    use(3)
    return use


def stretches(count, size):
    found = []
    parallel.split(lambda first, last: found.append((first, last, threading.get_ident())), count, size)
    return sorted(found)


@pytest.mark.parametrize("count", [2, 3, 7, 100])
def test_stretches_cover_the_range_once(threads, count):
    found = stretches(count, 1000)
    assert len(found) == min(count, 3)
    assert [i for first, last, _ in found for i in range(first, last)] == list(range(count))


def test_small_work_runs_in_the_caller():
    assert stretches(10, 2 * parallel.LARGE - 1) == [(0, 10, threading.get_ident())]


def test_nothing_to_do(threads):
    assert stretches(0, 0) == [(0, 0, threading.get_ident())]


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_error_is_raised_after_all_have_ended(threads, bad):
    """0 is the caller's stretch, the others are those of workers; later work is not disturbed."""
    ended = []

    def work(first, last):
        if first == bad:
            raise ValueError(f"stretch {bad}")
        ended.append(first)

    with pytest.raises(ValueError, match=f"stretch {bad}"):
        parallel.split(work, 3, 1000)
    assert sorted(ended) == [i for i in range(3) if i != bad]
    assert len(stretches(3, 1000)) == 3


def test_elementwise_cuts_all_arrays_at_the_same_places(threads):
    x, y = np.arange(35.0).reshape(5, 7), np.empty((5, 7))
    for count in (1, 2, 3, 5):
        threads(count)
        y[...] = -1
        parallel.elementwise(lambda a, scale, b: np.multiply(a, scale, out=b), x, 3.0, y)
        np.testing.assert_array_equal(y, 3 * np.arange(35).reshape(5, 7))


LAYERS = {
    "AbsVal": 'type: "AbsVal"',
    "ELU": 'type: "ELU"',
    "Exp": 'type: "Exp" exp_param { base: 2 }',
    "Sigmoid": 'type: "Sigmoid"',
    "Softmax": 'type: "Softmax"',
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_gives_the_same_bits_on_any_number_of_threads(threads, device, name, dtype):
    results = []
    for count in (1, 2, 3):
        threads(count)
        case = LayerCase()
        case.layer = LAYERS[name]
        rng = np.random.default_rng(0)
        layer, bottoms, tops = case.build(device, [rng.normal(size=(7, 33))], dtype=dtype)
        layer.forward(bottoms, tops)
        tops[0].diff[...] = device.xp.asarray(rng.normal(size=(7, 33)))
        layer.backward(tops, [True], bottoms)
        results.append([device.to_host(a).copy() for a in (tops[0].data, bottoms[0].diff)])
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(threads):
    """A child that kept its parent's pool would wait for threads that do not exist there."""
    assert len(stretches(3, 1000)) == 3
    child = os.fork()
    if child == 0:
        threading.Timer(20, os._exit, [2]).start()
        os._exit(0 if len(stretches(3, 1000)) == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
