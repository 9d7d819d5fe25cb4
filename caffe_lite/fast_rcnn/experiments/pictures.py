"""PNGs of reports: the paper's numbers in greys and blues, the measured ones in orange with their spread."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from caffe_lite.atomic import atomic_write
from caffe_lite.fast_rcnn.experiments import layer_times, paper, proposals
from caffe_lite.fast_rcnn.experiments.results import AP, MAP, Report, Row, mean_std

_NETS = {"S": "#c9d3de", "M": "#93a9c1", "L": "#56759a"}
_PAPER = ("#b9b4c9", "#8f87ad", "#675d8f")  # of columns that are no nets
_MEASURED = ("#e07b22", "#b3541e", "#f2b26b", "#7d3a12")
_SPANS = 20  # largest over smallest value from which the axis is logarithmic


def draw(path: str | os.PathLike[str], report: Report) -> None:
    """Draw ``report`` in the form that goes with it, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    _FORMS.get(report.name, _bars)(figure, report)
    figure.suptitle(f"{report.name}: {report.title}", fontsize=12)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", metadata={"Software": None})


# ---- bars, a panel for each quantity


def _bars(figure: Any, report: Report) -> None:
    panels = [[row for row in report.rows if row.quantity == quantity] for quantity in report.quantities()]
    panels = [rows for rows in panels if len(rows) < 15 or any(row.paper and row.measured for row in rows)]
    lines = [sum(len(row.paper) + len(row.measured) + 0.8 for row in rows) for rows in panels]
    figure.set_size_inches(9.5, 1.1 + sum(0.75 + 0.19 * count for count in lines))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[2 + n for n in lines])[:, 0]
    for ax, rows in zip(axes, panels, strict=True):
        _bar_panel(ax, rows)


def _series(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(attribute, column), the paper's first."""
    found = [("paper", column) for row in rows for column in row.paper]
    found += [("measured", column) for row in rows for column in row.measured]
    return list(dict.fromkeys(found))


def _bar_panel(ax: Any, rows: Sequence[Row]) -> None:
    series = _series(rows)
    at, ticks, values = 0.0, [], []
    for row in rows:
        present = [(kind, column) for kind, column in series if column in getattr(row, kind)]
        for i, (kind, column) in enumerate(present):
            number = getattr(row, kind)[column]
            value, std = (number, math.nan) if kind == "paper" else mean_std(number)
            values += [value, value if math.isnan(std) else value + std]
            _bar(ax, at + i, value, std, _colour(series, kind, column))
        ticks.append(at + (len(present) - 1) / 2)
        at += len(present) + 0.8
    for kind, column in series:
        ax.barh([0], [0], color=_colour(series, kind, column), label=f"{kind} {column}")
    ax.set_yticks(ticks, [row.name for row in rows])
    ax.invert_yaxis()
    ax.set_xlabel(rows[0].quantity)
    _scale(ax, values, rows[0].quantity)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    _plain(ax, "x")


def _bar(ax: Any, y: float, value: float, std: float, colour: str) -> None:
    error = None if math.isnan(std) else std
    ax.barh(y, value, 0.9, color=colour, xerr=error, ecolor="#444")
    text = f"{value:.3g}" if error is None else f"{value:.3g} ± {std:.2g}"
    end = value + (error or 0)
    ax.annotate(text, (end, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)


def _scale(ax: Any, values: Sequence[float], quantity: str) -> None:
    """An axis with room for the numbers behind the bars."""
    finite = [value for value in values if math.isfinite(value)] or [1.0]
    positive = [value for value in finite if value > 0]
    if quantity not in (MAP, AP) and positive and max(positive) / min(positive) > _SPANS:
        ax.set_xscale("log")
        ax.set_xlim(min(positive) / 2, max(positive) * 8)
    else:
        ax.set_xlim(0, max(max(finite), 1e-9) * 1.2)


def _colour(series: list[tuple[str, str]], kind: str, column: str) -> str:
    if kind == "paper" and column in _NETS:
        return _NETS[column]
    others = [c for k, c in series if k == kind and (kind != "paper" or c not in _NETS)]
    colours = _PAPER if kind == "paper" else _MEASURED
    return colours[others.index(column) % len(colours)]


def _plain(ax: Any, grid: str) -> None:
    ax.grid(axis=grid, alpha=0.3)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


# ---- figure 2: stacked bars


_LAYER_COLOURS = ("#7f9fc4", "#e9924a", "#f2c795", "#8fb98a", "#c9c9c9")
_STATES = (paper.BEFORE, paper.AFTER)


def _layer_bars(figure: Any, report: Report) -> None:
    """Shares of the time side by side, then milliseconds of paper and measurement, each on its own axis."""
    figure.set_size_inches(12, 5)
    axes = figure.subplots(1, 3, width_ratios=[2, 1.1, 1.1])
    both = [(kind, state) for state in _STATES for kind in ("paper", "measured")]
    _stacks(axes[0], report, layer_times.SHARE, both)
    for ax, kind in zip(axes[1:], ("paper", "measured"), strict=True):
        _stacks(ax, report, layer_times.MILLISECONDS, [(kind, state) for state in _STATES])


def _stacks(ax: Any, report: Report, quantity: str, bars: Sequence[tuple[str, str]]) -> None:
    rows = [row for row in report.rows if row.quantity == quantity]
    heights = [[_height(row, kind, state) for row in rows] for kind, state in bars]
    tallest = max(map(sum, heights))
    for x, of_bar in enumerate(heights):
        bottom = 0.0
        for row, height, colour in zip(rows, of_bar, _LAYER_COLOURS, strict=False):
            ax.bar(x, height, 0.78, bottom=bottom, color=colour)
            if height > 0.035 * tallest:
                ax.text(x, bottom + height / 2, f"{row.label} {height:,.0f}", ha="center", va="center", fontsize=8)
            bottom += height
        if quantity == layer_times.MILLISECONDS:
            ax.text(x, bottom, f"{bottom:,.0f} ms", ha="center", va="bottom", fontsize=9)
    ax.set_xticks(range(len(bars)), [f"{kind}\n{state}" for kind, state in bars], fontsize=9)
    ax.set_ylabel(quantity)
    _plain(ax, "y")


def _height(row: Row, kind: str, state: str) -> float:
    if kind == "paper":
        return row.paper.get(state, 0.0)
    return mean_std(row.measured[state])[0] if state in row.measured else 0.0


# ---- figure 3: curves over the boxes an image


def _curves(figure: Any, report: Report) -> None:
    figure.set_size_inches(10, 5.5)
    ax = figure.subplots()
    for quantity, style in ((MAP, "-"), (proposals.RECALL, "--")):
        rows = [row for row in report.rows if row.quantity == quantity]
        for curve, colour in ((proposals.SS, "#56759a"), (proposals.MIXTURE, "#e07b22")):
            line = sorted((row for row in rows if row.label == curve), key=lambda row: row.at or 0)
            _curve(ax, line, style, colour)
    marks = ((proposals.NEAREST, "^", "#3b8a4f"), (proposals.DENSE, "D", "#a33"), (proposals.DENSE_SVM, "s", "#7b4fa3"))
    for curve, mark, colour in marks:
        _curve(ax, [row for row in report.rows if row.label == curve and row.quantity == MAP], mark, colour)
    _box_axis(ax)
    ax.set_ylabel("measured mAP or average recall, %")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    _plain(ax, "both")


def _box_axis(ax: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("boxes an image")


def _curve(ax: Any, rows: Sequence[Row], style: str, colour: str) -> None:
    """The rows of one curve, or its single point; the label says the paper's number of the last, if there is one."""
    if not rows:
        return
    means, stds = zip(*(_summary(row) for row in rows), strict=True)
    told = "".join(f" (paper {'ends at ' * (len(rows) > 1)}{value:.1f})" for value in rows[-1].paper.values())
    label = f"{rows[0].label}, {rows[0].quantity.removesuffix(', %')}{told}"
    marker = style if style in "^Ds" else f"o{style}"
    x = [row.at for row in rows]
    ax.errorbar(x, means, yerr=stds, fmt=marker, color=colour, capsize=3, markersize=5, label=label)


def _summary(row: Row) -> tuple[float, float]:
    """Mean and deviation, 0 for one value, of the one measured column."""
    mean, std = mean_std(next(iter(row.measured.values())))
    return mean, 0.0 if math.isnan(std) else std


_FORMS: dict[str, Callable[[Any, Report], None]] = {"fig2": _layer_bars, "fig3": _curves}
