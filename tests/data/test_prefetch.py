"""Reading ahead: order, errors, threads that end, and layers whose batches do not depend on timing."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from caffe_lite.blob import Blob
from caffe_lite.data.prefetch import (
    BatchReader,
    PrefetchingLayer,
    ReadAhead,
    generator_state,
    set_generator_state,
)
from caffe_lite.errors import DataError
from caffe_lite.proto import caffe_pb2
from tests.data.data_files import wait_for_end


def test_results_come_in_the_order_of_the_calls():
    ahead = ReadAhead("test")
    for i in range(5):
        ahead.submit(lambda i: time.sleep(0.002 * (i % 2)) or i, i)
    assert ahead.pending == 5
    assert [ahead.take() for _ in range(5)] == [0, 1, 2, 3, 4]
    ahead.close()
    with pytest.raises(DataError, match="without a submit"):
        ahead.take()


def test_an_error_comes_in_its_turn_and_ends_the_thread():
    ahead, later = ReadAhead("test"), []
    ahead.submit(lambda: 1)
    ahead.submit(lambda: [][1])
    ahead.submit(later.append, 1)
    assert ahead.take() == 1
    with pytest.raises(IndexError):
        ahead.take()
    assert not ahead._thread.is_alive() and not later and not ahead.pending


def test_close_waits_for_the_call_under_way_and_drops_the_others():
    ahead, begun, go_on, done = ReadAhead("test"), threading.Event(), threading.Event(), []
    ahead.submit(lambda: (begun.set(), go_on.wait(10), done.append(1)))
    ahead.submit(done.append, 2)
    begun.wait(10)
    threading.Timer(0.05, go_on.set).start()
    ahead.close()
    assert done == [1] and not ahead._thread.is_alive()


def test_the_thread_ends_with_its_owner_and_keeps_no_argument_alive():
    ahead = ReadAhead("test")
    argument = Batchlike()
    ahead.submit(id, argument)
    ahead.take()
    gone = weakref.ref(argument)
    del argument
    deadline = time.monotonic() + 10
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert gone() is None
    thread = ahead._thread
    del ahead
    gc.collect()
    assert wait_for_end([thread])


class Batchlike:
    pass


def test_the_interpreter_exits_while_a_thread_reads():
    script = """
import threading, time
from caffe_lite.data.prefetch import ReadAhead
a, b, begun = ReadAhead("a"), ReadAhead("b"), threading.Event()
a.submit(lambda: (begun.set(), time.sleep(0.2), print("finished")))
for i in range(1000):
    a.submit(time.sleep, 1)
begun.wait()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")


# ---- layers


class Draws(BatchReader):
    """Batches of 2 random numbers and how many batches there were; batch ``fails`` cannot be read."""

    def __init__(self, slow=False):
        self.rng, self.count, self.fails, self.slow = np.random.default_rng(5), 0, -1, slow

    def fill(self, batch):
        if self.slow:
            time.sleep(0.003 * (self.count % 2))
        draws = self.rng.random(2)
        if self.count == self.fails:
            raise DataError(f"batch {self.count} is damaged")
        data, number = batch.reshape((2, 1 + self.count % 3), (1,))  # of various sizes
        data[...] = draws[:, np.newaxis]
        number[...] = self.count
        self.count += 1

    def place(self):
        return {"count": self.count, "random": generator_state(self.rng)}

    def go_to(self, place):
        if place["count"] > 100:
            raise DataError("there are only 100")
        self.count = place["count"]
        set_generator_state(self.rng, place["random"])


def layer_of(reader, depth):
    layer = PrefetchingLayer(caffe_pb2.LayerParameter(name="draws", type="Draws"))
    layer.start(reader, depth)
    return layer, [Blob(), Blob()]


def forwards(layer, top, count):
    found = []
    for _ in range(count):
        layer.forward([], top)
        found.append((top[0].data.tolist(), top[1].data.tolist()))
    return found


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("slow", [False, True])
def test_batches_do_not_depend_on_reading_ahead(depth, slow):
    expected = forwards(*layer_of(Draws(), 0), 12)
    assert len({str(data) for data, _ in expected}) == 12
    layer, top = layer_of(Draws(slow), depth)
    assert forwards(layer, top, 12) == expected
    assert layer._ahead.pending == depth, "not more than depth batches are read ahead"
    layer.close()


@pytest.mark.parametrize("depth", [0, 3])
def test_a_state_is_that_after_the_last_batch_served(depth):
    layer, top = layer_of(Draws(), depth)
    begin = layer.state()
    first = forwards(layer, top, 4)
    while depth and layer._ahead._results.qsize() < depth:
        time.sleep(0.001)  # until all is read ahead that will be
    state = layer.state()
    then = forwards(layer, top, 4)
    layer.set_state(state)
    assert forwards(layer, top, 4) == then
    layer.close()  # changes nothing
    layer.set_state(begin)
    assert forwards(layer, top, 8) == first + then
    layer.close()


@pytest.mark.parametrize("depth", [0, 3])
def test_an_error_is_raised_by_its_own_forward_and_can_be_mended(depth):
    expected = forwards(*layer_of(Draws(), 0), 6)
    reader = Draws()
    reader.fails = 2
    layer, top = layer_of(reader, depth)
    assert forwards(layer, top, 2) == expected[:2]
    for _ in range(2):
        with pytest.raises(DataError, match="batch 2 is damaged"):
            layer.forward([], top)
    reader.fails = -1
    assert forwards(layer, top, 4) == expected[2:]
    layer.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"count": 101}, "only 100"), ({"random": None}, "another mirror"), ({"random": {"x": 1}}, "damaged")],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    layer, top = layer_of(Draws(), 2)
    forwards(layer, top, 2)
    state = layer.state()
    expected = forwards(layer, top, 2)
    layer.set_state(state)
    with pytest.raises(DataError, match=f"layer 'draws' .Draws.: the saved state cannot be used: .*{message}"):
        layer.set_state(state | change)
    assert forwards(layer, top, 2) == expected
    layer.close()


def test_a_layer_that_is_dropped_takes_its_thread_along():
    layer, top = layer_of(Draws(), 2)
    forwards(layer, top, 1)
    thread, gone = layer._ahead._thread, weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None and wait_for_end([thread])
