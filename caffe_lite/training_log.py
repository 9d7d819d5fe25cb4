"""The course of a training as JSON lines: ``<snapshot prefix>_log.jsonl``, beside the snapshots.

Every line is an object with ``event``, ``iter`` (updates done) and ``time`` (seconds since 1970), and

    start      net, max_iter, lr_policy
    train      loss, smoothed_loss, lr, seconds (since the display before), outputs
    test       net (its number), outputs, loss (null unless test_compute_loss)
    snapshot   model, state
    warning    level, message: whatever caffe_lite warns of meanwhile
    end        outcome: "done", "stopped", or the error

``outputs`` maps each output's name to its value, a list if it has several elements. What JSON cannot
say (NaN, infinity) is null. A run that goes on appends; after a "start" with a smaller ``iter`` than
the line before, the lines in between were of a run that was lost. Lines are whole: what a killed
process left of one is cut off when the next begins.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from typing import Any

import numpy as np

from caffe_lite.solver import Solver

logger = logging.getLogger("caffe_lite")


class TrainingLog(logging.Handler):
    """``with TrainingLog(solver): solver.solve()`` writes the log of that run to ``path``.

    A log that cannot be written, on a full disk say, is given up with a warning: training goes on.
    """

    def __init__(self, solver: Solver, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(logging.WARNING)
        self.solver = solver
        self.path = os.fspath(path if path is not None else f"{solver.snapshot_prefix}_log.jsonl")
        self._file: int | None = None

    def __enter__(self) -> TrainingLog:
        param = self.solver.param
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            _cut_to_whole_lines(self._file)
        except OSError as error:
            self._give_up(error)
        logger.addHandler(self)
        self.solver.listeners.append(self._note)
        fields = {"net": self.solver.net.name, "max_iter": param.max_iter, "lr_policy": param.lr_policy}
        self._write("start", {"iter": self.solver.iter, **fields})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.solver.listeners.remove(self._note)
        logger.removeHandler(self)
        done = self.solver.iter >= self.solver.param.max_iter
        outcome = (str(error) or type(error).__name__) if error is not None else "done" if done else "stopped"
        self._write("end", {"iter": self.solver.iter, "outcome": outcome})
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def emit(self, record: logging.LogRecord) -> None:
        """Of logging.Handler: a warning or an error."""
        if record.module == "debug_info":  # Caffe gives one of its lines the severity of an error
            return
        fields = {"iter": self.solver.iter, "level": record.levelname, "message": record.getMessage()}
        self._write("warning", fields, record.created)

    def _note(self, event: str, fields: dict[str, Any]) -> None:
        if event != "iteration":
            self._write(event, fields)

    def _write(self, event: str, fields: dict[str, Any], when: float | None = None) -> None:
        with self.lock or contextlib.nullcontext():  # warnings come from other threads too
            self._append(event, fields, when)

    def _append(self, event: str, fields: dict[str, Any], when: float | None) -> None:
        if self._file is None:
            return
        stamp = round(time.time() if when is None else when, 6)
        line = json.dumps(_plain({"event": event, "time": stamp, **fields}), allow_nan=False) + "\n"
        data = line.encode()
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            if os.write(self._file, data) < len(data):
                os.ftruncate(self._file, end)
                raise OSError(f"no space for a line of {len(data)} bytes")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        logger.warning("%s: %s; training goes on without this log", self.path, error.strerror or error)


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The objects of a log, in their order; a line that a killed process did not finish is left out."""
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream if line.endswith("\n")]


def _cut_to_whole_lines(file: int) -> None:
    """Take away what follows the last line end."""
    size = end = os.lseek(file, 0, os.SEEK_END)
    step = 1 << 12
    while end:
        start = max(0, end - step)
        os.lseek(file, start, os.SEEK_SET)
        found = os.read(file, end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)


def _plain(value: Any) -> Any:
    """``value`` in the types of JSON."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.item() if value.size == 1 else value.ravel().tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
