"""How many threads compute: one setting for BLAS, numba and OpenCV.

Without a setting each of them takes the processors that it finds. ``set_num_threads(n)``, or the
environment variable CAFFE_LITE_NUM_THREADS, holds all three to n. The kernels give the same bits
for the same number of threads; for another number they may differ by rounding.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from caffe_lite.errors import CaffeError

VARIABLE = "CAFFE_LITE_NUM_THREADS"


def set_num_threads(count: int) -> None:
    """Compute with ``count`` >= 1 threads from now on, in this process.

    numba cannot go beyond the processors that it found when it was imported: it then takes those.
    """
    global _count
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise CaffeError(f"the number of threads must be an integer >= 1, got {count!r}")
    _count = count
    apply()


def get_num_threads() -> int:
    """The number of threads that compute."""
    return _setting() or _processors()


def apply() -> None:
    """Make the libraries follow the setting, where there is one.

    numba keeps its number for each Python thread, and libraries may have been loaded since: the net
    calls this before it runs. It costs microseconds.
    """
    count = _setting()
    if count is None:
        return
    _limit_numba(count)
    cv2 = sys.modules.get("cv2")
    if cv2 is not None and cv2.getNumThreads() != count:
        cv2.setNumThreads(count)
    for library in _blas():
        if library.num_threads != count:
            library.set_num_threads(count)


_count: int | None = None
_libraries: list[Any] = []
_libraries_for: tuple[bool, ...] | None = None


def _setting() -> int | None:
    """What was asked for, or None."""
    global _count
    if _count is None and os.environ.get(VARIABLE):
        text = os.environ[VARIABLE]
        if not text.strip().isdecimal() or int(text) < 1:
            raise CaffeError(f"{VARIABLE} must be an integer >= 1, got {text!r}")
        _count = int(text)
    return _count


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _limit_numba(count: int) -> None:
    if "numba" not in sys.modules:
        return
    import numba

    count = min(count, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if numba.get_num_threads() != count:
        numba.set_num_threads(count)


def _blas() -> list[Any]:
    """threadpoolctl's handles of the BLAS libraries, looked for again when a package that brings its own is new."""
    global _libraries, _libraries_for
    loaded = tuple(name in sys.modules for name in ("numpy", "scipy.linalg", "cv2", "torch"))
    if loaded != _libraries_for:
        from threadpoolctl import ThreadpoolController

        found = ThreadpoolController().lib_controllers
        _libraries = [library for library in found if library.user_api == "blas"]
        _libraries_for = loaded
    return _libraries
