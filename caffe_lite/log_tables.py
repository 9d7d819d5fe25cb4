"""Training logs as tables: what Caffe's parse_log and plot_training_log get out of a log.

A log is what ``caffe train`` or ``caffe-lite train`` prints: lines that begin with glog's severity,
month, day and time (``I1124 14:05:06.123456``). Each displayed iteration is a row of the train table,
each test a row of the test table:

    NumIters, Seconds since the line that says "Solving", LearningRate, one column for each output
"""

from __future__ import annotations

import csv
import datetime
import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from caffe_lite.atomic import atomic_write
from caffe_lite.errors import DataError

Row = dict[str, float]
FIXED = ("NumIters", "Seconds", "LearningRate")

_TIME = re.compile(r"^[IWEF](\d{2})(\d{2}) (\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,6}))?")
_ITERATION = re.compile(r"Iteration (\d+)")
_OUTPUT = re.compile(r"(Train|Test) net output #(\d+): (\S+) = ([-+.\deEinfa]+)")
_RATE = re.compile(r"lr = ([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)")


def read_log(path: str | os.PathLike[str]) -> tuple[list[Row], list[Row]]:
    """(rows of the train table, rows of the test table) of a log.

    Raises:
        DataError: the file cannot be read, or nothing in it says that a solver began.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
        year = datetime.datetime.fromtimestamp(os.path.getmtime(path)).year
    except OSError as error:
        raise DataError(f"{path}: cannot read the log: {error.strerror or error}") from error
    return parse_lines(lines, year, path)


def parse_lines(lines: Iterable[str], year: int, origin: str) -> tuple[list[Row], list[Row]]:
    """The same of a log's lines; ``year`` is that of the first, glog's lines have none."""
    tables: dict[str, list[Row]] = {"Train": [], "Test": []}
    clock = _Clock(year)
    iteration, rate = -1.0, math.nan
    for line in lines:
        clock.read(line)
        if "Solving" in line and clock.start is None:
            clock.start = clock.now
        found = _ITERATION.search(line)
        if found:
            iteration = float(found[1])
        if iteration < 0:
            continue
        found = _RATE.search(line)
        if found:
            rate = float(found[1])
        found = _OUTPUT.search(line)
        if found:
            rows = tables[found[1]]
            if found[2] == "0":
                rows.append(dict(zip(FIXED, (iteration, clock.seconds(origin), rate), strict=True)))
            if rows:
                rows[-1][found[3]] = float(found[4])
    if clock.start is None:
        raise DataError(f"{origin}: no line says 'Solving': not the log of a training run, or its beginning is missing")
    for rows in tables.values():
        if len(rows) > 1 and math.isnan(rows[0]["LearningRate"]):  # it is logged after the first outputs
            rows[0]["LearningRate"] = rows[1]["LearningRate"]
    return tables["Train"], tables["Test"]


class _Clock:
    """The time of the line read last; a month that goes back is a new year."""

    def __init__(self, year: int) -> None:
        self.year = year
        self.now: datetime.datetime | None = None
        self.start: datetime.datetime | None = None

    def read(self, line: str) -> None:
        found = _TIME.match(line)
        if not found:
            return
        month, day, hour, minute, second = (int(part) for part in found.groups()[:5])
        if self.now and month < self.now.month:
            self.year += 1
        micro = int((found[6] or "0").ljust(6, "0"))
        try:
            self.now = datetime.datetime(self.year, month, day, hour, minute, second, micro)
        except ValueError:
            return  # a line that only looks like glog's

    def seconds(self, origin: str) -> float:
        if self.start is None or self.now is None:
            raise DataError(f"{origin}: an output comes before any line that says 'Solving' with a time")
        return (self.now - self.start).total_seconds()


def write_csv(path: str | os.PathLike[str], rows: Sequence[Row], delimiter: str = ",") -> None:
    """Write rows with a header: the fixed columns, then the outputs in the order in which they appeared."""
    columns = list(dict.fromkeys([*FIXED, *(name for row in rows for name in row)]))
    with atomic_write(path, "w") as stream:
        writer = csv.DictWriter(stream, columns, delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.10g}" for name, value in row.items()} for row in rows)


# ---- plots

CHARTS = tuple(
    f"{what} vs. {versus}"
    for what in ("Test accuracy", "Test loss", "Train learning rate", "Train loss")
    for versus in ("Iters", "Seconds")
)


def plot(chart: int, logs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> None:
    """Draw ``CHARTS[chart]`` of each log into one picture.

    Raises:
        DataError: a log has no such column.
    """
    from matplotlib.figure import Figure

    title = CHARTS[chart]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for log in logs:
        for name, xs, ys in curves(chart, log):
            axes.plot(xs, ys, marker="." if len(xs) < 60 else "", label=f"{os.path.basename(os.fspath(log))}: {name}")
    axes.set(title=title, xlabel="iterations" if chart % 2 == 0 else "seconds", ylabel=title.split(" vs.")[0].lower())
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(out, "wb") as stream:
        figure.savefig(stream, format=os.path.splitext(os.fspath(out))[1].lstrip(".") or "png", dpi=120)


def curves(chart: int, log: str | os.PathLike[str]) -> list[tuple[str, list[float], list[float]]]:
    """(column, x, y) of each column that ``CHARTS[chart]`` shows of a log."""
    title = CHARTS[chart]
    train, test = read_log(log)
    rows = test if title.startswith("Test") else train
    names: list[Any] = list(dict.fromkeys(name for row in rows for name in row if name not in FIXED))
    if "rate" in title:
        shown = ["LearningRate"]
    else:
        word = "acc" if "accuracy" in title else "loss"
        shown = [name for name in names if word in name.lower()]
    x = "Iters" if chart % 2 == 0 else "Seconds"
    key = "NumIters" if x == "Iters" else x
    found = [(n, [r[key] for r in rows if n in r], [r[n] for r in rows if n in r]) for n in shown]
    found = [curve for curve in found if curve[1]]
    if not found:
        have = ", ".join(names) or "none"
        raise DataError(f"{os.fspath(log)}: nothing to draw for {title!r}; the outputs in the log are: {have}")
    return found
