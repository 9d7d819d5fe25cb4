"""Reading ahead: one thread prepares the next batches while the net computes.

:class:`ReadAhead` makes the calls that it is given, in their order, in one thread, and hands back the
results in the same order. :class:`PrefetchingLayer` is the layer on top of it: it keeps a few
:class:`Batch` buffers, lets a :class:`BatchReader` fill them ahead, and copies one into the tops at
each forward. A reader owns its place in the data and its random generators and only the thread uses
them, so the batches do not depend on timing: they are the same with any number of buffers, and with
none, when the layer reads each batch as it needs it.

The thread starts at the first forward and refers to the reader, not to the layer: it ends when the
layer is closed or garbage collected, when the interpreter exits, and after an error, which the
forward that would have got that batch raises.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import math
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np

from caffe_lite.errors import DataError
from caffe_lite.layer import Blobs, Flags, Layer

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """``submit`` calls, ``take`` their results in the same order; ``pending`` are not yet taken."""

    def __init__(self, name: str) -> None:
        self.pending = 0
        self._calls: SimpleQueue[Any] = SimpleQueue()  # may be used while garbage is collected, unlike Queue
        self._results: SimpleQueue[Any] = SimpleQueue()
        # A daemon, because the interpreter waits for other threads before it runs _stop_all.
        self._thread = threading.Thread(target=_work, args=(self._calls, self._results), name=name, daemon=True)
        _running[self._thread] = self._calls
        weakref.finalize(self, _end, self._calls).atexit = False
        self._thread.start()

    def submit(self, call: Callable[..., T], *args: Any) -> None:
        """Call ``call(*args)`` in the thread, after those submitted before."""
        self.pending += 1
        self._calls.put((call, args))

    def take(self) -> T:
        """The result of the earliest call not yet taken; waits for it.

        Raises what the call raised; the calls after it are dropped.
        """
        if not self.pending:
            raise DataError("reading ahead: take() without a submit()")
        while True:
            try:
                result, error = self._results.get(timeout=1)
                break
            except Empty:
                if not self._thread.is_alive() and self._results.empty():
                    raise DataError(
                        "the thread that reads ahead is gone (a forked process does not inherit it): "
                        "build the net in the process that runs it"
                    ) from None
        self.pending -= 1
        if error is None:
            return result
        self.close()
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    def close(self) -> None:
        """Drop the calls not yet begun, wait for the one under way, end the thread."""
        self.pending = 0
        _end(self._calls)
        if self._thread.is_alive():
            self._thread.join()


_running: dict[threading.Thread, SimpleQueue[Any]] = {}


def _work(calls: SimpleQueue[Any], results: SimpleQueue[Any]) -> None:
    """The thread: make the calls until None comes."""
    while (item := calls.get()) is not None:
        call, args = item
        try:
            results.put((call(*args), None))
        except BaseException as error:
            results.put((None, error))
            break
        del item, call, args  # nothing is kept alive by a thread that waits
    _running.pop(threading.current_thread(), None)


def _end(calls: SimpleQueue[Any]) -> None:
    """Let the thread of ``calls`` end after the call under way.

    Does not wait for it: this runs when garbage is collected, in any thread and holding any lock.
    """
    with contextlib.suppress(Empty):
        while True:
            calls.get_nowait()
    calls.put(None)


@atexit.register
def _stop_all() -> None:
    """End all threads before the interpreter takes away what they use."""
    threads = dict(_running)
    for calls in threads.values():
        _end(calls)
    for thread in threads:
        if thread.is_alive():
            thread.join()


class Batch:
    """Buffers for one batch, an array for each top; its images by name; the reader's place after it."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.arrays: list[np.ndarray] = []
        self.images: list[str] = []  # for messages; filled by readers that know where an item comes from
        self.place: dict[str, Any] = {}
        self._memory: list[np.ndarray] = []

    def reshape(self, *shapes: tuple[int, ...]) -> list[np.ndarray]:
        """One array for each of ``shapes``; memory grows and never shrinks, contents are undefined."""
        while len(self._memory) < len(shapes):
            self._memory.append(np.empty(0, dtype=self.dtype))
        self.arrays = []
        for i, shape in enumerate(shapes):
            count = math.prod(shape)
            if self._memory[i].size < count:
                self._memory[i] = np.empty(count, dtype=self.dtype)
            self.arrays.append(self._memory[i][:count].reshape(shape))
        return self.arrays


class BatchReader:
    """What a data layer reads ahead. It must not refer to the layer."""

    def fill(self, batch: Batch) -> None:
        """Read the next batch: ``batch.reshape(...)``, then fill the arrays."""
        raise NotImplementedError

    def place(self) -> dict[str, Any]:
        """What the next batch depends on, made of numbers, texts, lists and dictionaries of them."""
        raise NotImplementedError

    def go_to(self, place: dict[str, Any]) -> None:
        """Go back to a ``place()``; DataError if it is of other data."""
        raise NotImplementedError

    def fill_and_note(self, batch: Batch) -> Batch:
        """``fill`` and the place after it."""
        batch.images = []  # a new list: the layer may still hold the old one
        self.fill(batch)
        batch.place = self.place()
        return batch


class PrefetchingLayer(Layer):
    """A data layer without bottoms: ``setup`` sizes the tops and calls ``start``.

    ``minibatch_images``: the names of the images of the batch now in the tops, for messages.
    """

    exact_bottoms = 0

    def start(self, reader: BatchReader, depth: int) -> None:
        """Serve the batches of ``reader``, with ``depth`` buffers to read ahead; 0: no thread."""
        self._reader = reader
        self._spare = [Batch(self.dtype) for _ in range(max(depth, 1))]
        self._depth = depth
        self._place = reader.place()
        self._ahead: ReadAhead[Batch] | None = None
        self.minibatch_images: list[str] = []

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Nothing: forward gives the tops the shape of the batch."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        batch = self._next()
        for blob, array in zip(top, batch.arrays, strict=True):
            blob.reshape(array.shape)
            blob.data[...] = self.xp.asarray(array)
        self.minibatch_images = batch.images
        self._place = batch.place
        self._spare.append(batch)
        if self._ahead is not None:
            self._submit(self._ahead)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        """Nothing: there is no bottom."""

    def state(self) -> dict[str, Any]:
        """What the next forward depends on, fit for JSON: for an exact resume.

        Batches that have been read ahead count as not yet read.
        """
        return self._place

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to ``state()``.

        Raises:
            DataError: the state is of other data; the layer is unchanged.
        """
        self.close()
        try:
            self._reader.go_to(state)
        except (KeyError, TypeError, ValueError) as error:  # DataError is a ValueError too
            self._reader.go_to(self._place)
            why = str(error) if isinstance(error, DataError) else f"it is damaged ({error!r})"
            raise DataError(self.explain(f"the saved state cannot be used: {why}")) from error
        self._place = copy.deepcopy(state)

    def close(self) -> None:
        """Stop reading ahead; the next forward begins again after the last batch served."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()
            self._spare = [Batch(self.dtype) for _ in range(self._depth)]
            self._reader.go_to(self._place)

    def _next(self) -> Batch:
        if not self._depth:
            try:
                return self._reader.fill_and_note(self._spare.pop())
            except BaseException:
                self._spare = [Batch(self.dtype)]
                self._reader.go_to(self._place)
                raise
        if self._ahead is None:
            self._ahead = ReadAhead(f"{self.type} {self.name!r}")
            self._submit(self._ahead)
        try:
            return self._ahead.take()
        except BaseException:
            self.close()  # an interrupt too: what is under way must not be mistaken for the next batch
            raise

    def _submit(self, ahead: ReadAhead[Batch]) -> None:
        while self._spare:
            ahead.submit(self._reader.fill_and_note, self._spare.pop())


def generator_from(rng: np.random.Generator) -> np.random.Generator:
    """A generator of its own for one layer, seeded by one draw from the process's stream."""
    return np.random.default_rng(int(rng.integers(1 << 63)))


def generator_state(rng: np.random.Generator | None) -> dict[str, Any] | None:
    """The state of a generator, fit for JSON."""
    return None if rng is None else dict(rng.bit_generator.state)


def set_generator_state(rng: np.random.Generator | None, state: dict[str, Any] | None) -> None:
    """Put back a ``generator_state``; DataError if one draws at random and the other does not."""
    if (rng is None) != (state is None):
        raise DataError("it is of a layer with another mirror, crop_size or shuffle: make them agree")
    if rng is not None and state is not None:
        rng.bit_generator.state = state
