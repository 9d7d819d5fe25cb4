"""Signals during training: what SIGINT and SIGHUP ask of a solver.

with SignalHandler() as signals:
    solver.action_function = signals.requested
    solver.solve()

A handler only notes the signal; the solver asks ``requested`` once an iteration and once a test
batch, as Caffe's does. A second SIGINT, while the first is to stop the run, raises KeyboardInterrupt
at once: what was snapshotted before stays whole, because snapshots are.
"""

from __future__ import annotations

import _thread
import enum
import logging
import signal
import threading
from types import FrameType
from typing import Any

log = logging.getLogger("caffe_lite")
STOPPING = "stopping after this iteration; interrupt once more to stop at once"


class SolverAction(enum.IntEnum):
    """What a solver is asked to do between two iterations; Caffe's numbers."""

    NONE = 0
    STOP = 1
    SNAPSHOT = 2


class SignalHandler:
    """Turns SIGINT and SIGHUP into actions inside the ``with``; before and after, signals are as they were.

    Only the main thread can install handlers: in another one signals keep their usual effect. Where
    there is no SIGHUP (Windows), only SIGINT is handled.
    """

    def __init__(self, sigint: SolverAction = SolverAction.STOP, sighup: SolverAction = SolverAction.SNAPSHOT) -> None:
        self._actions = {signal.SIGINT: sigint}
        if hasattr(signal, "SIGHUP"):
            self._actions[signal.SIGHUP] = sighup
        self._pending: set[int] = set()
        self._stopping = False
        self._words: list[str] = []  # to be logged
        self._saying = threading.Lock()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> SignalHandler:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self._actions}
        return self

    def __exit__(self, *error: object) -> None:
        self._say()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def requested(self) -> SolverAction:
        """The action of a signal that came since the last call, SIGHUP's first; NONE if none came."""
        self._say()
        for number in sorted(self._pending):  # SIGHUP is 1, SIGINT 2
            self._pending.discard(number)
            return self._actions[signal.Signals(number)]
        return SolverAction.NONE

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._actions[signal.SIGINT] is SolverAction.STOP:
            if self._stopping:
                raise KeyboardInterrupt
            self._stopping = True
            self._words.append(STOPPING)
            # In a thread, which waits for the line that the signal may have interrupted; not threading.Thread,
            # whose own locks the interrupted code may hold.
            _thread.start_new_thread(self._say, ())
        self._pending.add(number)

    def _say(self) -> None:
        """Log what a signal handler wanted to say, if nobody else has; returns when it is said."""
        with self._saying:
            if self._words:
                log.warning(self._words.pop())
