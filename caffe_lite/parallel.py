"""Memory-bound loops on all threads: a range cut into one stretch for each.

numba's ``prange`` serves kernels that compute much. It needs a kernel of its own beside the one for small
arrays, where waking the threads takes longer than the work, and it cannot run NumPy's expressions. Here one
kernel (``nogil=True``) or expression serves both: below ``LARGE`` numbers it runs where it is called. Which
thread computes a stretch changes no bit as long as no sum crosses stretches.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from caffe_lite.threads import get_num_threads

LARGE = 100_000  # numbers for each thread that pay for waking it, which takes some 30 microseconds

_pool: ThreadPoolExecutor | None = None
_workers = 0


def split(work: Callable[[int, int], Any], count: int, size: int) -> None:
    """``work(first, last)`` for stretches that make up [0, count), on all threads at once if it pays.

    Args:
        work: releases the interpreter lock while it computes, and writes nothing that another stretch touches.
        size: how many numbers all of it reads or writes.
    """
    parts = min(get_num_threads(), count, size // LARGE)
    if parts <= 1:
        work(0, count)
        return
    bounds = [count * part // parts for part in range(parts + 1)]
    pool = _threads(parts - 1)
    others = [pool.submit(work, first, last) for first, last in zip(bounds[1:], bounds[2:], strict=False)]
    with _finishing(others):
        work(0, bounds[1])


def elementwise(kernel: Callable[..., Any], *arguments: Any) -> None:
    """``kernel(*arguments)`` where arrays, all of one size, are flattened and cut at the same places.

    Arguments that are no arrays go to every stretch as they are; the first is an array. The arrays of a GPU
    are passed on whole.
    """
    if not isinstance(arguments[0], np.ndarray):
        kernel(*arguments)
        return
    flat = [a.reshape(-1) if isinstance(a, np.ndarray) else a for a in arguments]
    count = flat[0].size

    def work(first: int, last: int) -> None:
        kernel(*(a[first:last] if isinstance(a, np.ndarray) else a for a in flat))

    split(work, count, count)


@contextlib.contextmanager
def _finishing(others: list[Future[Any]]) -> Any:
    """Leave only when all of ``others`` have ended, after an error too; the first error of theirs is raised."""
    try:
        yield
    finally:
        errors = [error for error in (other.exception() for other in others) if error is not None]
    if errors:
        raise errors[0]


def _threads(count: int) -> ThreadPoolExecutor:
    """A pool of ``count`` threads or more."""
    global _pool, _workers
    if _pool is None or _workers < count:
        _pool, _workers = ThreadPoolExecutor(count, "caffe_lite"), count
    return _pool


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _workers
    _pool, _workers = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
