"""The log as Caffe's: lines in the form of Google's logging library, on the terminal or in a file.

    I1124 14:05:06.123456 12345 solver.cpp:239] Iteration 100, loss = 0.25

severity (I, W, E, F), month and day, time with microseconds, process, place. The library logs to the
logger "caffe_lite" and prints nothing by itself; what stands here is for programs.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from caffe_lite.errors import CaffeError

logger = logging.getLogger("caffe_lite")
LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)  # glog's 0 to 3
MINIMUM = "GLOG_minloglevel"  # the environment variable of glog

# Log parsers look for the places of Caffe's lines.
_PLACES = {
    "solver.py": "solver.cpp",
    "solver_testing.py": "solver.cpp",
    "snapshot.py": "solver.cpp",
    "update.py": "sgd_solver.cpp",
    "debug_info.py": "net.cpp",
    "train.py": "caffe.cpp",
}


class GlogFormatter(logging.Formatter):
    """A record as a line of glog; further lines of its message stand as they are."""

    def format(self, record: logging.LogRecord) -> str:
        severity = "F" if record.levelno >= logging.CRITICAL else record.levelname[0]
        stamp = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        micro = int(record.created * 1e6) % 1_000_000
        place = _PLACES.get(record.filename, record.filename)
        prefix = f"{severity}{stamp}.{micro:06d} {record.process:5d} {place}:{record.lineno}]"
        return f"{prefix} {super().format(record)}"


class TerminalHandler(logging.StreamHandler):
    """Writes lines above a progress bar, if one is shown, instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")
        if tqdm is None:
            super().emit(record)
            return
        with tqdm.tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def minimum_level() -> int:
    """glog's level (0 INFO to 3 FATAL) from the environment variable GLOG_minloglevel, 0 without it."""
    text = os.environ.get(MINIMUM, "0")
    if text not in ("0", "1", "2", "3"):
        raise CaffeError(f"{MINIMUM} must be 0 (INFO), 1 (WARNING), 2 (ERROR) or 3 (FATAL), got {text!r}")
    return int(text)


def install(level: int | None = None, stream: TextIO | None = None, folder: str | None = None) -> list[logging.Handler]:
    """Print log lines to ``stream`` (sys.stderr), and to a new file in ``folder`` if given.

    ``level`` is glog's (default: :func:`minimum_level`). The file gets every line from INFO on; it has
    the name that glog gives: program, host, user, "log", time, process. ``remove`` takes the result.
    """
    handlers: list[logging.Handler] = [TerminalHandler(stream or sys.stderr)]
    handlers[0].setLevel(LEVELS[minimum_level() if level is None else level])
    if folder is not None:
        handlers.append(logging.FileHandler(os.path.join(folder, _file_name()), encoding="utf-8"))
    logger.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(GlogFormatter())
        logger.addHandler(handler)
    return handlers


def remove(handlers: Iterable[logging.Handler]) -> None:
    """Undo ``install``."""
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def logging_to(stream: TextIO | None = None, level: int | None = None, folder: str | None = None) -> Iterator[None]:
    """``install`` for the time of the ``with``."""
    before = logger.level
    handlers = install(level, stream, folder)
    try:
        yield
    finally:
        remove(handlers)
        logger.setLevel(before)


def _file_name() -> str:
    return f"caffe.{socket.gethostname()}.{getpass.getuser()}.log.INFO.{time.strftime('%Y%m%d-%H%M%S')}.{os.getpid()}"
