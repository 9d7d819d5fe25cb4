"""Timer: wall-clock time between start and stop, as pycaffe's."""

from __future__ import annotations

import time

from caffe_lite import device


class Timer:
    """``timer.start(); ...; timer.stop(); timer.ms``. On a GPU it waits for the work that was asked for before."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._ms = 0.0

    def start(self) -> None:
        """Begin to measure, again if it is running."""
        _wait_for_device()
        self._started = time.perf_counter()

    def stop(self) -> None:
        """End the measurement; nothing happens if none is running."""
        if self._started is not None:
            _wait_for_device()
            self._ms = 1000 * (time.perf_counter() - self._started)
            self._started = None

    @property
    def ms(self) -> float:
        """Milliseconds from start to stop, which it does first if that is due; 0 if there was no start."""
        self.stop()
        return self._ms


def _wait_for_device() -> None:
    device.current().synchronize()
